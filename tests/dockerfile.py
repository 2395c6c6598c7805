"""Reads the Dockerfile, and does what its instructions say without Docker."""

from __future__ import annotations

import fnmatch
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "Dockerfile"


@dataclass(frozen=True)
class Instruction:
    """``RUN pip ...`` is word RUN, text ``pip ...``; lines that go on are joined."""

    word: str
    text: str


@dataclass
class Stage:
    """What stands below one FROM; ``args`` are its ARGs with their defaults."""

    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def texts(self, word: str) -> list[str]:
        """Of all instructions with this word, in order."""
        return [i.text for i in self.instructions if i.word == word]

    @property
    def args(self) -> dict[str, str]:
        """ARG -> its default."""
        return {name: value.strip('"') for name, _, value in (text.partition("=") for text in self.texts("ARG"))}

    @property
    def env(self) -> dict[str, str]:
        """All that ENV sets."""
        pairs = (pair.partition("=") for text in self.texts("ENV") for pair in shlex.split(text))
        return {name: value for name, _, value in pairs}


def read_stages() -> list[Stage]:
    """The stages, the shipped one last; the ARGs above the first FROM are put into the FROMs."""
    stages: list[Stage] = []
    early: dict[str, str] = {}
    for instruction in _instructions(DOCKERFILE.read_text("utf-8")):
        if instruction.word == "FROM":
            base = re.sub(r"\$\{(\w+)\}", lambda found: early[found[1]], instruction.text)
            stages.append(Stage(base.split()[0]))
        elif not stages:
            name, _, value = instruction.text.partition("=")
            early[name] = value
        else:
            stages[-1].instructions.append(instruction)
    return stages


def _instructions(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines()]


def copied_from_context(stage: Stage) -> list[tuple[list[str], str]]:
    """Sources and target of each COPY that takes files of this folder."""
    copies = [text.split() for text in stage.texts("COPY") if not text.startswith("--from")]
    return [(words[:-1], words[-1]) for words in copies]


def in_context(path: str) -> bool:
    """Whether ``.dockerignore`` lets a file into the build: the last pattern that fits it or a folder above decides."""
    parts = path.split("/")
    above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    kept = True
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#") and any(_fits(folder, pattern.lstrip("!")) for folder in above):
            kept = pattern.startswith("!")
    return kept


def _fits(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return _fits(path, pattern[3:]) or any(_fits(path[m.end() :], pattern[3:]) for m in re.finditer("/", path))
    return path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern)
