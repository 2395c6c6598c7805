"""Mutations that need no knowledge of a format: of bytes, and of numbers in text."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

ByteMutation = Callable[[bytes, Random], bytes]

LONG_NUMBER = "9" * 5000
NUMBERS = ("0", "-1", "-0.0", "nan", "inf", "-inf", "1e400", "1e38", "1e-38", "0.0001", "352", "4294967296", "32768")
TEXTS = ("", " ", "A" * 2000, "\u00e9\u4e2d", "\x1b[31mred", "/etc/passwd", "../mutant", "%s%n", "None", LONG_NUMBER)
_NUMBER = re.compile(rb"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")


def flip_bits(data: bytes, random: Random) -> bytes:
    """Flip one to eight bits anywhere."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 8)):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def set_bytes(data: bytes, random: Random) -> bytes:
    """Overwrite one to sixteen bytes in a row with one extreme or random value."""
    start = random.randrange(len(data))
    length = random.choice((1, 2, 4, 8, 16))
    value = random.choice((0x00, 0xFF, 0x7F, 0x80, 0x20, random.randrange(256)))
    return data[:start] + bytes([value]) * min(length, len(data) - start) + data[start + length :]


def truncate(data: bytes, random: Random) -> bytes:
    """Cut the end off: a few bytes, or any part."""
    return data[: random.choice((0, 1, len(data) // 2, len(data) - 1, random.randrange(len(data))))]


def insert(data: bytes, random: Random) -> bytes:
    """Insert random bytes, or a long run of one byte."""
    start = random.randrange(len(data) + 1)
    piece = random.choice((random.randbytes(random.randint(1, 64)), b"\0" * 512, b"A" * 4096))
    return data[:start] + piece + data[start:]


def delete(data: bytes, random: Random) -> bytes:
    """Remove one to 256 bytes from the middle."""
    start = random.randrange(len(data))
    return data[:start] + data[start + random.randint(1, 256) :]


def repeat(data: bytes, random: Random) -> bytes:
    """Repeat a piece in place."""
    start = random.randrange(len(data))
    piece = data[start : start + random.randint(1, 256)]
    return data[:start] + piece * random.randint(2, 5) + data[start + len(piece) :]


def random_content(data: bytes, random: Random) -> bytes:
    """Replace everything after the first bytes by noise."""
    keep = random.choice((0, 4, 16, min(348, len(data))))
    return data[:keep] + random.randbytes(random.choice((0, 10, 500, len(data))))


BYTE_MUTATIONS: dict[str, ByteMutation] = {
    "flip_bits": flip_bits,
    "set_bytes": set_bytes,
    "truncate": truncate,
    "insert": insert,
    "delete": delete,
    "repeat": repeat,
    "random_content": random_content,
}


def near_start(mutation: ByteMutation, length: int) -> ByteMutation:
    """Limit a mutation to the first ``length`` bytes, where headers are."""
    return lambda data, random: mutation(data[:length], random) + data[length:]


def change_number(text: bytes, random: Random) -> bytes:
    """Replace one number in a text by an extreme one."""
    found = list(_NUMBER.finditer(text))
    if not found:
        return text + b"1"
    match = random.choice(found)
    value = random.choice((*NUMBERS, LONG_NUMBER, str(random.randrange(-(2**31), 2**63)))).encode()
    return text[: match.start()] + value + text[match.end() :]


def change_line(text: bytes, random: Random) -> bytes:
    """Change one line of a text: empty, lose, repeat, lengthen or move its value, or change a number in it."""
    lines = text.split(b"\n")
    at = random.randrange(max(len(lines) - 1, 1))
    name, separator, _ = _split_field(lines[at])
    choice = random.randrange(6)
    if choice == 0:
        del lines[at]
    elif choice == 1:
        lines.insert(at, lines[at])
    elif choice == 2:
        lines[at] = name + separator + random.choice(TEXTS).encode()
    elif choice == 3:
        other = random.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    elif choice == 4:
        lines[at] += random.choice((b" 1", b" nan", b" x", b" " * 3000, b"A" * 3000, b"(1,2", b"\0", b"\r"))
    else:
        lines[at] = name + separator + change_number(lines[at][len(name + separator) :], random)
    return b"\n".join(lines)


def _split_field(line: bytes) -> tuple[bytes, bytes, bytes]:
    for separator in (b" = ", b": ", b":", b"="):
        if separator in line:
            return line.partition(separator)
    return line, b"", b""
