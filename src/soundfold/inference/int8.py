"""Quantize an exported model to 8 bits, and measure the accuracy it loses."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from soundfold.config import install_command
from soundfold.data.layouts import find_layout
from soundfold.data.store import decode, to_int16
from soundfold.errors import InputError
from soundfold.evaluation.predictions import load_predictions
from soundfold.evaluation.results import load_folds
from soundfold.experiment import build
from soundfold.inference.predictor import Predictor
from soundfold.io.console import console
from soundfold.io.pcm import pcm_to_float

CALIBRATION_CLIPS = 64


class FoldClips:
    """Training clips that calibrate the quantization of a fold's model, and the fold's test clips.

    Args:
        run: the run's folder, whose predictions.csv name the clips.
        predictor: the model of one fold.
        root: of the collection; None is the run's ``data.root``.

    Attributes:
        training: names of the calibration clips.
        test: the fold's predictions.

    Raises:
        InputError: the predictor is not one fold's model, or the run's predictions or the clips are not available.
    """

    def __init__(self, run: Path, predictor: Predictor, root: Path | None) -> None:
        folds = [model.fold for model in predictor.models]
        if len(folds) > 1 or not folds[0].isdigit() or not run.is_dir():
            raise InputError(
                "--int8 measures accuracy on clips that did not train the model, so it requires the model of one fold. "
                "Name the run's folder and set --fold=NUMBER."
            )
        cfg = build.stored_sections(predictor.models[0].bundle.values)
        audio = find_layout(cfg.data.layout, build.table_options(cfg)).audio
        self.audio = (Path(cfg.data.root) if root is None else root) / audio
        if not self.audio.is_dir():
            raise InputError(
                f"--int8 requires the run's clips, and there is no {self.audio}. Set --data=DIRECTORY to the "
                "collection's root."
            )
        self.rate, self.samples, classes = predictor.sample_rate, predictor.samples, predictor.classes
        predictions = {
            str(r.fold): load_predictions(run / f"fold{r.fold}" / "predictions.csv", classes, r.predictions)
            for r in load_folds(run)
        }
        self.test = predictions.pop(folds[0])
        files = [name for other in predictions.values() for name in other.files]
        if not files:
            raise InputError(
                f"--int8 calibrates on training clips, whose names are in the other folds' predictions.csv, and {run} "
                "has none. Train another fold of the run."
            )
        self.training = [files[i] for i in np.linspace(0, len(files) - 1, CALIBRATION_CLIPS).astype(int)]

    def waves(self, files: Iterable[str]) -> Iterator[np.ndarray]:
        """Yield each clip as float32 (1, samples), in [-1, 1]."""
        for name in files:
            yield pcm_to_float(to_int16(decode(self.audio / name, self.rate, self.samples), self.samples)[None])


def quantize_model(source: Path, target: Path, waves: Iterator[np.ndarray]) -> None:
    """Quantize the convolutions and the linear layer of an ONNX file; the log-mel stays in float32.

    Args:
        source: written by `soundfold.inference.export.export`.
        target: file to write.
        waves: float32 (1, samples), which calibrate the ranges of activations.

    Raises:
        InputError: ONNX Runtime is not installed.
    """
    try:
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise InputError(f"--int8 requires {error.name}: {install_command('export')}.") from error

    class Reader(CalibrationDataReader):
        def get_next(self) -> Any:
            wave = next(waves, None)
            return None if wave is None else {"wave": wave}

    logging.getLogger().setLevel(logging.ERROR)  # the quantizer logs to the root logger
    with tempfile.TemporaryDirectory() as folder:
        preprocessed = Path(folder) / "preprocessed.onnx"
        # folds batch norm into the convolutions before their weights are quantized
        quant_pre_process(str(source), str(preprocessed), skip_symbolic_shape=True)
        quantize_static(
            str(preprocessed),
            str(target),
            Reader(),
            op_types_to_quantize=["Conv", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )


def onnx_accuracy(path: Path, clips: FoldClips) -> float:
    """Return the accuracy of an ONNX file on the fold's test clips, in [0, 1]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    waves = track(clips.waves(clips.test.files), f"Scoring {path.name}", len(clips.test.files), console=console)
    probabilities = np.concatenate([session.run(None, {"wave": wave})[0] for wave in waves])
    return float((probabilities.argmax(axis=1) == clips.test.targets).mean())
