"""A trained nnU-Net v2 model becomes a bundle, with all its folds."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from torch import Tensor

from decathlete.core.choices import Norm, Weights
from decathlete.core.files import file_digest
from decathlete.errors import ModelError
from decathlete.interop.nnunet_files import (
    Plans,
    read_configuration,
    read_dataset_json,
    read_fingerprint,
    read_json,
    read_plans,
)
from decathlete.interop.nnunet_folder import PLANS, FoldCheckpoint, find_checkpoints, find_model, opened
from decathlete.interop.nnunet_network import NnUNetNetwork, NotExpressible
from decathlete.interop.nnunet_plan import plan_of
from decathlete.interop.nnunet_weights import from_nnunet
from decathlete.interop.safe_checkpoint import NUMPY_SCALARS, load_from_outside
from decathlete.models.bundle import ModelBundle, TrainedMember, check_place
from decathlete.planning.plan import Plan
from decathlete.version import __version__

_NEEDED = ("network_weights", "init_args", "trainer_name", "inference_allowed_mirroring_axes")


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A model that was taken over.

    Attributes:
        folds: of nnU-Net, in the order of the bundle's networks.
        notes: what is not taken over, a sentence each.
    """

    bundle: ModelBundle
    folds: tuple[str, ...]
    notes: tuple[str, ...]


def import_nnunet(
    source: str | Path,
    output: str | Path,
    *,
    configuration: str | None = None,
    folds: Sequence[str | int] = (),
    weights: Weights | None = None,
    overwrite: bool = False,
) -> Imported:
    """Make a bundle of a trained nnU-Net v2 model: `predict` then gives what ``nnUNetv2_predict`` gives.

    Args:
        source: the folder of a trained model (``plans.json``, ``dataset.json``, ``fold_*``), one above it, or a zip
            file that nnU-Net exported.
        output: folder of the bundle.
        configuration: ``2d`` or ``3d_fullres``, where there are several.
        folds: all unless given; their logits are averaged.
        weights: the checkpoints to take: ``final`` or ``best``; the final ones where there are any, unless given.
        overwrite: replace the model that is at ``output``.

    Raises:
        ModelError: no such model, damaged files, a checkpoint that is not safe to load, or a model that Decathlete
            cannot express; with every reason.
        ArchiveError: a zip file that is damaged or not safe to unpack.
        OutputError: something is at ``output`` that may not be replaced, or it cannot be written.
    """
    source, output = Path(source), Path(output)
    check_place(output, overwrite=overwrite)
    with opened(source) as folder:
        model, named = find_model(folder, configuration, where=source)
        kind, found = find_checkpoints(model, folds=[str(fold) for fold in folds], weights=weights, where=source)
        return _imported(model, configuration, named, kind, found, source, output, overwrite=overwrite)


def _imported(
    model: Path,
    configuration: str | None,
    named: str,
    kind: Weights,
    found: Sequence[FoldCheckpoint],
    source: Path,
    output: Path,
    *,
    overwrite: bool,
) -> Imported:
    first = _load(found[0])
    name, trainer = _configuration_name(first, configuration, named, found[0]), str(first.get("trainer_name"))
    theirs = _weights_of(first, found[0])
    plans = read_plans(model)
    plan, network = _plan(model, plans, name, first, found[0], theirs, source)
    others = (_state(_weights_of(_load(fold), fold), network, fold) for fold in found[1:])
    states = [_state(theirs, network, found[0]), *others]
    member = TrainedMember(
        plan=plan,
        networks=states,
        folds=[fold.fold for fold in found],
        mirror_axes=plan.mirrored_axes,
        weights=kind,
        provenance=_provenance(model, found, trainer, name, plans.plans_name),
    )
    notes = (*_trainer_notes(trainer), *_postprocessing_notes(model), *_fold_notes(model, kind, found))
    bundle = ModelBundle.save(output, member, overwrite=overwrite)
    return Imported(bundle=bundle, folds=tuple(fold.fold for fold in found), notes=notes)


def _plan(
    model: Path,
    plans: Plans,
    name: str,
    checkpoint: dict[str, Any],
    fold: FoldCheckpoint,
    weights: dict[str, Tensor],
    source: Path,
) -> tuple[Plan, NnUNetNetwork]:
    """By the files of the model, and what the checkpoint of its first fold says beside them."""
    dataset, fingerprint = read_dataset_json(model), read_fingerprint(model)
    configuration = read_configuration(plans, name, where=model / PLANS)
    norm: Norm | None = "batch" if any(tensor.endswith(".running_mean") for tensor in weights) else None
    try:
        return plan_of(
            plans, name, configuration, dataset, fingerprint, mirror_axes=_mirrored(checkpoint, fold), norm=norm
        )
    except NotExpressible as problem:
        reasons = "".join(f"\n  - {reason}" for reason in problem.reasons)
        raise ModelError(
            f"cannot be taken over:{reasons}", where=source, remedy="predict with nnU-Net itself (nnUNetv2_predict)"
        ) from None


