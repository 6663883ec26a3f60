"""soundfold: honest five-fold cross-validation for environmental sound classification."""

import os

# ONNX Runtime, which torchmetrics imports, sends usage data and stores a device id in the home directory. It reads this
# variable when it is imported, so this must precede every other import.
os.environ["ORT_DISABLE_TELEMETRY"] = os.environ.get("ORT_DISABLE_TELEMETRY") or "1"
# Threads of libgomp, which torch loads on Linux, spin while they wait: up to 300,000 times by default. Beside another
# busy process, which takes the core that they wait for, a training would need many times as long. Threads that never
# spin need longer on an idle machine.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# NumPy's threads spin, too, and its matrices are small here: PyTorch does the large ones.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
