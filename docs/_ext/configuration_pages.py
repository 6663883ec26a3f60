"""Every configuration key and every option of each group, from the schema and from ``conf/`` with its comments."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from docutils.nodes import make_id
from hydra import compose, initialize_config_dir
from omegaconf import MISSING, OmegaConf
from pages import table, write_pages
from sphinx.application import Sphinx

from soundfold.config import CONF, LOGGERS, MODELS, OPTIMIZERS, Benchmark, Config, Explore, Prepare, register
from soundfold.config.comments import group_comment, key_comments
from soundfold.config.schema import Search

COMMANDS = {"train": Config, "prepare": Prepare, "explore": Explore, "benchmark": Benchmark}
# overrides with which a training has keys that it does not have by default, and the remark on these
MORE = {"+base=search": ", in a search"} | {o: f" with `{o}`" for o in ("optim=sgd", "optim=muon", "model=torchvision")}
# sections whose options have keys of their own
OPTIONS: dict[str, list[type]] = {"model": [*MODELS.values()], "optim": [*OPTIMIZERS.values()]}
HEADER = ["key", "default", "values", "meaning"]

INDEX = """# Configuration

`soundfold train`, `prepare` and `explore` compose a configuration from the files of `conf/`: every key has its default
there. `GROUP=OPTION` chooses a file of a group, such as `data=esc10`; `KEY=VALUE` changes one key, such as
`optim.lr=0.01`. The pages here are generated from those files and from the types, choices and ranges that are checked.
A value that breaks a rule is refused before anything is loaded.

## Keys

{keys}
```{{toctree}}
:hidden:

{commands}
```

## Groups

{groups}
```{{toctree}}
:hidden:

{group_names}
```
"""


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir) / "reference" / "configuration", pages()))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def pages() -> dict[str, str]:
    """Return the pages by file name: an index, the keys of each command, the options of each group."""
    register()
    folders = sorted({path.parent for path in CONF.rglob("*.yaml")} - {CONF, CONF / "base"})
    groups = {folder.relative_to(CONF).as_posix(): folder for folder in folders}
    names = {group: group.replace("/", "-") for group in groups}
    keys = {command: dict(_sections(command)) for command in COMMANDS}
    index = INDEX.format(
        keys="".join(f"- [{len(_flat(keys[name]))} keys of {_command(name)}]({name}.md)\n" for name in COMMANDS),
        commands="\n".join(COMMANDS),
        groups=table(
            ["group", "options"],
            [
                [f"[`{group}`]({names[group]}.md)", ", ".join(f"`{path.stem}`" for path in sorted(folder.glob("*")))]
                for group, folder in groups.items()
            ],
        ),
        group_names="\n".join(names.values()),
    )
    return (
        {"index.md": index}
        | {f"{command}.md": _keys_page(command, sections) for command, sections in keys.items()}
        | {f"{names[group]}.md": _group_page(group, folder) for group, folder in groups.items()}
    )


def _command(name: str) -> str:
    return "`scripts/benchmark.py`" if name == "benchmark" else f"`soundfold {name}`"


def _flat(sections: dict[str, list[list[str]]]) -> list[list[str]]:
    return [row for rows in sections.values() for row in rows]


def _keys_page(command: str, sections: dict[str, list[list[str]]]) -> str:
    name = _command(command)
    parts = [f"# Keys of {name}\n", f"Every key with its default. `KEY=VALUE` after {name} changes it.\n"]
    for section, rows in sections.items():
        title = f"`{section}`" if section else "Keys without a section"
        parts.append(f"## {title}\n\n{table(HEADER, rows)}")
    return "\n".join(parts)


def _sections(command: str) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield each section with the rows of its keys; keys without a section come last, in a section without a name."""
    comments, composed = key_comments(command), _composed(command)
    single: list[list[str]] = []
    for field, hint in _fields(COMMANDS[command]):
        rows = [
            [_anchor(command, key), _default(key, composed), _range(field, hint), _text(comments.get(key))]
            for key, field, hint in _keys(field.name, field, hint, composed)
        ]
        if _schema(hint) or len(rows) > 1:
            yield field.name, rows
        else:
            single += rows
    yield "", single


def _anchor(command: str, key: str) -> str:
    return f"[`{key}`]{{#{make_id(f'{command} {key}')}}}"


