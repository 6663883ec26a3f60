"""Exceptions whose message is one paragraph for the user, and the exit codes that scripts return for them."""

import errno
import os
import re
import sys
from collections.abc import Callable

# as a shell reports processes that SIGINT or SIGPIPE ended
CTRL_C, BROKEN_PIPE = 130, 141
# of a file that cannot be written: full disk, quota, file size limit, device
OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
# C0, DEL and C1, bytes of a file name that are not UTF-8, line separators, and marks that reorder text
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# in the message of a RuntimeError or ImportError: of PyTorch's allocators, oneDNN, C++, the operating system, and of
# Python's threads and imports
OUT_OF_MEMORY = (
    "can't allocate memory",
    "out of memory",
    "could not create a primitive",
    "bad_alloc",
    "Cannot allocate memory",
    "can't start new thread",
    "failed to map segment from shared object",
)
MEMORY_ADVICE = "Close other programs, raise the limit of this process (ulimit -v), or use a machine with more memory."


def printable(text: object, keep: str = "") -> str:
    """Return the text of a value with escaped control characters, which could move the cursor or hide what follows.

    Args:
        text: such as a file name or a message that contains one.
        keep: characters that are not escaped, such as line breaks.
    """
    return UNPRINTABLE.sub(lambda m: m[0] if m[0] in keep else m[0].encode("unicode_escape").decode(), str(text))


class InputError(Exception):
    """A value, file or environment from the user cannot be used.

    The message is one paragraph: what is wrong, where, the rule and the remedy. Scripts print it without a traceback
    and exit with status 2.
    """


class ArgumentError(InputError, ValueError):
    """An argument of a library class or function is invalid.

    The message puts argument names in backticks, as in "`n_fft`=1 must be between 2 and 32768."
    `soundfold.validation.config_keys` replaces them by the dotted keys of the configuration.
    """


def check_between(name: str, value: float, lowest: float, highest: float) -> None:
    """Raise `ArgumentError` if an argument is out of range, or nan."""
    if not lowest <= value <= highest:
        raise ArgumentError(f"`{name}`={value:g} must be between {lowest:g} and {highest:g}.")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory is exhausted, by an error of Python, PyTorch, oneDNN, C++ or the operating system."""
    # PyTorch's class is named, because importing it takes seconds
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    typical = isinstance(error, RuntimeError | ImportError)
    return named or (typical and any(text in str(error) for text in OUT_OF_MEMORY))


class TrainingError(Exception):
    """Training started and cannot continue.

    The message is one paragraph: where it failed, the likely cause and the remedy. Scripts print it without a traceback
    and exit with status 1.
    """


def exit_code_of(main: Callable[[], int | None]) -> int:
    """Run a script's main function and return its exit code.

    0 for None, 2 after printing an `InputError`, 1 if memory is exhausted or standard output cannot be written, 130
    after Ctrl-C, and 141 if the reader of standard output, such as ``head``, ended.
    """
    open_standard_streams()
    try:
        code = main() or 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("Stopped by Ctrl-C.", file=sys.stderr)
        return CTRL_C
    except BrokenPipeError:
        discard_output()
        return BROKEN_PIPE
    except (InputError, MemoryError, RuntimeError, OSError, ImportError) as error:
        if message := explain_exhaustion(error):
            print(f"error: {message}", file=sys.stderr)
            return 1
        if not isinstance(error, InputError):
            raise
        print(f"error: {printable(error)}", file=sys.stderr)
        return 2
    return code


def open_standard_streams() -> None:
    """Open standard streams that the caller closed, as a cron job may, on the null device.

    Otherwise they are None, and the next file that is opened gets their number, and what libraries print.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def explain_exhaustion(error: Exception) -> str | None:
    """Return the message if memory, or the disk of standard output, is exhausted, else None."""
    if is_out_of_memory(error):
        return f"Out of memory: {str(error) or type(error).__name__}. {MEMORY_ADVICE}"
    return _explain_output_error(error)


def _explain_output_error(error: Exception) -> str | None:
    """Return the message if standard output cannot be written; discard what was not written."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    if cause is None or cause.filename is not None or cause.errno not in OUTPUT_ERRORS:
        return None
    try:
        # the error does not name its file, so try again
        print(flush=True)
    except OSError as again:
        discard_output()
        return f"Standard output cannot be written: {again.strerror}. Free some space, or redirect it to another file."
    return None


def discard_output() -> None:
    """Discard what was not written to standard output; Python would report it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
