"""SIGTERM and Ctrl-C as an exception, so that open files and loggers are closed and the exit code names the signal."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

# seconds between repetitions of a `Stopped` that was swallowed
REPEAT_AFTER = 0.5


class Stopped(SystemExit):
    """SIGTERM or Ctrl-C was received.

    The exit code is 128 plus the signal's number, as in a shell: 143 or 130. Not an `Exception`, which libraries catch
    and continue from, and not a `KeyboardInterrupt`, for which Lightning chooses the exit code.
    """

    def __str__(self) -> str:
        return "Ctrl-C" if self.code == 128 + signal.SIGINT else "SIGTERM"


@contextmanager
def handle_stop_signals() -> Iterator[None]:
    """Raise `Stopped` in the main thread on SIGTERM and Ctrl-C.

    After the first signal, a second Ctrl-C kills the process at once and a repeated SIGTERM is ignored. Handlers that
    somebody else installed stay in place, such as those of an enclosing `handle_stop_signals`. An error while resources
    are closed does not replace `Stopped`: the signal may also have ended a process that it depends on.
    """
    previous = {}
    if threading.current_thread() is threading.main_thread():
        defaults = (signal.SIG_DFL, signal.default_int_handler)
        unhandled = [number for number in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(number) in defaults]
        previous = {number: signal.signal(number, _stop) for number in unhandled}
    try:
        yield
    except Exception as error:
        if stop := _stop_behind(error):
            raise stop from None
        raise
    finally:
        if previous and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            # `_stop` replaced its handlers: they stay until the process ends
            if signal.getsignal(number) is _stop:
                signal.signal(number, handler)


def ends_on_sigterm() -> bool:
    """Return whether SIGTERM ends this process; a job environment's handler may ignore it."""
    return signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, _stop)


def _stop(number: int, _frame: FrameType | None) -> None:
    for other, handler in ((signal.SIGINT, signal.SIG_DFL), (signal.SIGTERM, signal.SIG_IGN)):
        if signal.getsignal(other) is _stop:
            signal.signal(other, handler)
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.signal(signal.SIGALRM, partial(_raise_again, 128 + number))
        signal.setitimer(signal.ITIMER_REAL, REPEAT_AFTER, REPEAT_AFTER)
    raise Stopped(128 + number)


def _raise_again(code: int, *_: object) -> None:
    """Raise `Stopped` again if a destructor or a catch-all handler swallowed it."""
    if not _stop_behind(sys.exc_info()[1]):  # else it is being handled: resources are being closed
        raise Stopped(code)


def _stop_behind(error: BaseException | None) -> Stopped | None:
    """Return the `Stopped` that was being handled when ``error`` was raised, or ``error`` itself if it is one."""
    while error is not None and not isinstance(error, Stopped):
        error = error.__context__
    return error
