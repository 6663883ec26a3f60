"""soundfold: honest five-fold cross-validation for environmental sound classification."""

import os

# ONNX Runtime, which torchmetrics imports, sends usage data and stores a device id in the home directory. It reads this
# variable when it is imported, so this must precede every other import.
os.environ["ORT_DISABLE_TELEMETRY"] = os.environ.get("ORT_DISABLE_TELEMETRY") or "1"

__version__ = "0.1.0"