def _state(weights: dict[str, Tensor], network: NnUNetNetwork, fold: FoldCheckpoint) -> dict[str, Tensor]:
    try:
        return from_nnunet(weights, network.spec, conv_bias=network.conv_bias, dropout=network.dropout)
    except ValueError as problem:
        raise ModelError(
            f"does not fit the network of the plans: {problem}",
            where=_place(fold),
            remedy="keep plans.json and the checkpoints of one model together; a trainer with a network of its own "
            "cannot be taken over",
        ) from None


def _load(fold: FoldCheckpoint) -> dict[str, Any]:
    return load_from_outside(fold.path, allowed=NUMPY_SCALARS, keys=_NEEDED)


def _place(fold: FoldCheckpoint) -> str:
    """As the user knows it, also when it was unpacked from a zip file."""
    return f"fold_{fold.fold}/{fold.path.name}"


def _configuration_name(checkpoint: dict[str, Any], asked_for: str | None, named: str, fold: FoldCheckpoint) -> str:
    settings = checkpoint.get("init_args")
    name = settings.get("configuration") if isinstance(settings, dict) else None
    if not isinstance(name, str | None) or not (name or asked_for or named):
        raise ModelError("does not say its configuration", where=_place(fold), remedy="give --configuration")
    if asked_for is not None and name not in (None, asked_for):
        raise ModelError(
            f"is of configuration {name}, not {asked_for}",
            where=_place(fold),
            remedy="leave --configuration out and give the folder of the one that you want",
        )
    return name or asked_for or named


def _weights_of(checkpoint: dict[str, Any], fold: FoldCheckpoint) -> dict[str, Tensor]:
    weights = checkpoint.get("network_weights")
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ModelError(
            "holds no network_weights, as nnU-Net v2's checkpoints do",
            where=_place(fold),
            remedy="give a model of nnU-Net v2",
        )
    return {str(name): value for name, value in weights.items()}


def _mirrored(checkpoint: dict[str, Any], fold: FoldCheckpoint) -> tuple[int, ...]:
    axes = checkpoint.get("inference_allowed_mirroring_axes") or ()
    if not isinstance(axes, list | tuple) or not all(isinstance(axis, int) for axis in axes):
        raise ModelError(f"mirrors axes {reprlib.repr(axes)}", where=_place(fold), remedy="give a model of nnU-Net v2")
    return tuple(sorted(set(axes)))


def _provenance(
    model: Path, found: Sequence[FoldCheckpoint], trainer: str, configuration: str, plans_name: str
) -> dict[str, JsonValue]:
    return {
        "imported_from": "nnU-Net v2",
        "decathlete": __version__,
        "trainer": trainer,
        "plans": plans_name,
        "configuration": configuration,
        "folds": [fold.fold for fold in found],
        "checkpoints_sha256": [file_digest(fold.path) for fold in found],
        "postprocessing": _postprocessing(model),
    }


def _postprocessing(model: Path) -> JsonValue:
    """What nnU-Net found to improve its predictions afterwards (of the most folds), from JSON alone."""
    found = sorted(model.glob("**/postprocessing.json"), key=lambda path: (len(path.parent.name), path.parent.name))
    if not found:
        return None
    content = read_json(found[-1])
    return {key: content.get(key) for key in ("postprocessing_fns", "postprocessing_kwargs")}


def _postprocessing_notes(model: Path) -> list[str]:
    """``nnUNetv2_predict`` applies none either: that is a command of its own."""
    settings = _postprocessing(model)
    if isinstance(settings, dict) and settings.get("postprocessing_fns"):
        return ["its postprocessing is noted in model.json, but not applied (nor does nnUNetv2_predict)"]
    if settings is None and any(model.glob("**/postprocessing.pkl")):
        return ["its postprocessing.pkl is not read, since it would have to be unpickled; predictions come without it"]
    return []


def _fold_notes(model: Path, kind: Weights, found: Sequence[FoldCheckpoint]) -> list[str]:
    taken = {fold.fold for fold in found}
    others = sorted(path.name[5:] for path in model.glob("fold_*") if path.name[5:] not in taken | {"all"})
    return [f"folds {', '.join(others)} are not in it: not asked for, or without a {kind} checkpoint"] if others else []


def _trainer_notes(trainer: str) -> list[str]:
    if trainer.startswith("nnUNetTrainer"):
        return []
    return [f"it was trained by {trainer}, not by a trainer of nnU-Net's own: compare some predictions"]
