"""An exported model in 8 bits, and what that costs."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from rich.progress import track

from soundfold.data.layouts import LAYOUTS
from soundfold.data.store import decode, to_int16
from soundfold.errors import InputError
from soundfold.evaluation.results import Predictions, load_predictions
from soundfold.experiment import build
from soundfold.inference.predictor import Predictor
from soundfold.io.pcm import pcm_to_float

CALIBRATION_CLIPS = 64


class FoldClips:
    """The clips that a fold's model is quantised by and scored on: training clips, and the fold's test clips.

    Args:
        run: the run's folder, whose predictions.csv name the clips.
        predictor: the model of one fold.
        root: of the collection; None is where the run found it.

    Raises:
        InputError: it is not one fold's model, or the run's predictions or the clips are not at hand.
    """

    def __init__(self, run: Path, predictor: Predictor, root: Path | None) -> None:
        folds = [model.fold for model in predictor.models]
        if len(folds) > 1 or not folds[0].isdigit() or not run.is_dir():
            raise InputError(
                "--int8 says what it costs on clips that the model has not met, which only one fold's model of a run "
                "has. Give the run's folder and --fold=NUMBER."
            )
        cfg = build.stored_sections(OmegaConf.create(predictor.models[0].bundle.config))
        self.audio = (Path(cfg.data.root) if root is None else root) / LAYOUTS[cfg.data.layout].audio
        if not self.audio.is_dir():
            raise InputError(
                f"--int8 needs the run's clips, and there is no {self.audio}. Give --data=DIRECTORY, the collection's "
                "root."
            )
        self.rate, self.samples, classes = predictor.sample_rate, predictor.samples, predictor.classes
        self.test = load_predictions(run / f"fold{folds[0]}" / "predictions.csv", classes)
        others = [p for p in sorted(run.glob("fold*/predictions.csv")) if p.parent.name != f"fold{folds[0]}"]
        files = [name for path in others for name in load_predictions(path, classes).files]
        if not files:
            raise InputError(
                f"--int8 measures ranges on training clips, which are named by the other folds' predictions.csv in "
                f"{run}; it has none. Train another fold of the run."
            )
        self.training = [files[i] for i in np.linspace(0, len(files) - 1, CALIBRATION_CLIPS).astype(int)]

    def waves(self, files: Iterable[str]) -> Iterator[np.ndarray]:
        """float32 (1, samples) each, in [-1, 1]."""
        for name in files:
            yield pcm_to_float(to_int16(decode(self.audio / name, self.rate, self.samples), self.samples)[None])


def quantise_model(source: Path, target: Path, clips: Iterator[np.ndarray]) -> None:
    """Convolutions and the linear layer of an exported model in 8 bits; the log-mel stays in float32.

    Args:
        source: ONNX file of `soundfold.inference.export.export`.
        target: is written.
        clips: float32 (1, samples) each, from which the ranges of activations are taken.

    Raises:
        InputError: ONNX Runtime is missing.
    """
    try:
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise InputError(f"--int8 needs {error.name}: pip install -e '.[export]'.") from error

    class Reader(CalibrationDataReader):
        def get_next(self) -> Any:
            wave = next(clips, None)
            return None if wave is None else {"wave": wave}

    logging.getLogger().setLevel(logging.ERROR)  # the quantiser writes to the root logger
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        # folds batch norm into the convolutions, whose weights are quantised
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(target),
            Reader(),
            op_types_to_quantize=["Conv", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )


def scored(path: Path, clips: FoldClips, test: Predictions) -> tuple[float, np.ndarray]:
    """Accuracy of an ONNX file on test clips, a fraction of 1, and its probabilities (n, C)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    waves = track(clips.waves(test.files), f"Scoring {path.name}", len(test.files))
    probabilities = np.concatenate([session.run(None, {"wave": wave})[0] for wave in waves])
    return float((probabilities.argmax(axis=1) == test.targets).mean()), probabilities
