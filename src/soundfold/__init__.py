"""soundfold: honest five-fold cross-validation for environmental sound classification.

From Python::

    from soundfold import Predictor, cross_validate, load_run

    run = cross_validate(["data=esc10", "experiment=quick"])
    run = load_run("outputs/esc10-1a2b3c4d")
    Predictor.load(run.folder).file("dog.wav").top()
"""

import os
from importlib import import_module
from typing import Any

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
__all__ = ["Prediction", "Predictor", "Run", "cross_validate", "load_run"]

# imported when they are used: PyTorch takes seconds, and the command line answers without it
_MODULES = {
    "Prediction": "soundfold.inference.prediction",
    "Predictor": "soundfold.inference.predictor",
    **dict.fromkeys(("Run", "cross_validate", "load_run"), "soundfold.api"),
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
