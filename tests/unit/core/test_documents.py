"""Text, JSON and YAML files with any content end in a value or in one error that names the file, soon."""

from __future__ import annotations

import ast
import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import decathlete
from decathlete.core import documents
from decathlete.core.documents import is_unicode, parse_json, read_json, read_yaml
from decathlete.core.files import read_text
from decathlete.core.schema import Schema
from decathlete.errors import DecathleteError, OptionError, OutputError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


class Content(Schema):
    """A model that accepts any JSON."""

    value: Any


def load_content(path: Path, **options: Any) -> Any:
    path.write_bytes(b'{"value": ' + path.read_bytes() + b"}")
    return Content.load(path, **options).value


READERS: dict[str, Callable[..., Any]] = {"json": read_json, "schema": load_content, "yaml": read_yaml}

HOSTILE_JSON = {
    "5000 digits": ("9" * 5000, "more than 4300 digits"),
    "5000 digits in an object": ('{"a": ' + "9" * 5000 + "}", "more than 4300 digits"),
    "nested lists": ("[" * 100_000, "nested deeper than 200"),
    "nested objects": ('{"a":' * 100_000, "nested deeper than 200"),
    "nested and closed": ("[" * 1000 + "]" * 1000, "nested deeper than 200"),
    "first half of a character": (r'["\ud800"]', "half of a character"),
    "second half of a character": (r'["\udc00"]', "half of a character"),
    "halves in the wrong order": (r'["\udc00\ud800"]', "half of a character"),
    "back slashes of Windows": (r'{"image": ".\imagesTr\a.nii.gz"}', "back slash"),
    "nothing": ("", "not valid JSON"),
    "Python": ("{'a': 1}", "not valid JSON"),
    "trailing comma": ("[1,]", "not valid JSON"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("reader", ["json", "schema"])
@pytest.mark.parametrize(("text", "said"), HOSTILE_JSON.values(), ids=HOSTILE_JSON)
def test_hostile_json_is_one_error(tmp_path: Path, reader: str, text: str, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(OptionError, match=said if text or reader == "json" else "not valid JSON") as caught:
        READERS[reader](path, error=OptionError)
    assert caught.value.where == path
    assert "line 1" in caught.value.problem


EXPLODING = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)
)
HOSTILE_YAML = {
    "aliases that explode": (EXPLODING, "more than 100000 values"),
    "an alias in itself": ("a: &a [*a]", "contains itself"),
    "a deep flow": ("[" * 100_000, "nested deeper than 50"),
    "a deep block": ("- " * 20_000 + "x", "nested deeper than 50"),
    "a deep mapping": ("".join(" " * n + "a:\n" for n in range(400)), "nested deeper than 50"),
    "5000 digits": ("a: " + "9" * 5000, "more than 300 characters"),
    "hexadecimal": ("a: 0x" + "f" * 5000, "more than 300 characters"),
    "base 60": ("a: " + ":".join(["1"] * 5000), "more than 300 characters"),
    "half of a character": (r'a: "\ud800"', "half of a character"),
    "a date that is none": ("a: 2020-13-45", "not valid YAML"),
    "an object of Python": ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
    "two documents": ("a: 1\n---\na: 2\n", "not valid YAML"),
    "a name twice": ("loss: dice\nsteps: [{a: 1, a: 2}]\n", "'a' comes twice in line 2"),
    "too long": ("a: " + "x" * 300_000, "larger than 256 KiB"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("text", "said"), HOSTILE_YAML.values(), ids=HOSTILE_YAML)
def test_hostile_yaml_is_one_error(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(OptionError, match=said) as caught:
        read_yaml(path, error=OptionError)
    assert caught.value.where == path


def test_ordinary_yaml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("base: &base {gamma: 0.5, axes: [0, 1]}\nloss: {<<: *base, <<: *base, name: a, a: name}\nb: 0x1f\n")
    assert read_yaml(path) == yaml.safe_load(path.read_text())


def test_a_name_that_comes_twice_in_an_object_is_an_error(tmp_path: Path) -> None:
    """A parser would use the last value: a class or a channel would be gone without a word."""
    path = tmp_path / "a.json"
    path.write_text('{"labels": {"background": 0, "liver": 1, "liver": 2}}')
    with pytest.raises(OptionError, match="the name 'liver' twice"):
        read_json(path, error=OptionError)
    path.write_text('[{"a": {"b": 1}, "b": [1]}, {"a": 1}]')
    assert read_json(path) == [{"a": {"b": 1}, "b": [1]}, {"a": 1}]


@given(JSON)
@settings(max_examples=200, deadline=None)
def test_json_is_read_as_python_reads_it(value: Any) -> None:
    text = json.dumps(value)
    assert parse_json(text) == json.loads(text) == value


@given(
    st.text() | JSON.map(json.dumps).flatmap(lambda text: st.builds(_damage, st.just(text), st.integers(0), st.text()))
)
@settings(max_examples=300, deadline=None)
def test_no_text_is_anything_but_json_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        parse_json(text)


def _damage(text: str, position: int, inserted: str) -> str:
    place = position % (len(text) + 1)
    return text[:place] + inserted + text[place + 1 :]


def test_numbers_that_are_not_finite_are_read() -> None:
    assert math.isnan(parse_json("NaN"))
    assert parse_json("[Infinity, -Infinity]") == [math.inf, -math.inf]


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("reader", READERS)
def test_byte_order_marks_and_wide_encodings_are_read(tmp_path: Path, reader: str, encoding: str) -> None:
    path = tmp_path / "a"
    content = '{"name": "Größe 頭部",\r\n "n": 1}'
    path.write_bytes(content.encode(encoding))
    if reader == "schema":
        path.write_bytes(('{"value": ' + content + "}").encode(encoding))
        assert Content.load(path).value == json.loads(content)
    else:
        assert READERS[reader](path) == json.loads(content)


def test_line_ends_of_windows_become_line_feeds(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\r\nc,d\r\n")
    assert read_text(tmp_path / "a.csv") == "a,b\nc,d\n"


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_latin(path: Path) -> None:
    path.write_bytes('{\n"ä": 1}'.encode("latin-1"))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("reader", ["json", "yaml", "schema"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (make_pipe, "a pipe"),
        (make_device, "a pipe, a device"),
        (make_loop, "symbolic links"),
        (make_latin, "byte 0xe4 in line 2"),
        (Path.mkdir, "a folder"),
    ],
)
def test_only_regular_text_files_are_read(tmp_path: Path, reader: str, make: Callable[[Path], None], said: str) -> None:
    path = tmp_path / "a"
    make(path)
    read = Content.load if reader == "schema" else READERS[reader]
    with pytest.raises(OptionError, match=f"cannot be read.*{said}") as caught:
        read(path, error=OptionError)
    assert caught.value.where == path


def test_a_file_above_the_limit_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(OptionError, match="larger than 1 KiB"):
        read_text(path, error=OptionError, limit_bytes=1024)


def test_text_that_is_not_unicode_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="surrogates not allowed"):
        Content(value="case_\udcfc").save(tmp_path / "a.json")
    assert not list(tmp_path.iterdir())
    assert is_unicode("Größe \x1b")
    assert not is_unicode("\udcfc")


ALLOWED = {
    "core/documents.py",  # the bounded readers themselves
    "core/files.py",  # json.dumps, and the reader of text
    "core/lazy_import.py",  # a doctest
    "planning/presets/__init__.py",  # files of the package
    "training/distributed/processors.py",  # /sys
}


def test_every_reader_of_text_json_and_yaml_is_bounded() -> None:
    """No module parses JSON or YAML, or reads text, past the bounded readers."""
    root = Path(decathlete.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                if f"{owner}.{node.attr}" in ("json.load", "json.loads", "yaml.safe_load", "yaml.load"):
                    found.add(str(path.relative_to(root)))
                if node.attr == "read_text" and owner != "files":
                    found.add(str(path.relative_to(root)))
    assert found <= ALLOWED
    assert documents.__file__.endswith("core/documents.py")


def test_errors_never_hold_raw_control_characters(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2J.json"
    path.write_text('{"b\x1b]0;x\x07": }')
    with pytest.raises(DecathleteError) as caught:
        read_json(path)
    assert "\x1b" not in str(caught.value)
    assert r"\u001b[2J" in str(caught.value)
