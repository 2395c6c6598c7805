"""Finds the folder, folds and checkpoints of a trained nnU-Net v2 model.

``Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres`` contains ``plans.json``, ``dataset.json`` and
``fold_0`` ... ``fold_4`` (or ``fold_all``). Exported zip files contain such folders, of one or several configurations.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from decathlete.core.choices import Weights
from decathlete.core.digits import parse_digits
from decathlete.core.scratch import scratch_folder
from decathlete.errors import DecathleteError, ModelError, OptionError
from decathlete.transfer.zips import unpack_zip

PLANS, DATASET = "plans.json", "dataset.json"
CHECKPOINTS: dict[Weights, str] = {"final": "checkpoint_final.pth", "best": "checkpoint_best.pth"}
_FILE_NAMES = re.compile(
    r"(plans|dataset|dataset_fingerprint|postprocessing)\.json|postprocessing\.pkl|checkpoint_(final|best)\.pth"
)
_SEARCH_DEPTH = 3
_MAX_RATIO = 20
_MIN_LIMIT_BYTES = 2**26
"""Limit of unpacked data: 20 times the size of the archive, at least 64 MiB. Weights hardly compress, so that a larger
ratio is an attack."""


@dataclass(frozen=True, kw_only=True)
class FoldCheckpoint:
    """Checkpoint of one fold.

    Attributes:
        fold: ``"0"``, ``"1"``, ... or ``"all"``.
        path: file of the checkpoint.
    """

    fold: str
    path: Path


@contextmanager
def open_source(source: Path) -> Iterator[Path]:
    """Provide the folder ``source``, or a temporary folder with the unpacked files of the zip file ``source``.

    Raises:
        ModelError: ``source`` does not exist.
        ArchiveError: the zip file is damaged or not safe to unpack.
    """
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise ModelError(
            "does not exist",
            where=source,
            remedy="use the folder or the exported zip file of a model",
            code="E-MODEL-NOT-FOUND",
        )
    with scratch_folder() as temporary:
        folder = temporary / "model"
        limit = max(_MIN_LIMIT_BYTES, _MAX_RATIO * source.stat().st_size)
        unpack_zip(source, folder, limit_bytes=limit, wanted=_is_model_file)
        try:
            yield folder
        except DecathleteError as problem:  # name the user's file, not the temporary copy
            if isinstance(problem.where, Path) and problem.where.is_relative_to(folder):
                problem.where = source / problem.where.relative_to(folder)
            raise


def _is_model_file(path: PurePosixPath) -> bool:
    return _FILE_NAMES.fullmatch(path.name) is not None


def find_model(folder: Path, configuration: str | None, *, where: Path) -> tuple[Path, str]:
    """Return the folder and the configuration of the only model in ``folder``.

    Args:
        folder: folder to search.
        configuration: configuration of the model; ``None``: any.
        where: path for messages.

    Raises:
        ModelError: there is no such model, or there are several.
    """
    models = list(_iterate_models(folder, _SEARCH_DEPTH))
    matches = [path for path in models if configuration is None or _configuration(path) in (configuration, "")]
    if len(matches) == 1:
        return matches[0], _configuration(matches[0])
    no_model_remedy = "use a folder TRAINER__PLANS__CONFIGURATION"
    condition = f" of configuration {configuration}" if configuration else ""
    if not matches:
        others = ", ".join(sorted({_configuration(path) for path in models}))
        raise ModelError(
            f"contains no model{condition} of nnU-Net v2: no folder with {PLANS}, {DATASET} and fold_*",
            where=where,
            remedy=f"choose --configuration among {others}" if others else no_model_remedy,
            code="E-MODEL-NOT-FOUND",
        )
    names = ", ".join(sorted(str(path.relative_to(folder)) for path in matches))
    raise ModelError(
        f"contains {len(matches)} models{condition}: {names}",
        where=where,
        remedy="choose one with --configuration, or use its own folder",
    )


def _iterate_models(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / PLANS).is_file() and (folder / DATASET).is_file() and any(folder.glob("fold_*")):
        yield folder
    elif depth:
        for subfolder in _readable_subfolders(folder):
            yield from _iterate_models(subfolder, depth - 1)


def _readable_subfolders(folder: Path) -> list[Path]:
    """Return the subfolders that may be read. The search skips all others."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and os.access(path, os.R_OK | os.X_OK))
    except PermissionError:
        return []


def _configuration(folder: Path) -> str:
    """Return ``3d_fullres`` for ``nnUNetTrainer__nnUNetPlans__3d_fullres``, an empty string for other folder names."""
    return folder.name.rsplit("__", 1)[-1] if folder.name.count("__") >= 2 else ""


def find_checkpoints(
    model: Path, *, folds: Sequence[str] = (), weights: Weights | None = None, where: Path
) -> tuple[Weights, list[FoldCheckpoint]]:
    """Return the kind of the checkpoints and the checkpoints of the folds.

    Args:
        model: folder of the model.
        folds: folds to use, each once; ``all`` is ``fold_all``. Empty: every numbered fold, or ``fold_all`` if there is
            no other. nnU-Net uses every numbered fold, too.
        weights: kind of the checkpoints; ``None``: final if they exist, else best.
        where: path for messages.

    Raises:
        OptionError: a fold is named twice.
        ModelError: one of the folds, or every fold, has no such checkpoint.
    """
    if repeated := next((fold for number, fold in enumerate(folds) if fold in folds[:number]), None):
        raise OptionError(
            f"--folds: fold {repeated} is named twice, so that it would count twice",
            remedy="name each fold once",
            code="E-OPTION-FOLD",
        )
    kinds: list[Weights] = [weights] if weights else ["final", "best"]
    paths = {kind: {p.parent.name[5:]: p for p in model.glob(f"fold_*/{CHECKPOINTS[kind]}")} for kind in kinds}
    for kind in kinds:
        by_fold = paths[kind]
        numbered = sorted(
            (fold for fold in by_fold if parse_digits(fold) is not None), key=lambda fold: (len(fold), fold)
        )
        names = list(folds) or numbered or sorted(by_fold.keys() & {"all"})
        if names and all(fold in by_fold for fold in names):
            return kind, [FoldCheckpoint(fold=fold, path=by_fold[fold]) for fold in names]
    files = " or ".join(CHECKPOINTS[kind] for kind in kinds)
    available = sorted({fold for by_fold in paths.values() for fold in by_fold})
    raise ModelError(
        f"has no {files} in {_describe_folds(folds)}",
        where=where,
        remedy=f"choose --folds among {', '.join(available)}, or leave it out for every fold"
        if available
        else "export the model again, with its checkpoints",
    )


def _describe_folds(folds: Sequence[str]) -> str:
    if len(folds) > 1:
        return f"every one of the folds {', '.join(folds)}"
    return f"fold_{folds[0]}" if folds else "any fold"
