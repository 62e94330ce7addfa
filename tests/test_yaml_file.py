"""YAML text to plain data with lines; every message whole."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import Mistake, SweepError
from orchestrator.yaml_file import YamlFile, apply_overrides, dump_yaml, parse_yaml, read_yaml

TAB = "found character '\\t' that cannot start any token"


def _message(call: Callable[[], object]) -> str:
    with pytest.raises(SweepError) as caught:
        call()
    return str(caught.value)


def _data(text: str) -> Any:
    return parse_yaml(text, "s.yaml").data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("1e-3", 0.001), ("1e3", 1000.0), (".5", 0.5), ("1.", 1.0), ("-2.5E+1", -25.0), ("!!float 3", 3.0)],
        *[
            ("inf", math.inf),
            ("-inf", -math.inf),
            (".inf", math.inf),
            ("-.INF", -math.inf),
            ("+inf", math.inf),
        ],
        *[("12", 12), ("-5", -5), ("+5", 5), ("010", 10), ("0x1F", 31), ("0o17", 15), ("!!int '7'", 7)],
        *[
            (word, word)
            for word in ("yes", "no", "on", "off", "Yes", "y", "nan", "1_000", "1:30", "2024-01-01", "=")
        ],
        *[
            ("true", True),
            ("True", True),
            ("false", False),
            ("null", None),
            ("~", None),
            ("", None),
            ("'1'", "1"),
        ],
        *[
            ("!!str 1", "1"),
            ("<<", "<<"),
            ("0x", "0x"),
            ("infinity", "infinity"),
            ("9223372036854775807", 2**63 - 1),
        ],
    ],
)
def test_plain_scalars_have_the_types_of_yaml_1_2(text: str, value: object) -> None:
    """Numbers are numbers, words are words, whatever YAML 1.1 made of them."""
    found = _data(f"a: {text}")["a"]
    assert (type(value), value) == (type(found), found)


def test_every_key_and_item_has_its_line() -> None:
    """Lines are known for nested keys and for list items, through aliases too."""
    document = parse_yaml("a: 1\nb:\n  - x\n  - c: 2\nd: &e {f: 1}\ng: *e\n", "s.yaml")
    lines = {("a",): 1, ("b",): 2, ("b", 0): 3, ("b", 1): 4, ("b", 1, "c"): 4, ("d",): 5, ("d", "f"): 5}
    assert {**lines, ("g",): 6, ("g", "f"): 5} == document.lines
    assert {"a": 1, "b": ["x", {"c": 2}], "d": {"f": 1}, "g": {"f": 1}} == document.data


def test_a_mistake_stands_at_the_nearest_thing_in_the_file() -> None:
    """What is not there is reported at what surrounds it; at the top there is no line."""
    document = parse_yaml("a:\n  b: [1]\n", "s.yaml")
    assert "s.yaml:2: a.b[0].c: wrong" == str(document.mistake(("a", "b", 0, "c"), "wrong"))
    assert "s.yaml: z: wrong" == str(document.mistake(("z",), "wrong"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "s.yaml: the file is empty"),
        ("# nothing\n---\n", "s.yaml: the file is empty"),
        ("- 1", "s.yaml: the top level is a list, not a mapping of keys"),
        ("3", "s.yaml: the top level is a single value, not a mapping of keys"),
        ("a: 1\nb: 2\na: 3", "s.yaml:3: a: given twice, first on line 1"),
        ("a:\n  b: {c: 1,\n   c: 2}", "s.yaml:3: a.b.c: given twice, first on line 2"),
        ("a:\n  - b\n  - .nan", "s.yaml:3: a[1]: not a number (nan) is no value"),
        ("a: 1e999", "s.yaml:1: a: the number 1e999 is too large; infinity is written inf"),
        ("a: " + "9" * 5000, f"s.yaml:1: a: the whole number {'9' * 20}... does not fit in 64 bits"),
        (
            "a: 9223372036854775808",
            "s.yaml:1: a: the whole number 9223372036854775808 does not fit in 64 bits",
        ),
        ("1: x", "s.yaml:1: the key 1 is not text; put it in quotes"),
        ("a:\n  true: x", "s.yaml:2: a: the key true is not text; put it in quotes"),
        ("? [a]\n: x", "s.yaml:1: the key is not text; put it in quotes"),
        (
            "a: !!python/object:os.system x",
            "s.yaml:1: a: 'x' with the tag python/object:os.system is not allowed",
        ),
        (
            "a: !!python/object/apply:os.system [x]",
            "s.yaml:1: a: the tag python/object/apply:os.system is not allowed",
        ),
        ("a: !!int abc", "s.yaml:1: a: 'abc' with the tag int is not allowed"),
        ("a:\n\t- 1", f"s.yaml:2: not valid YAML: {TAB} (indent with spaces, not tabs)"),
        ("a: b: c", "s.yaml:1: not valid YAML: mapping values are not allowed here"),
        ("a: [1,\nb: 2", "s.yaml:2: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: *b", "s.yaml:1: not valid YAML: found undefined alias 'b'"),
        ("a: 1\nb: \x07", "s.yaml:2: not valid YAML: the character U+0007 is not allowed"),
        (
            "a: 1\n---\nb: 2",
            "s.yaml:2: not valid YAML: expected a single document in the stream, but found another document",
        ),
        ("a: &b [*b]", "s.yaml:1: nested deeper than 50 levels"),
        ("[" * 5000, "s.yaml: nested deeper than 50 levels"),
        ("a: " + "[" * 60 + "]" * 60, "s.yaml:1: nested deeper than 50 levels"),
        ("a: [" + "1," * 100_000 + "]", "s.yaml:1: more than 100,000 values: this is not written by hand"),
    ],
)
def test_bad_text_is_named_with_its_line(text: str, message: str) -> None:
    """Every mistake in the text has a file, a line and words of its own."""
    assert message == _message(lambda: parse_yaml(text, "s.yaml"))


def test_all_mistakes_of_a_text_are_reported_at_once() -> None:
    """Duplicate keys, bad values and bad keys come together, in the order of lines."""
    expected = [
        "s.yaml:2: a: given twice, first on line 1",
        "s.yaml:3: b: not a number (nan) is no value",
        "s.yaml:4: the key null is not text; put it in quotes",
    ]
    assert "\n".join(expected) == _message(lambda: parse_yaml("a: 1\na: 2\nb: .nan\nnull: 3", "s.yaml"))


def test_an_alias_bomb_is_refused_soon() -> None:
    """Nine levels of nine aliases would be 400 million values; it is refused at once."""
    levels = "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
    )
    started = time.monotonic()
    message = _message(lambda: parse_yaml(f"a: &a [{'x,' * 9}]\n{levels}", "s.yaml"))
    assert "s.yaml:1: more than 100,000 values: this is not written by hand" == message
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: \xff\n", "{}:2: not UTF-8 text; save the file as UTF-8"),
        ("a: é".encode("utf-16"), "{}:1: not UTF-8 text; save the file as UTF-8"),
        (b"a: " + b"x" * 1_000_000, "{}: larger than 1,000,000 bytes: this is not written by hand"),
        (b"", "{}: the file is empty"),
    ],
)
def test_bad_bytes_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    """What is not text, or not a sweep file by its size, is said so."""
    path = tmp_path / "s.yaml"
    path.write_bytes(content)
    assert message.format(path) == _message(lambda: read_yaml(path))


def test_a_file_that_is_not_there_or_no_file_is_named(tmp_path: Path) -> None:
    """A missing file, a directory and an impossible name are told apart."""
    missing, nul = tmp_path / "a b 'ü'.yaml", "a\0b.yaml"
    assert f"{missing}: no such file" == _message(lambda: read_yaml(missing))
    assert f"{tmp_path}: is a directory, not a file" == _message(lambda: read_yaml(tmp_path))
    assert "'a\\x00b.yaml': cannot be read: embedded null byte" == _message(lambda: read_yaml(nul))
    too_long = tmp_path / ("x" * 300)
    assert f"{too_long}: cannot be read: File name too long" == _message(lambda: read_yaml(too_long))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    """A file without read permission is said so."""
    path = tmp_path / "s.yaml"
    path.write_text("a: 1")
    path.chmod(0)
    assert f"{path}: cannot be read: Permission denied" == _message(lambda: read_yaml(path))


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfa: 1\nb: [2]\n", b"a: 1\r\nb: [2]\r\n", b"a: 1\rb: [2]\r"])
def test_byte_order_marks_and_line_ends_do_not_matter(tmp_path: Path, content: bytes) -> None:
    """A file saved on Windows reads as any other, with the same lines."""
    (tmp_path / "s.yaml").write_bytes(content)
    document = read_yaml(tmp_path / "s.yaml")
    assert ({"a": 1, "b": [2]}, {("a",): 1, ("b",): 2, ("b", 0): 2}) == (document.data, document.lines)


DOCUMENT = parse_yaml("model: {width: 1}\naxes:\n  train.lr: [1]\n  k: {log2: [1, 2], points: 3}\n", "s.yaml")


def test_overrides_set_values_of_any_type_at_any_depth() -> None:
    """Values are YAML; mappings on the way are made; later overrides win; the original stays as it is."""
    before = {key: dict(value) for key, value in DOCUMENT.data.items()}
    overrides = ["model.width=32", "model.width=64", "train.lr=1e-3", "where=", "name=a=b", "seeds.init=3"]
    new = {"model": {"width": 64}, "axes": before["axes"], "train": {"lr": 0.001}}
    assert {**new, "where": None, "name": "a=b", "seeds": {"init": 3}} == apply_overrides(
        DOCUMENT, overrides
    ).data
    assert before == DOCUMENT.data


def test_overrides_know_that_axis_names_have_dots() -> None:
    """Below `axes` a dotted name is one key, unless a shorter one is there already."""
    overrides = ["axes.train.lr=[2]", "axes.train.steps=[3]", "axes.k.points=5", "axes.seed=2"]
    axes = {"train.lr": [2], "k": {"log2": [1, 2], "points": 5}, "train.steps": [3], "seed": 2}
    assert axes == apply_overrides(DOCUMENT, overrides).data["axes"]


def test_what_an_override_set_is_blamed_on_the_command_line() -> None:
    """The file of a replaced value is `--set`, also for what is below it; its neighbours keep their lines."""
    document = apply_overrides(DOCUMENT, ["axes.k=[2, 3]", "train.lr=x"])
    assert Mistake("--set", None, ("axes", "k", 1), "bad") == document.mistake(("axes", "k", 1), "bad")
    assert Mistake("--set", None, ("train", "steps"), "bad") == document.mistake(("train", "steps"), "bad")
    assert Mistake("s.yaml", 3, ("axes", "train.lr"), "bad") == document.mistake(("axes", "train.lr"), "bad")


def test_all_bad_overrides_are_reported_at_once() -> None:
    """Each bad override is named, with the key it was for."""
    bad = ["model.width", "=3", "a..b=1", "model.width.x=2", "k=[", "k={a: 1, a: 2}", "k=.nan", "\x1b[2J=1\n"]
    expected = [
        "--set: 'model.width' is not KEY=VALUE\n    allowed: model.width=32",
        "--set: '=3' is not KEY=VALUE\n    allowed: model.width=32",
        "--set: 'a..b=1' is not KEY=VALUE\n    allowed: model.width=32",
        "--set: model.width.x: model.width is a single value, which has no key 'x'",
        "--set: k: not valid YAML: expected the node content, but found '<stream end>'",
        "--set: k.a: given twice, first on line 1",
        "--set: k: not a number (nan) is no value",
    ]
    assert "\n".join(expected) == _message(lambda: apply_overrides(DOCUMENT, bad))


def test_messages_never_carry_terminal_codes() -> None:
    """A hostile key is shown in quoted form."""
    document = YamlFile("s\n.yaml", {}, {})
    assert "'s\\n.yaml': a.'\\x1b[2J'.'': wrong" == str(document.mistake(("a", "\x1b[2J", ""), "wrong"))


SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False) | st.text()
)
WORDS = st.sampled_from(
    ["yes", "inf", "1e-3", "010", "0x1", "~", "", " a ", "a: b", "# c", "-", "\ufeff", "\r\n", "é😀", "true"]
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=4),
        st.recursive(SCALARS | WORDS, lambda x: st.lists(x, max_size=3), max_leaves=4),
        min_size=1,
    )
)
def test_dumped_text_reads_as_the_same_data(data: dict[str, Any]) -> None:
    """Writing and reading give the data back, types and all."""
    assert repr(data) == repr(parse_yaml(dump_yaml(data), "s.yaml").data)
