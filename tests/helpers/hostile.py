"""Property tests with hostile input, bounded in time and memory."""

import faulthandler
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from soundfold.errors import InputError

SECONDS = 30
MEMORY = 3 << 30  # bytes


class Hang(BaseException):
    """Raised on a timeout. Not an Exception, so that the code under test does not catch it."""


@contextmanager
def bounded() -> Iterator[None]:
    """Fail if the body takes longer than `SECONDS` or allocates more than `MEMORY`."""

    def hang(*_args: Any) -> None:
        raise Hang(f"not finished after {SECONDS} s")

    handler, (soft, hard) = signal.signal(signal.SIGALRM, hang), resource.getrlimit(resource.RLIMIT_AS)
    statm = Path("/proc/self/statm")  # Linux only; memory is not limited elsewhere
    if statm.exists():
        allocated = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (allocated + MEMORY, hard))
    signal.alarm(SECONDS)
    # the alarm's handler does not run while a library call does not return to Python
    faulthandler.dump_traceback_later(2 * SECONDS, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def property_test(cases: st.SearchStrategy, few: int, many: int, examples: tuple = ()) -> Callable:
    """Turn a function ``(case, tmp_path)`` into a test over drawn cases.

    Args:
        cases: strategy of the cases.
        few: number of cases in the normal suite, the same in each run.
        many: number of cases in the slow suite, different in each run.
        examples: cases that are always tested.
    """

    def decorate(check: Callable[[Any, Path], None]) -> Callable:
        def test(n_cases: int, tmp_path: Path) -> None:
            @settings(
                max_examples=n_cases,
                derandomize=n_cases == few,
                deadline=None,
                database=None,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            )
            @given(cases)
            def run(case: Any) -> None:
                with bounded():
                    check(case, tmp_path)

            for case in examples:
                run = example(case)(run)
            run()

        test.__name__ = check.__name__
        sizes = [few, pytest.param(many, marks=pytest.mark.slow)]
        return pytest.mark.parametrize("n_cases", sizes, ids=["few", "many"])(test)

    return decorate


def accepted(work: Callable[[], Any]) -> Any:
    """Return the result of ``work``, or None if it raises InputError. Other exceptions fail the test."""
    try:
        return work()
    except InputError:
        return None