def _composed(command: str) -> list[dict[str, Any]]:
    """Return the default values, and those with further keys."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        configs = [compose(command, overrides) for overrides in ([], *([o] for o in MORE if command == "train"))]
    return [OmegaConf.to_container(config, resolve=False) for config in configs]


def _find(key: str, composed: list[dict[str, Any]]) -> tuple[Any, str]:
    """Return the value of a key, and the remark on one that does not exist by default."""
    *sections, name = key.split(".")
    for values, remark in zip(composed, ("", *MORE.values()), strict=False):
        node: Any = values
        for section in sections:
            node = (node or {}).get(section)
        if node is not None and name in node:
            return node[name], remark
    raise KeyError(f"{key} is in no composed configuration: add an override to MORE.")


def _keys(key: str, field: Field, hint: Any, composed: Any) -> Iterator[tuple[str, Field, Any]]:
    """Yield the keys below a key, or the key itself if it has none. A section that may be null is one value."""
    schemas = OPTIONS.get(key, [])
    if (schema := _schema(hint)) and (key == "search" or not _null(hint)):
        schemas = [schema, *schemas]
    if not schemas or key == "search":
        yield key, field, hint
    children = {child.name: (child, child_hint) for schema in schemas for child, child_hint in _fields(schema)}
    for name, (child, child_hint) in children.items():
        yield from _keys(f"{key}.{name}", child, child_hint, composed)
    if key == "logger":
        for name, schema in LOGGERS.items():
            for child, child_hint in _fields(schema):
                yield f"logger.{name}.{child.name}", child, child_hint


def _fields(schema: type) -> list[tuple[Field, Any]]:
    hints = get_type_hints(schema)
    return [(field, hints[field.name]) for field in fields(schema)]


def _schema(hint: Any) -> Any:
    """Return the schema of a section, which may be null; None for a value."""
    if get_origin(hint) is dict:
        return None
    return next((kind for kind in (hint, *get_args(hint)) if hasattr(kind, "__dataclass_fields__")), None)


def _default(key: str, composed: list[dict[str, Any]]) -> str:
    value, remark = _find(key, composed)
    if value == MISSING:
        return "required"
    if key in ("logger", "metrics"):
        return f"see the [group]({key}.md)"
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).removesuffix("\n...\n").strip()
    return f"`{text}`{remark}"


def _range(field: Field, hint: Any) -> str:
    rule = field.metadata
    if rule.get("choices"):
        return ", ".join(f"`{yaml.safe_dump(choice).split()[0]}`" for choice in rule["choices"]) + _null(hint)
    limits = [(word, rule.get(name)) for word, name in (("from", "low"), ("above", "above"), ("to", "high"))]
    words = [_type(hint), *(f"{word} {limit}" for word, limit in limits if limit is not None)]
    return " ".join([*words, *(["finite"] if rule.get("finite") else [])]) + _null(hint)


def _null(hint: Any) -> str:
    return " or null" if types.NoneType in get_args(hint) else ""


def _type(hint: Any) -> str:
    """Return a type in words: those of YAML."""
    if (schema := _schema(hint)) is Search:
        return "mapping"
    if schema:
        return "mapping: " + ", ".join(_entry(field, kind) for field, kind in _fields(schema))
    kinds = [kind for kind in get_args(hint) if kind is not types.NoneType]
    if get_origin(hint) is list:
        return f"list of {_type(kinds[0])}"
    if get_origin(hint) is tuple:
        return f"{len(kinds)} of {_type(kinds[0])}"
    if get_origin(hint) is dict:
        return f"mapping of names to {_type(kinds[1])}" if _schema(kinds[1]) else "mapping"
    if kinds:
        return " or ".join(map(_type, kinds))
    names = {bool: "true, false", str: "text", int: "integer", float: "number"}
    return names.get(hint, "any")


def _entry(field: Field, hint: Any) -> str:
    default = "" if field.default is MISSING else f" (default {yaml.safe_dump(field.default).split()[0]})"
    return f"`{field.name}` {_type(hint)}{default}"


def _text(comment: str | None) -> str:
    """Return a comment as Markdown: braces, stars and underscores are text."""
    return (comment or "").translate({ord(char): f"\\{char}" for char in "{}*_<>[]"})


def _group_page(group: str, folder: Path) -> str:
    paths = sorted(folder.glob("*.yaml"))
    rows = [[f"[{path.stem}](#{path.stem.replace('_', '-')})", _text(group_comment(path))] for path in paths]
    note = "A key that an option does not set has its default."
    parts = [f"# Group `{group}`\n", f"Chosen by `{group}=OPTION`. {note}\n", table(["option", "meaning"], rows)]
    parts += [f"## {path.stem}\n\n```yaml\n{path.read_text().strip()}\n```\n" for path in paths]
    return "\n".join(parts)
