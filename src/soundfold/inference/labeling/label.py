"""Label windows of recordings on a page; the work of ``soundfold label``."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path

from rich.progress import Progress

from soundfold.errors import InputError
from soundfold.experiment.device import choose_device
from soundfold.inference.labeling.candidates import find_candidates, order_by_distance, order_by_margin
from soundfold.inference.labeling.label_book import LabelBook
from soundfold.inference.labeling.label_server import LabelingSession, serve_labeling
from soundfold.inference.predictor import Predictor
from soundfold.io.atomic import explain_write_errors
from soundfold.io.audio import audio_files
from soundfold.io.console import console, escape_bytes
from soundfold.io.locks import exclusive_lock


def label(args: Namespace) -> None:
    """Serve the labeling page until Ctrl-C.

    Args:
        args: arguments of ``soundfold label``.

    Raises:
        InputError: the model, a folder or an option cannot be used, or no recording can be read.
    """
    predictor = Predictor.load(args.run, args.fold, choose_device(args.device, "--device"))
    with explain_write_errors(args.out, "Name another folder with --out."):
        args.out.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(args.out / "labels.lock", "is labeling in this folder"):
        session = prepare_session(predictor, args.files, args.out, args.order, args.hop)
        address, close = serve_labeling(session, args.port)
        console.print(f"Open {address} in a browser on this machine; stop with Ctrl-C.", soft_wrap=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass
        finally:
            close()
    _print_result(session.book)


def prepare_session(
    predictor: Predictor, paths: list[Path], out: Path, order: str, hop: float | None = None
) -> LabelingSession:
    """Score the windows of recordings and order them; labels in ``out`` are continued.

    Args:
        predictor: the models.
        paths: recordings, and folders of recordings.
        out: folder of the labels, see `LabelBook`.
        order: ``uncertain`` or ``diverse``.
        hop: seconds from one window to the next; None is a window, so that windows do not overlap.

    Raises:
        InputError: no recording can be read, or the labels in ``out`` are damaged.
    """
    hop = predictor.seconds if hop is None else hop
    predictor.hop_samples(hop)  # refuse an invalid hop before any work
    book = LabelBook(out)
    files = audio_files(paths)
    embed = order == "diverse"
    with Progress(console=console, transient=True) as progress:
        tracked = progress.track(files, description="Scoring")
        candidates = list(find_candidates(predictor, tracked, hop, embed=embed, skip=_print_error))
    if not candidates:
        raise InputError("No recording could be read, see the errors above.")
    labeled = [i for i, candidate in enumerate(candidates) if candidate.key in book.labels]
    indices = order_by_distance(candidates, labeled) if embed else order_by_margin(candidates)
    console.print(f"{len(candidates)} windows of {len(files)} files; {len(book.labels)} labeled.", soft_wrap=True)
    return LabelingSession(predictor, candidates, indices, book)


def _print_error(path: Path, reason: str) -> None:
    console.print(f"error: {escape_bytes(reason)}", soft_wrap=True)


def _print_result(book: LabelBook) -> None:
    table = escape_bytes(str(book.folder / "labels.csv"))
    console.print(f"{len(book.labels)} labels of {len(book.classes)} classes: {table}", soft_wrap=True)
    if len(book.classes) > 1:
        folder = escape_bytes(str(book.folder))
        console.print(
            f"Train on them: soundfold train data=csv data.root={folder} data.table=labels.csv data.audio=audio",
            soft_wrap=True,
        )
