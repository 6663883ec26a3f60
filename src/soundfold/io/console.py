"""The consoles: notes and progress on standard error, so that results on standard output can be piped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from soundfold.errors import printable

PIPE_WIDTH = 1000  # columns in a file or a pipe


class Terminal(Console):
    """A console that escapes control characters of file names, class names and messages, but not line breaks."""

    def __init__(self, **options: Any) -> None:
        # texts contain brackets, which Rich would parse as markup, and may contain names of emojis between colons
        super().__init__(markup=False, emoji=False, **options)
        if "width" not in options and not self.is_terminal and not self.is_jupyter:
            # Rich assumes 80 columns, and cuts or wraps names
            self.width = PIPE_WIDTH

    def render_str(self, text: str, **options: Any) -> Text:
        """Escape a text before its width is measured."""
        return super().render_str(printable(text, "\n\t"), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Escape all other texts, such as those of progress bars."""
        for segment in super().render(renderable, options):
            is_plain = segment.control or segment.text.isprintable()
            yield segment if is_plain else segment._replace(text=printable(segment.text, "\n\t"))

    def on_broken_pipe(self) -> None:
        """Raise instead of exiting with 1: scripts end quietly with 141 when ``| head`` has read enough."""
        raise BrokenPipeError


console = Terminal(stderr=True)


def escape_markdown(text: str) -> str:
    """Return a name as plain text of Markdown, also in a table: without HTML, links, pictures and line breaks."""
    return re.sub(r"([\\`\[\]|])", r"\\\1", html.escape(printable(text), quote=False))


def escape_bytes(text: str) -> str:
    r"""Escape the bytes of a file name that are not UTF-8, which Python reads as surrogates, like ``\xe9``."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
