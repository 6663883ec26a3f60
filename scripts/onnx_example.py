"""Classify a sound file with an exported model; needs onnxruntime, numpy and soundfile, and nothing of this project.

python onnx_example.py model.onnx recording.wav
"""

import json
import sys

import numpy as np
import onnxruntime
import soundfile

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
classes, rate, samples = (json.loads(about[key]) for key in ("classes", "sample_rate", "samples"))

wave, found = soundfile.read(sys.argv[2], dtype="float32", always_2d=True)
if found != rate:
    sys.exit(f"{sys.argv[2]} is sampled at {found} Hz and the model takes {rate} Hz: resample it first.")
wave = wave.mean(axis=1)[:samples]
wave = np.pad(wave, (0, samples - len(wave)))

probabilities = session.run(["probabilities"], {"wave": wave[None]})[0][0]
for best in np.argsort(-probabilities)[:3]:
    print(f"{100 * probabilities[best]:5.1f} %  {classes[best]}")
