"""The code blocks of a Markdown page: commands, Python, and files that a reader is asked to write."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

SHELLS = ("bash", "sh", "shell", "console")
FENCE = re.compile(r"^(?P<indent>\s*)(?P<fence>`{3,}|~{3,})\s*(?P<info>.*)$")
MARK = re.compile(r"^\s*<!-- (?P<kind>not run|file): (?P<text>.*?) -->\s*$")
# a command in a block that is not labelled as one would never be tried
COMMAND = re.compile(r"^\s*\$?\s*(?:soundfold|python|pip|make) (?!ends|is|has|needs|are)\S+", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: the Markdown file.
        line: number of the block's first line.
        language: such as ``bash``.
        text: its lines.
        file: name of the file that the reader is asked to write with this content, if any.
        reason: why it cannot run here, if so.
    """

    page: Path
    line: int
    language: str
    text: str
    file: str | None = None
    reason: str | None = None

    @property
    def where(self) -> str:
        """Page and line, for messages."""
        return f"{self.page.name}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A line of a shell block: its words, and the variables set before it."""

    block: Block
    line: int
    words: tuple[str, ...]
    variables: dict[str, str]

    @property
    def where(self) -> str:
        """Page, line and command, for messages."""
        return f"{self.block.page.name}:{self.line}: {shlex.join(self.words)}"


def read_blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in their order."""
    blocks: list[Block] = []
    lines = page.read_text().split("\n")
    marks: dict[str, str] = {}
    number = 0
    while number < len(lines):
        if mark := MARK.match(lines[number]):
            marks[mark["kind"]] = mark["text"]
        elif fence := FENCE.match(lines[number]):
            end = next(
                (n for n in range(number + 1, len(lines)) if re.fullmatch(rf"\s*{fence['fence']}\s*", lines[n])),
                len(lines),
            )
            body = [line.removeprefix(fence["indent"]) for line in lines[number + 1 : end]]
            blocks.append(_block(page, number + 2, fence["info"], body, marks))
            marks, number = {}, end
        elif lines[number].strip():
            marks = {}
        number += 1
    return blocks


def _block(page: Path, line: int, info: str, body: list[str], marks: dict[str, str]) -> Block:
    directive = re.fullmatch(r"\{(?:code-block|code)\}\s*(\w+)", info.strip())
    if directive:
        while body and (re.match(r":[\w-]+:", body[0]) or not body[0].strip()):
            body, line = body[1:], line + 1
    language = directive[1] if directive else info.strip().split(" ")[0].lower()
    return Block(page, line, language, "\n".join(body) + "\n", marks.get("file"), marks.get("not run"))


def commands(block: Block) -> list[Command]:
    """Return the commands of a shell block; ``&&`` separates two, and a backslash joins lines."""
    found: list[Command] = []
    text, first = "", block.line
    for offset, line in enumerate(block.text.split("\n")):
        if block.language == "console":
            # output has no prompt
            line = line.removeprefix("$ ") if line.startswith("$ ") else ""
        if not text:
            first = block.line + offset
        text += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        for words in _split(shlex.split(text, comments=True), "&&"):
            found += _command(block, first, words)
        text = ""
    return found


def _command(block: Block, line: int, words: list[str]) -> list[Command]:
    variables = {}
    while words and (setting := re.fullmatch(r"([A-Z_]+)=(.*)", words[0])):
        variables[setting[1]] = setting[2]
        words = words[1:]
    return [Command(block, line, tuple(words), variables)] if words else []


def _split(words: list[str], separator: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word == separator:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts
