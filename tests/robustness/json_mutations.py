"""Mutations of JSON documents: of their structure, of single values, and of the text around them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

Path = tuple[str | int, ...]

RAW = "RAW\x01"
"""Strings that start with this stand for raw JSON text, which ``json.dumps`` cannot write."""

VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**31,
    2**70,
    1e308,
    0.5,
    "",
    "x" * 10_000,
    "../../mutant",
    "/etc/passwd",
    "\x1b[31mred\x07",
    "a\u0000b",
    "nan",
    "os:system",
    [],
    {},
    [[]],
    {"": None},
    [0] * 1000,
    RAW + "NaN",
    RAW + "Infinity",
    RAW + "1e999",
    RAW + "9" * 5000,
    RAW + '"\\ud800"',
    RAW + "[" * 5000 + "]" * 5000,
)


def paths(document: Any, start: Path = ()) -> Iterator[Path]:
    """Yield the paths of all values of a document."""
    yield start
    if isinstance(document, dict):
        for key, value in document.items():
            yield from paths(value, (*start, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from paths(value, (*start, index))


def change_value(document: Any, random: Random) -> Any:
    """Replace, remove, rename, repeat or swap one value."""
    document = copy.deepcopy(document)
    path = random.choice(list(paths(document))[1:])
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    key: Any = path[-1]
    choice = random.randrange(6)
    if choice <= 2:
        parent[key] = copy.deepcopy(random.choice(VALUES))
    elif choice == 3:
        del parent[key]
    elif choice == 4 and isinstance(parent, dict):
        parent[random.choice((str(key) + "x", str(key).upper(), ""))] = parent.pop(key)
    elif isinstance(parent, list):
        parent.append(parent[key])
    else:
        other = random.choice(list(parent))
        parent[key], parent[other] = parent[other], parent[key]
    return document


def dump(document: Any) -> bytes:
    """Write a document as JSON; raw texts as they are."""
    text = json.dumps(document, indent=1)
    for value in VALUES:
        if isinstance(value, str) and value.startswith(RAW):
            text = text.replace(json.dumps(value), value.removeprefix(RAW))
    return text.encode()


def mutate_json(data: bytes, random: Random) -> bytes:
    """Change one to three values of a JSON text."""
    document = json.loads(data)
    for _ in range(random.randint(1, 3)):
        if isinstance(document, dict) and document:
            document = change_value(document, random)
    return dump(document)


def mutate_json_text(data: bytes, random: Random) -> bytes:
    """Change how a JSON text is written: encoding, byte-order mark, end, nesting, comments."""
    text = data.decode()
    changes: tuple[Callable[[], bytes], ...] = (
        lambda: b"\xef\xbb\xbf" + data,
        lambda: text.encode("utf-16"),
        lambda: text.encode("utf-32"),
        lambda: text.encode("latin-1", "replace").replace(b"a", b"\xe9"),
        lambda: data[: random.randrange(len(data))],
        lambda: b"",
        lambda: data + data,
        lambda: b"[" * 100_000,
        lambda: b'{"a":' * 100_000,
        lambda: data.replace(b"/", b"\\"),
        lambda: data.replace(b'"', b"'"),
        lambda: b"// comment\n" + data,
        lambda: data.replace(b",", b",,", 1),
        lambda: data.replace(b"1", b"1" * 5000, 1),
        lambda: b"\0" * 4096,
        lambda: b"null",
    )
    return random.choice(changes)()
