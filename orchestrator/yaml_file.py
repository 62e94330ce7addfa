"""YAML text -> plain data, with the line of every key and list item.

YAML 1.2 where PyYAML reads 1.1: `1e-3` is a number, `yes`, `no`, `on`, `off` and `2024-01-01` are text, `010`
is ten; beside `.inf`, `inf` is infinity. Safe for any input: no tags that make objects, bounded size.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orchestrator.errors import KeyPath, Mistake, SweepError, key_path_text, printable

MAX_BYTES = 1_000_000
MAX_NODES = 100_000
MAX_DEPTH = 50
MAX_INT = 2**63 - 1
SET = "--set"

_TAG = "tag:yaml.org,2002:"
_PLAIN = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?(\.inf|\.Inf|\.INF|inf)"
    r"|\.nan|\.NaN|\.NAN",
}
_RESOLVERS = {None: [(_TAG + name, re.compile(rf"(?:{pattern})\Z")) for name, pattern in _PLAIN.items()]}
"""How PyYAML types a plain scalar: None stands for any first character, the first match counts."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _RESOLVERS


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _RESOLVERS

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Unicode line breaks survive in double quotes only."""
        style = None if data.replace("\n", "").isprintable() else '"'
        return self.represent_scalar(_TAG + "str", data, style)


_Dumper.add_representer(str, _Dumper.represent_str)


@dataclass(frozen=True)
class YamlFile:
    """The data of a file. `lines` has an entry for every key and list item; None: given with `--set`."""

    file: str
    data: Mapping[str, Any]
    lines: Mapping[KeyPath, int | None] = field(default_factory=dict)

    def mistake(
        self, path: KeyPath, message: str, allowed: str | None = None, nearest: str | None = None
    ) -> Mistake:
        """A mistake at this path, or at the nearest thing above it that stands in the file."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                line = self.lines[path[:end]]
                return Mistake(SET if line is None else self.file, line, path, message, allowed, nearest)
        return Mistake(self.file, None, path, message, allowed, nearest)


