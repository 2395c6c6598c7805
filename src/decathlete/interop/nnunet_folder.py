"""Where a trained nnU-Net v2 model lies: its folder among others, its folds, its checkpoints.

``Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres`` holds ``plans.json``, ``dataset.json`` and
``fold_0`` ... ``fold_4`` (or ``fold_all``). Exported zip files hold such folders, of one or several configurations.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from decathlete.core.choices import Weights
from decathlete.errors import DecathleteError, ModelError
from decathlete.transfer.zips import unpack_zip

PLANS, DATASET = "plans.json", "dataset.json"
CHECKPOINTS: dict[Weights, str] = {"final": "checkpoint_final.pth", "best": "checkpoint_best.pth"}
_WANTED = re.compile(
    r"(plans|dataset|dataset_fingerprint|postprocessing)\.json|postprocessing\.pkl|checkpoint_(final|best)\.pth"
)
_DEPTH = 3
_LARGEST_RATIO = 20
_ALWAYS_ALLOWED = 2**26
"""Weights hardly compress. An archive that says it unpacks to 20 times its size, and to more than 64 MiB, is a bomb."""


@dataclass(frozen=True, kw_only=True)
class FoldCheckpoint:
    """One network on disk.

    Attributes:
        fold: ``"0"``, or ``"all"``.
    """

    fold: str
    path: Path


@contextmanager
def opened(source: Path) -> Iterator[Path]:
    """The folder ``source``, or a temporary one with what is needed of the zip file ``source``.

    Raises:
        ModelError: neither a folder nor a zip file.
        ArchiveError: damaged, or not safe to unpack.
    """
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise ModelError(
            "does not exist",
            where=source,
            remedy="give the folder or the exported zip file of a model",
            code="E-MODEL-NOT-FOUND",
        )
    with tempfile.TemporaryDirectory(prefix="decathlete-") as temporary:
        folder = Path(temporary) / "model"
        limit = max(_ALWAYS_ALLOWED, _LARGEST_RATIO * source.stat().st_size)
        unpack_zip(source, folder, limit_bytes=limit, wanted=_is_wanted)
        try:
            yield folder
        except DecathleteError as problem:  # names the file that the user has, not the copy that is gone
            if isinstance(problem.where, Path) and problem.where.is_relative_to(folder):
                problem.where = source / problem.where.relative_to(folder)
            raise


def _is_wanted(path: PurePosixPath) -> bool:
    return _WANTED.fullmatch(path.name) is not None


def find_model(folder: Path, configuration: str | None, *, where: Path) -> tuple[Path, str]:
    """The folder of the one model in ``folder`` (of that configuration, if one is asked for), and its configuration.

    Args:
        where: what the user named, for messages.

    Raises:
        ModelError: there is none, or there are several.
    """
    there = list(_models(folder, _DEPTH))
    found = [path for path in there if configuration is None or _configuration(path) in (configuration, "")]
    if len(found) == 1:
        return found[0], _configuration(found[0])
    missing = "give a folder TRAINER__PLANS__CONFIGURATION"
    asked = f" of configuration {configuration}" if configuration else ""
    if not found:
        others = ", ".join(sorted({_configuration(path) for path in there}))
        raise ModelError(
            f"holds no model{asked} of nnU-Net v2: no folder with {PLANS}, {DATASET} and fold_*",
            where=where,
            remedy=f"choose --configuration among {others}" if others else missing,
            code="E-MODEL-NOT-FOUND",
        )
    names = ", ".join(sorted(str(path.relative_to(folder)) for path in found))
    raise ModelError(
        f"holds {len(found)} models{asked}: {names}",
        where=where,
        remedy="choose one by --configuration, or give its own folder",
    )


def _models(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / PLANS).is_file() and (folder / DATASET).is_file() and any(folder.glob("fold_*")):
        yield folder
    elif depth:
        for inside in _folders(folder):
            yield from _models(inside, depth - 1)


def _folders(folder: Path) -> list[Path]:
    """Inside it, as far as they may be read: a search passes others over."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and os.access(path, os.R_OK | os.X_OK))
    except PermissionError:
        return []


def _configuration(folder: Path) -> str:
    """``3d_fullres`` of ``nnUNetTrainer__nnUNetPlans__3d_fullres``; nothing of a folder that was renamed."""
    return folder.name.rsplit("__", 1)[-1] if folder.name.count("__") >= 2 else ""


def find_checkpoints(
    model: Path, *, folds: Sequence[str] = (), weights: Weights | None = None, where: Path
) -> tuple[Weights, list[FoldCheckpoint]]:
    """The checkpoints of the folds: which kind, and where.

    Args:
        folds: those that are wanted; none: all, ``fold_all`` only if there is no other (as nnU-Net has it).
        weights: which checkpoints; ``None``: the final ones, the best if there is no final one.

    Raises:
        ModelError: a fold that is asked for, or every one, has no such checkpoint.
    """
    kinds: list[Weights] = [weights] if weights else ["final", "best"]
    there = {kind: {p.parent.name[5:]: p for p in model.glob(f"fold_*/{CHECKPOINTS[kind]}")} for kind in kinds}
    for kind in kinds:
        found = there[kind]
        chosen = list(folds) or sorted(found.keys() - {"all"}, key=lambda fold: (len(fold), fold)) or sorted(found)
        if chosen and all(fold in found for fold in chosen):
            return kind, [FoldCheckpoint(fold=fold, path=found[fold]) for fold in chosen]
    files = " or ".join(CHECKPOINTS[kind] for kind in kinds)
    have = sorted({fold for found in there.values() for fold in found})
    raise ModelError(
        f"has no {files} " + (f"in every one of the folds {', '.join(folds)}" if folds else "in any fold"),
        where=where,
        remedy=f"choose --folds among {', '.join(have)}" if have else "export the model again, with its checkpoints",
    )
