"""Just enough GraphQL for the stand-in: the name of an operation, and the part of an answer that it selects."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

TOKEN = re.compile(r'\.\.\.|"(?:\\.|[^"\\])*"|[$\w.+-]+|[{}()\[\]:=!@,|&]')


class UnknownField(Exception):
    """A field that the stand-in does not answer."""


@dataclass
class Selection:
    """A field that a query selects.

    Attributes:
        name: of the field; empty for a fragment, whose fields belong to the field around it.
        key: name in the answer, which is the alias if there is one.
        only_if: name of the variable of an ``@include`` directive, which is true by default.
        fragment: name of the fragment that is spread here.
        fields: the selected fields of the field.
    """

    name: str = ""
    key: str = ""
    only_if: str | None = None
    fragment: str | None = None
    fields: list[Selection] = field(default_factory=list)


@dataclass
class Operation:
    """A parsed query or mutation."""

    name: str
    root: Selection
    fragments: dict[str, Selection]


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens = TOKEN.findall(re.sub(r"#[^\n]*", "", text))
        self.position = 0

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        self.position += 1
        return self.tokens[self.position - 1]

    def skip_group(self) -> None:
        """Skip arguments or variables in parentheses."""
        depth = 0
        while self.peek() == "(" or depth:
            depth += {"(": 1, ")": -1}.get(self.take(), 0)

    def document(self) -> Operation:
        operation, fragments = Operation("", Selection(), {}), {}
        while self.peek():
            kind = "query" if self.peek() == "{" else self.take()
            name = "" if self.peek() in "({" else self.take()
            if kind == "fragment":
                self.position += 2  # on TYPE
                fragments[name] = Selection(fields=self.fields())
            else:
                self.skip_group()
                operation = Operation(name, Selection(fields=self.fields()), fragments)
        return operation

    def fields(self) -> list[Selection]:
        fields = []
        self.take()
        while self.peek() != "}":
            fields.append(self.selection())
        self.take()
        return fields

    def selection(self) -> Selection:
        selection = Selection()
        if self.peek() == "...":
            self.take()
            if self.peek() == "on":
                self.position += 2
            elif self.peek() not in ("{", "@"):
                selection.fragment = self.take()
        else:
            selection.name = selection.key = self.take()
            if self.peek() == ":":
                self.take()
                selection.name = self.take()
            self.skip_group()
        while self.peek() == "@":
            self.take()
            directive, start = self.take(), self.position
            self.skip_group()
            if directive == "include":
                selection.only_if = self.tokens[start + 3].removeprefix("$")
        if self.peek() == "{":
            selection.fields = self.fields()
        return selection


def parse(text: str) -> Operation:
    """Return the operation of a document, and its fragments."""
    return _Parser(text).document()


def select(operation: Operation, answer: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
    """Return the selected part of an answer.

    Raises:
        UnknownField: the answer lacks a selected field.
    """

    def project(fields: list[Selection], value: Any, path: str) -> Any:
        if isinstance(value, list):
            return [project(fields, item, path) for item in value]
        if not fields or value is None:
            return value
        result: dict[str, Any] = {}
        for item in fields:
            if item.only_if is not None and not variables.get(item.only_if, True):
                continue
            if not item.name:
                inner = operation.fragments[item.fragment].fields if item.fragment else item.fields
                result |= project(inner, value, path)
            elif item.name not in value:
                raise UnknownField(f"{path}.{item.name}")
            else:
                result[item.key] = project(item.fields, value[item.name], f"{path}.{item.name}")
        return result

    return project(operation.root.fields, answer, operation.name)
