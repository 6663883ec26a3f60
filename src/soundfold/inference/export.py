"""Export a model as one file without dependencies on this project: raw waveforms in, probabilities out."""

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
from soundfold.config import install_command
from soundfold.errors import InputError, printable
from soundfold.inference.fold_models import run_folder
from soundfold.inference.predictor import Predictor
from soundfold.io.atomic import atomic_file, write_text
from soundfold.io.pcm import FULL_SCALE
from soundfold.models.scoring import ClipScorer
from soundfold.report.model_card import CardSource, model_card

SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2"}
OPSET = 20
# maximum difference of a probability to PyTorch
TOLERANCE = 1e-4


class ExportGraph(nn.Module):
    """A predictor without control flow: float32 (B, samples) in [-1, 1] -> probabilities float32 (B, C).

    Clips are rounded to 16 bits, as in training, and cropped; the log-mel is computed once for all models.
    """

    scorer: ClipScorer
    temperatures: Tensor

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.scorer = predictor.scorer
        self.register_buffer("temperatures", predictor.temperatures.float())

    def forward(self, wave: Tensor) -> Tensor:
        logmel = self.scorer.logmel
        rounded = (wave * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1) / FULL_SCALE
        # the entire filter bank at once: the shortcut for CPUs depends on values, which tracing cannot follow
        log_mel_db = logmel.to_db(logmel.bank @ logmel.power(self.scorer.test_crops(rounded)))
        return (self.scorer.logits(log_mel_db) / self.temperatures).softmax(dim=-1).mean(dim=0)


def metadata(predictor: Predictor) -> dict[str, str]:
    """Return the metadata that an exported file stores; lists and numbers are JSON."""
    front_ends = predictor.scorer.front_ends
    per_clip = front_ends[0].image is not None
    values = {
        "soundfold_version": __version__,
        "classes": list(predictor.classes),
        "sample_rate": predictor.sample_rate,
        "samples": predictor.samples,
        "folds": [model.fold for model in predictor.models],
        "calibrated": predictor.calibrated,
        "temperatures": [model.temperature for model in predictor.models],
        "normalisation": "each clip" if per_clip else [[fe.mean.tolist(), fe.std.tolist()] for fe in front_ends],
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def export(predictor: Predictor, path: Path, format: str) -> None:
    """Write a predictor as one file, atomically.

    Input ``wave``: float32 (B, samples) at the training rate, nominally in [-1, 1]; B is dynamic. Output
    ``probabilities``: float32 (B, C). `metadata` is stored in ONNX's ``metadata_props``, or in the extra file
    ``soundfold.json`` of ``torch.export``'s archive.

    Args:
        predictor: the models.
        path: file to write.
        format: ``onnx`` or ``torch_export``.

    Raises:
        InputError: a package is missing, or the file cannot be written.
    """
    graph = ExportGraph(predictor).eval()
    example = (torch.zeros(2, predictor.samples, device=predictor.device),)
    dynamic_shapes = {"wave": {0: torch.export.Dim("batch", min=1)}}
    try:
        with torch.no_grad(), atomic_file(path) as stream, warnings.catch_warnings():
            # deprecations within the exporters
            warnings.simplefilter("ignore")
            if format == "torch_export":
                program = torch.export.export(graph, example, dynamic_shapes=dynamic_shapes)
                torch.export.save(program, stream, extra_files={"soundfold.json": json.dumps(metadata(predictor))})
            else:
                stream.write(_onnx_bytes(graph, example, dynamic_shapes, metadata(predictor)))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}. Set --out=FILE.") from error


def _onnx_bytes(graph: nn.Module, example: tuple[Tensor], dynamic_shapes: dict, properties: dict[str, str]) -> bytes:
    try:
        import onnx
        import onnxscript  # noqa: F401  required by the exporter
    except ImportError as error:
        raise InputError(f"--format=onnx requires {error.name}: {install_command('export')}.") from error
    for verbose in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(verbose).setLevel(logging.ERROR)
    program = torch.onnx.export(
        graph,
        example,
        dynamo=True,
        dynamic_shapes=dynamic_shapes,
        input_names=["wave"],
        output_names=["probabilities"],
        opset_version=OPSET,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, properties)
    return model.SerializeToString()


def write_export(args: Namespace) -> None:
    """Export a model and compare the file with PyTorch; with ``--int8``, also quantize it and measure its accuracy.

    Args:
        args: arguments of ``soundfold export``.

    Raises:
        InputError: the model or an option cannot be used, or the file's probabilities differ from PyTorch's.
    """
    predictor = Predictor.load(args.run, args.fold)
    path = args.out or _default_path(args.run, args.fold, SUFFIXES[args.format])
    clips = None
    if args.int8:
        # before the export, so that missing packages and clips are reported at once
        from soundfold.inference.int8 import FoldClips, onnx_accuracy, quantize_model

        clips = FoldClips(args.run, predictor, args.data)
    export(predictor, path, args.format)
    difference = max_difference(predictor, path, args.format)
    print(f"{printable(path)}: {path.stat().st_size / 1e6:.1f} MB; maximum difference to PyTorch {difference:.1e}")
    if difference > TOLERANCE:
        raise InputError(f"{path} differs from PyTorch by {difference:.1e}, more than {TOLERANCE:g}. Do not use it.")
    if (run := run_folder(args.run)) is not None:
        card = model_card(CardSource.load(run), [model.fold for model in predictor.models], "", tags=[args.format])
        write_text(path.with_suffix(".md"), card)
    if clips is not None:
        int8_path = path.with_name(f"{path.stem}-int8{path.suffix}")
        quantize_model(path, int8_path, clips.waves(clips.training))
        before, after = onnx_accuracy(path, clips), onnx_accuracy(int8_path, clips)
        print(
            f"{printable(int8_path)}: {int8_path.stat().st_size / 1e6:.1f} MB; accuracy on the fold's "
            f"{len(clips.test.files)} test clips {100 * after:.2f} %, {100 * before:.2f} % before quantization"
        )


def max_difference(predictor: Predictor, path: Path, format: str) -> float:
    """Return the maximum difference of a probability between a file and PyTorch, for batches of one and three clips."""
    noise = torch.rand(3, predictor.samples, generator=torch.Generator().manual_seed(0)) - 0.5
    # the floor of each clip's log-mel is relative to its own maximum
    noise *= torch.tensor([1.0, 0.1, 0.001])[:, None]
    run: Callable[[Tensor], Tensor]
    if format == "onnx":
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


def _default_path(run: Path, fold: str | None, suffix: str) -> Path:
    if run.is_file():
        return run.with_suffix(suffix)
    return run / f"model{'' if fold is None else f'-fold{fold}'}{suffix}"
