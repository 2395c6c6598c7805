"""The formats that are fuzzed: how an honest input is made, how it is mutated, and what is done with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from random import Random

from robustness.byte_mutations import BYTE_MUTATIONS, ByteMutation

Files = dict[str, bytes]
"""Path below the folder of the case -> content."""

FileMutation = Callable[[Files, Random], Files]

_MODULES = (
    *("nifti", "nrrd", "meta_image", "mgh", "pictures", "dicom", "dicom_labels"),
    *("models", "stores", "schemas", "archives", "folders", "requests"),
)


@dataclass(frozen=True, kw_only=True)
class Format:
    """One kind of input.

    Attributes:
        make: makes the honest input.
        entry: the file or folder, below the folder of the case, that is given to a command.
        mutations: by name.
        actions: names of what is done with an input (``actions.ACTIONS``), the cheapest first.
        weight: share of the inputs, relative to other formats; low where an action starts a training.
    """

    name: str
    make: Callable[[], Files]
    entry: str
    mutations: Mapping[str, FileMutation]
    actions: tuple[str, ...]
    weight: float = 1.0
    honest: Files = field(init=False, repr=False, default_factory=dict)

    def inputs(self, kind: str, number: int) -> Files:
        """Make the input that ``kind`` and ``number`` stand for: always the same one; ``honest`` is not mutated."""
        if not self.honest:
            self.honest.update(self.make())
        if kind == "honest":
            return dict(self.honest)
        return self.mutations[kind](dict(self.honest), Random(f"{self.name}/{kind}/{number}"))


def on_file(name: str, mutation: ByteMutation) -> FileMutation:
    """Apply a mutation of bytes to one file."""
    return lambda files, random: files | {name: mutation(files[name], random)}


def on_any_file(mutation: ByteMutation, *, suffix: str = "") -> FileMutation:
    """Apply a mutation of bytes to a random file."""

    def mutate(files: Files, random: Random) -> Files:
        name = random.choice(sorted(n for n in files if n.endswith(suffix) and files[n]))
        return files | {name: mutation(files[name], random)}

    return mutate


def byte_mutations(name: str) -> dict[str, FileMutation]:
    """Return all mutations of bytes, of the file ``name``."""
    return {kind: on_file(name, mutation) for kind, mutation in BYTE_MUTATIONS.items()}


def load_formats() -> dict[str, Format]:
    """Return all formats by name."""
    found: dict[str, Format] = {}
    for module in _MODULES:
        for one in import_module(f"{__name__}.{module}").FORMATS:
            found[one.name] = one
    return found
