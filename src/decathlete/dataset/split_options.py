"""The user's options for the folds. The command line's help needs them, so that nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

N_FOLDS = 5
SEED = 12345


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """The user's options for the split.

    Attributes:
        n_folds: number of folds of a random split, at least 2.
        seed: seed of the random split.
        file: a list of folds that is used instead.
    """

    n_folds: int = N_FOLDS
    seed: int = SEED
    file: Path | None = None

    @property
    def is_random_split(self) -> bool:
        """Whether these options request a random split, so that folds beside the manifest are not used."""
        return self.file is None and (self.n_folds, self.seed) != (N_FOLDS, SEED)

    def problems(self) -> Iterator[str]:
        """Return the problems of these options."""
        if self.n_folds < 2:
            yield f"n_folds (--n-folds) must be at least 2, it is {self.n_folds}"
        if self.file is not None and (self.n_folds, self.seed) != (N_FOLDS, SEED):
            yield "--splits lists the folds, so that --n-folds and --split-seed have no effect; leave them out"
