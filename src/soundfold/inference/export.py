"""A model as one file that needs nothing of this project: raw waveforms in, probabilities out."""

from __future__ import annotations

import json
import logging
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from soundfold import __version__
from soundfold.errors import InputError
from soundfold.inference.predictor import Predictor
from soundfold.io.atomic import atomic_file
from soundfold.io.pcm import FULL_SCALE
from soundfold.models.scoring import ClipScorer

FORMATS = {"onnx": ".onnx", "torch_export": ".pt2"}
OPSET = 20
TOLERANCE = 1e-4


class ExportGraph(nn.Module):
    """A predictor without its control flow: float32 (B, samples) in [-1, 1] -> probabilities float32 (B, C).

    The clip as it is stored in training (16 bits), its crops, their log-mel once, then each model's statistics, network
    and temperature, and the mean of their probabilities.
    """

    scorer: ClipScorer
    temperatures: Tensor

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.scorer = predictor.scorer
        self.register_buffer("temperatures", predictor.temperatures.float())

    def forward(self, wave: Tensor) -> Tensor:
        logmel = self.scorer.logmel
        stored = (wave * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1) / FULL_SCALE
        # the whole bank at once, as on an accelerator: a CPU's shorter way reads values while the graph is traced
        level = logmel.to_db(logmel.bank @ logmel.power(self.scorer.test_crops(stored)))
        return (self.scorer.logits(level) / self.temperatures).softmax(dim=-1).mean(dim=0)


def metadata(predictor: Predictor) -> dict[str, str]:
    """What a user of the file must know; lists and numbers as JSON."""
    fronts = predictor.scorer.front_ends
    values = {
        "soundfold_version": __version__,
        "classes": list(predictor.classes),
        "sample_rate": predictor.sample_rate,
        "samples": predictor.samples,
        "folds": [model.fold for model in predictor.models],
        "calibrated": predictor.calibrated,
        "temperatures": [model.temperature for model in predictor.models],
        "normalisation": "each clip"
        if fronts[0].image is not None
        else [[float(front.mean), float(front.std)] for front in fronts],
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def export(predictor: Predictor, path: Path, form: str) -> None:
    """Write a predictor as one file, whole or not at all.

    Input ``wave``: float32 (B, samples) at the training rate, nominally in [-1, 1]; B is free. Output
    ``probabilities``: float32 (B, C). The metadata of `metadata` stands in ONNX's ``metadata_props``, or in the extra
    file ``soundfold.json`` of ``torch.export``'s archive.

    Args:
        form: ``onnx`` or ``torch_export``.

    Raises:
        InputError: a package is missing, or the file cannot be written.
    """
    graph = ExportGraph(predictor).eval()
    example = (torch.zeros(2, predictor.samples, device=predictor.device),)
    dynamic = {"wave": {0: torch.export.Dim("batch", min=1)}}
    try:
        with torch.no_grad(), atomic_file(path) as stream, warnings.catch_warnings():
            # deprecations within the exporters
            warnings.simplefilter("ignore")
            if form == "torch_export":
                program = torch.export.export(graph, example, dynamic_shapes=dynamic)
                torch.export.save(program, stream, extra_files={"soundfold.json": json.dumps(metadata(predictor))})
            else:
                stream.write(_onnx(graph, example, dynamic, metadata(predictor)))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}. Give --out=FILE.") from error


def _onnx(graph: nn.Module, example: tuple[Tensor], dynamic: dict, words: dict[str, str]) -> bytes:
    try:
        import onnx
        import onnxscript  # noqa: F401  what the exporter translates with
    except ImportError as error:
        raise InputError(f"--format=onnx needs {error.name}: pip install -e '.[export]'.") from error
    for chatty in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    program = torch.onnx.export(
        graph,
        example,
        dynamo=True,
        dynamic_shapes=dynamic,
        input_names=["wave"],
        output_names=["probabilities"],
        opset_version=OPSET,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, words)
    return model.SerializeToString()


def write_export(given: Namespace) -> None:
    """Export, check against PyTorch, and with ``--int8`` to_int16 and say what that costs.

    Args:
        given: arguments of scripts/export.py.

    Raises:
        InputError: the model or an option cannot be used, or the file does not do what PyTorch does.
    """
    predictor = Predictor.load(given.run, given.fold)
    path = given.out or _default(given.run, given.fold, FORMATS[given.format])
    clips = None
    if given.int8:
        # imported, and refused, before any work
        from soundfold.inference.int8 import FoldClips, quantise_model, scored

        clips = FoldClips(given.run, predictor, given.data)
    export(predictor, path, given.format)
    worst = difference(predictor, path, given.format)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; greatest difference to PyTorch {worst:.1e}")
    if worst > TOLERANCE:
        raise InputError(f"{path} differs from PyTorch by {worst:.1e}, more than {TOLERANCE:g}. Do not use it.")
    if clips is not None:
        small = path.with_name(f"{path.stem}-int8{path.suffix}")
        quantise_model(path, small, clips.waves(clips.training))
        (before, _), (after, _) = (scored(each, clips, clips.test) for each in (path, small))
        print(
            f"{small}: {small.stat().st_size / 1e6:.1f} MB; accuracy on the fold's {len(clips.test.files)} test clips "
            f"{100 * after:.2f} %, {100 * before:.2f} % before"
        )


def difference(predictor: Predictor, path: Path, form: str) -> float:
    """The greatest difference of a probability between a file and PyTorch, on one and on three clips of noise."""
    noise = torch.rand(3, predictor.samples, generator=torch.Generator().manual_seed(0)) - 0.5
    # the quietest has a floor 80 dB below its own loudest band, as each clip has
    noise *= torch.tensor([1.0, 0.1, 0.001])[:, None]
    run: Callable[[Tensor], Tensor]
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

        def run(wave: Tensor) -> Tensor:
            return torch.from_numpy(session.run(None, {"wave": wave.numpy()})[0])

    else:
        program = torch.export.load(path).module()

        def run(wave: Tensor) -> Tensor:
            return program(wave).detach()

    return max(
        float((run(wave) - predictor.probabilities((wave * FULL_SCALE).round().short())).abs().max())
        for wave in (noise[:1], noise)
    )


def _default(run: Path, fold: str | None, suffix: str) -> Path:
    if run.is_file():
        return run.with_suffix(suffix)
    return run / f"model{'' if fold is None else f'-fold{fold}'}{suffix}"
