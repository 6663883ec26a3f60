"""Classify a sound file with an exported model; requires only onnxruntime, numpy and soundfile.

python onnx_example.py model.onnx recording.wav
"""

import json
import os
import sys

import numpy as np
import soundfile

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when it is imported; otherwise it sends usage data
import onnxruntime

if len(sys.argv) != 3:
    sys.exit("usage: python onnx_example.py model.onnx recording.wav")
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
metadata = session.get_modelmeta().custom_metadata_map
classes, rate, samples = (json.loads(metadata[key]) for key in ("classes", "sample_rate", "samples"))

wave, file_rate = soundfile.read(sys.argv[2], dtype="float32", always_2d=True)
if file_rate != rate:
    sys.exit(f"{sys.argv[2]} is sampled at {file_rate} Hz and the model requires {rate} Hz: resample it first.")
wave = wave.mean(axis=1)[:samples]
wave = np.pad(wave, (0, samples - len(wave)))

probabilities = session.run(["probabilities"], {"wave": wave[None]})[0][0]
for i in np.argsort(-probabilities)[:3]:
    print(f"{100 * probabilities[i]:5.1f} %  {classes[i]}")
