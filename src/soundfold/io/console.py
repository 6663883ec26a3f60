"""The consoles: notes and progress on standard error, so that results on standard output can be piped."""

from rich.console import Console

# messages contain brackets, which Rich would parse as markup
console = Console(stderr=True, markup=False)


class OutputConsole(Console):
    """A console for results on standard output."""

    def on_broken_pipe(self) -> None:
        """Raise instead of exiting with 1: scripts end quietly with 141 when ``| head`` has read enough."""
        raise BrokenPipeError


def escape_bytes(text: str) -> str:
    r"""Escape the bytes of a file name that are not UTF-8, which Python reads as surrogates, like ``\xe9``."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