def read_yaml(path: Path | str) -> YamlFile:
    """The YAML file at `path`. Raises SweepError, also if it cannot be read."""
    file = str(path)
    try:
        with open(path, "rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _error(file, None, _unreadable(error)) from error
    if len(content) > MAX_BYTES:
        raise _error(file, None, f"larger than {MAX_BYTES:,} bytes: this is not written by hand")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _error(file, line, "not UTF-8 text; save the file as UTF-8") from error
    return parse_yaml(text, file)


def _unreadable(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "is a directory, not a file"
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"


def parse_yaml(text: str, file: str) -> YamlFile:
    """The data of one YAML document, a mapping. Raises SweepError."""
    data, lines = _parse(text, file)
    if data is None:
        raise _error(file, None, "the file is empty")
    if not isinstance(data, dict):
        raise _error(file, None, f"the top level is {_kind(data)}, not a mapping of keys")
    return YamlFile(file, data, lines)


def dump_yaml(data: Mapping[str, Any]) -> str:
    """YAML text that `parse_yaml` reads as the same data."""
    return yaml.dump(
        dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None
    )


def apply_overrides(document: YamlFile, overrides: Sequence[str]) -> YamlFile:
    """The document with `model.width=32`-like assignments applied; values are YAML. Raises SweepError."""
    data, lines = copy.deepcopy(dict(document.data)), dict(document.lines)
    mistakes: list[Mistake] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not all(key.split(".")):
            mistakes.append(
                Mistake(SET, None, (), f"{printable(override)!r} is not KEY=VALUE", "model.width=32")
            )
            continue
        try:
            value, _ = _parse(text, SET)
            path = _assign(data, key.strip(), value)
        except SweepError as error:
            mistakes += [Mistake(SET, None, (key, *m.path), m.message) for m in error.mistakes]
            continue
        lines = {old: line for old, line in lines.items() if old[: len(path)] != path}
        lines |= {path[:end]: lines.get(path[:end]) for end in range(1, len(path) + 1)}
    if mistakes:
        raise SweepError(mistakes)
    return YamlFile(document.file, data, lines)


def _assign(data: dict[str, Any], key: str, value: object) -> KeyPath:
    """Sets the value in place, making mappings on the way; its path."""
    path: KeyPath = ()
    while True:
        step, rest = _first_step(data, key, is_axes=path in (("axes",), ("tuned",)))
        path += (step,)
        if not rest:
            data[step] = value
            return path
        inner = data.setdefault(step, {})
        if not isinstance(inner, dict):
            raise _error(SET, None, f"{key_path_text(path)} is {_kind(inner)}, which has no key {rest!r}")
        data, key = inner, rest


def _first_step(data: Mapping[str, Any], key: str, is_axes: bool) -> tuple[str, str]:
    """The key to follow and what remains. Axis names contain dots: a key that is there goes before a split,
    and a new axis is never split.
    """
    parts = key.split(".")
    for end in range(len(parts), 0, -1):
        if (step := ".".join(parts[:end])) in data:
            return step, ".".join(parts[end:])
    return (key, "") if is_axes else (parts[0], ".".join(parts[1:]))


def _parse(text: str, file: str) -> tuple[Any, dict[KeyPath, int | None]]:
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise _syntax_error(file, text, error) from error
    except RecursionError as error:
        raise _error(file, None, f"nested deeper than {MAX_DEPTH} levels") from error
    reader = _Reader(file)
    data = None if node is None else reader.value(node, ())
    if reader.mistakes:
        raise SweepError(reader.mistakes)
    return data, reader.lines


def _syntax_error(file: str, text: str, error: yaml.YAMLError) -> SweepError:
    if isinstance(error, yaml.reader.ReaderError):
        line = text[: error.position].count("\n") + 1
        return _error(
            file, line, f"not valid YAML: the character U+{ord(text[error.position]):04X} is not allowed"
        )
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "context", None) or str(error)
    if problem.startswith("but ") and isinstance(error, yaml.MarkedYAMLError):
        problem = f"{error.context}, {problem}"
    hint = " (indent with spaces, not tabs)" if r"'\t'" in problem else ""
    return _error(file, mark.line + 1 if mark else None, f"not valid YAML: {problem}{hint}")


def _error(file: str, line: int | None, message: str) -> SweepError:
    return SweepError([Mistake(file, None if file == SET else line, (), message)])


class _Reader:
    """Turns YAML nodes into data, collecting mistakes on the way. Aliases count each time they are used."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[KeyPath, int | None] = {}
        self.mistakes: list[Mistake] = []
        self._n_nodes = 0

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._n_nodes += 1
        if self._n_nodes > MAX_NODES:
            raise _error(
                self.file, _line(node), f"more than {MAX_NODES:,} values: this is not written by hand"
            )
        if len(path) > MAX_DEPTH:
            raise _error(self.file, _line(node), f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self._item(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _item(self, node: yaml.Node, path: KeyPath) -> Any:
        self.lines[path] = _line(node)
        return self.value(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            key, line = self._key(key_node, path), _line(key_node)
            if key is None:
                continue
            if key in data:
                self._mistake(line, (*path, key), f"given twice, first on line {first_line[key]}")
                continue
            first_line[key] = line
            self.lines[(*path, key)] = line
            data[key] = self.value(value_node, (*path, key))
        return data

    def _key(self, node: yaml.Node, path: KeyPath) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "str":
            return str(node.value)
        shown = f"{node.value} " if isinstance(node, yaml.ScalarNode) else ""
        self._mistake(_line(node), path, f"the key {shown}is not text; put it in quotes")
        return None

    def _scalar(self, node: yaml.Node, path: KeyPath) -> str | int | float | bool | None:
        tag = node.tag.removeprefix(_TAG)
        if not isinstance(node, yaml.ScalarNode):
            self._mistake(_line(node), path, f"the tag {printable(tag)} is not allowed")
            return None
        try:
            return _scalar(tag, node.value)
        except ValueError as error:
            self._mistake(_line(node), path, str(error))
            return None

    def _mistake(self, line: int, path: KeyPath, message: str) -> None:
        self.mistakes.append(Mistake(self.file, None if self.file == SET else line, path, message))


def _scalar(tag: str, text: str) -> str | int | float | bool | None:
    if tag == "str":
        return text
    if tag not in _PLAIN or not re.fullmatch(_PLAIN[tag], text):
        raise ValueError(f"{text[:40]!r} with the tag {printable(tag)} is not allowed")
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    return _whole(text) if tag == "int" else _float(text)


def _whole(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    if len(text) > 70 or abs(value := int(text, base)) > MAX_INT:
        shown = text if len(text) <= 20 else f"{text[:20]}..."
        raise ValueError(f"the whole number {shown} does not fit in 64 bits")
    return -abs(value) if text.startswith("-") else value


def _float(text: str) -> float:
    if "nan" in text.lower():
        raise ValueError("not a number (nan) is no value")
    value = float(text.lower().replace(".inf", "inf"))
    if math.isinf(value) and "inf" not in text.lower():
        raise ValueError(f"the number {text[:20]} is too large; infinity is written inf")
    return value


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _kind(value: object) -> str:
    """What a YAML author would call it."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "empty" if value is None else "a single value"
