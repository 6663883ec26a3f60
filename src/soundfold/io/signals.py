"""SIGTERM and Ctrl-C end a process as an exception does: what is open is closed, and the exit code tells which."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType


class Stopped(SystemExit):
    """SIGTERM or Ctrl-C has come: the process is to end.

    Its code is a shell's, 128 and the signal's number: 143 and 130. No exception that a library catches and goes on
    from, and no KeyboardInterrupt, which Lightning answers with an exit code of its own.
    """

    def __str__(self) -> str:
        return "Ctrl-C" if self.code == 128 + signal.SIGINT else "SIGTERM"


@contextmanager
def handle_stop_signals() -> Iterator[None]:
    """Within, SIGTERM and Ctrl-C raise `Stopped` in the main thread, wherever that is.

    After the first, a second Ctrl-C kills the process at once, and SIGTERM, which who sends it may repeat, is ignored.
    Handlers of others stay: submitit's, which let SIGTERM pass as SLURM's signal to requeue comes after it, and those
    of a `handle_stop_signals` around this one.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        defaults = (signal.SIG_DFL, signal.default_int_handler)
        ours = [number for number in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(number) in defaults]
        before = {number: signal.signal(number, _stop) for number in ours}
    try:
        yield
    finally:
        if before and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            # once stopped, it is so to the end of the process
            if signal.getsignal(number) is _stop:
                signal.signal(number, handler)


def ends_on_sigterm() -> bool:
    """Whether SIGTERM ends this process, as it does unless a job environment's handler lets it pass."""
    return signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, _stop)


def _stop(number: int, _frame: FrameType | None) -> None:
    for other, handler in ((signal.SIGINT, signal.SIG_DFL), (signal.SIGTERM, signal.SIG_IGN)):
        if signal.getsignal(other) is _stop:
            signal.signal(other, handler)
    if hasattr(signal, "setitimer"):  # Windows has none
        signal.signal(signal.SIGALRM, partial(_insist, 128 + number))
        signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)
    raise Stopped(128 + number)


def _insist(code: int, *_: object) -> None:
    """Raise it again where it was lost, in a destructor, or to a library that catches everything and goes on."""
    error = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, Stopped):
            return  # what is open is being closed
        error = error.__context__
    raise Stopped(code)
