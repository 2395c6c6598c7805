"""Imports trained nnU-Net v2 models with all their folds."""

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
from decathlete.core.locks import locked_output
from decathlete.core.output_paths import check_output_path
from decathlete.errors import ModelError
from decathlete.interop.nnunet_files import (
    Plans,
    read_configuration,
    read_dataset_json,
    read_fingerprint,
    read_json,
    read_plans,
)
from decathlete.interop.nnunet_folder import PLANS, FoldCheckpoint, find_checkpoints, find_model, open_source
from decathlete.interop.nnunet_network import NnUNetNetwork, UnsupportedModelError
from decathlete.interop.nnunet_plan import build_plan
from decathlete.interop.nnunet_weights import convert_from_nnunet
from decathlete.interop.safe_checkpoint import NUMPY_SCALARS, load_untrusted_checkpoint
from decathlete.models.bundle import ModelBundle, TrainedMember, check_place
from decathlete.models.weights import NetworkTensors, check_state
from decathlete.planning.plan import Plan
from decathlete.version import __version__

_REQUIRED_KEYS = ("network_weights", "init_args", "trainer_name", "inference_allowed_mirroring_axes")


@dataclass(frozen=True, kw_only=True)
class NnUNetImportResult:
    """Result of an import from nnU-Net v2.

    Attributes:
        bundle: the imported model.
        folds: nnU-Net's folds, in the order of the bundle's networks.
        notes: what was not imported, a sentence each.
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
) -> NnUNetImportResult:
    """Import a trained nnU-Net v2 model. `predict` then gives the results of ``nnUNetv2_predict``.

    Args:
        source: folder of a trained model (``plans.json``, ``dataset.json``, ``fold_*``), a folder above it, or a zip
            file exported by nnU-Net.
        output: folder of the new model.
        configuration: ``2d`` or ``3d_fullres``, if there are several.
        folds: folds to import, such as ``[0, 1]``; their logits are averaged. ``["all"]``: the network that was trained
            on all cases, nnU-Net's ``fold_all``. Empty: every numbered fold, or ``fold_all`` if there is no other.
        weights: checkpoints to import: ``final`` or ``best``; ``None``: final if they exist, else best.
        overwrite: replace an existing model at ``output``.

    Raises:
        ModelError: there is no such model, files are damaged, a checkpoint is not safe to load, or Decathlete does not
            support the model; the message lists every reason.
        ArchiveError: the zip file is damaged or not safe to unpack.
        OutputError: ``output`` exists and may not be replaced, or it cannot be written.
    """
    source, output = Path(source), check_output_path(output)
    with locked_output(output), open_source(source) as folder:
        check_place(output, overwrite=overwrite)
        model, folder_configuration = find_model(folder, configuration, where=source)
        kind, checkpoints = find_checkpoints(model, folds=[str(fold) for fold in folds], weights=weights, where=source)
        return _import_folds(
            model, configuration, folder_configuration, kind, checkpoints, source, output, overwrite=overwrite
        )


def _import_folds(
    model: Path,
    configuration: str | None,
    folder_configuration: str,
    kind: Weights,
    checkpoints: Sequence[FoldCheckpoint],
    source: Path,
    output: Path,
    *,
    overwrite: bool,
) -> NnUNetImportResult:
    first = _load(checkpoints[0])
    name = _configuration_name(first, configuration, folder_configuration, checkpoints[0])
    trainer = str(first.get("trainer_name"))
    first_weights = _get_weights(first, checkpoints[0])
    plans = read_plans(model)
    plan, network = _build_plan(model, plans, name, first, checkpoints[0], first_weights, source)
    others = (_convert(_get_weights(_load(fold), fold), network, fold) for fold in checkpoints[1:])
    states = [_convert(first_weights, network, checkpoints[0]), *others]
    member = TrainedMember(
        plan=plan,
        networks=states,
        folds=[fold.fold for fold in checkpoints],
        mirror_axes=plan.mirrored_axes,
        weights=kind,
        provenance=_provenance(model, checkpoints, trainer, name, plans.plans_name),
    )
    notes = (*_trainer_notes(trainer), *_postprocessing_notes(model), *_fold_notes(model, kind, checkpoints))
    bundle = ModelBundle.save(output, member, overwrite=overwrite)
    return NnUNetImportResult(bundle=bundle, folds=tuple(fold.fold for fold in checkpoints), notes=notes)


def _build_plan(
    model: Path,
    plans: Plans,
    name: str,
    checkpoint: dict[str, Any],
    fold: FoldCheckpoint,
    weights: dict[str, Tensor],
    source: Path,
) -> tuple[Plan, NnUNetNetwork]:
    """Build the plan from the model's files and the checkpoint of its first fold."""
    dataset, fingerprint = read_dataset_json(model), read_fingerprint(model)
    configuration = read_configuration(plans, name, where=model / PLANS)
    norm: Norm | None = "batch" if any(tensor.endswith(".running_mean") for tensor in weights) else None
    try:
        return build_plan(
            plans, name, configuration, dataset, fingerprint, mirror_axes=_mirror_axes(checkpoint, fold), norm=norm
        )
    except UnsupportedModelError as problem:
        reasons = "".join(f"\n  - {reason}" for reason in problem.reasons)
        raise ModelError(
            f"cannot be imported:{reasons}",
            where=source,
            remedy="predict with nnU-Net itself (nnUNetv2_predict)",
            code="E-MODEL-UNSUPPORTED",
        ) from None


def _convert(weights: dict[str, Tensor], network: NnUNetNetwork, fold: FoldCheckpoint) -> dict[str, Tensor]:
    try:
        state = convert_from_nnunet(weights, network.spec, conv_bias=network.conv_bias, dropout=network.dropout)
    except ValueError as problem:
        raise ModelError(
            f"does not fit the network of the plans: {problem}",
            where=_display_path(fold),
            remedy="use plans.json and checkpoints of the same model; the network of a custom trainer cannot be "
            "imported",
        ) from None
    check_state(state, NetworkTensors.of(network.spec), where=_display_path(fold))
    return state


def _load(fold: FoldCheckpoint) -> dict[str, Any]:
    return load_untrusted_checkpoint(fold.path, allowed=NUMPY_SCALARS, keys=_REQUIRED_KEYS)


def _display_path(fold: FoldCheckpoint) -> str:
    """Return the path within the model, which is the same in a folder and in a zip file."""
    return f"fold_{fold.fold}/{fold.path.name}"


def _configuration_name(
    checkpoint: dict[str, Any], option: str | None, folder_configuration: str, fold: FoldCheckpoint
) -> str:
    settings = checkpoint.get("init_args")
    name = settings.get("configuration") if isinstance(settings, dict) else None
    if not isinstance(name, str | None) or not (name or option or folder_configuration):
        raise ModelError("does not name its configuration", where=_display_path(fold), remedy="use --configuration")
    if option is not None and name not in (None, option):
        raise ModelError(
            f"is of configuration {name}, not {option}",
            where=_display_path(fold),
            remedy=f"leave out --configuration, or use the folder of configuration {option}",
        )
    return name or option or folder_configuration


def _get_weights(checkpoint: dict[str, Any], fold: FoldCheckpoint) -> dict[str, Tensor]:
    weights = checkpoint.get("network_weights")
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ModelError(
            "contains no network_weights, which checkpoints of nnU-Net v2 have",
            where=_display_path(fold),
            remedy="use a model of nnU-Net v2",
        )
    return {str(name): value for name, value in weights.items()}


def _mirror_axes(checkpoint: dict[str, Any], fold: FoldCheckpoint) -> tuple[int, ...]:
    axes = checkpoint.get("inference_allowed_mirroring_axes") or ()
    if not isinstance(axes, list | tuple) or not all(isinstance(axis, int) for axis in axes):
        raise ModelError(
            f"has the mirror axes {reprlib.repr(axes)}", where=_display_path(fold), remedy="use a model of nnU-Net v2"
        )
    return tuple(sorted(set(axes)))


def _provenance(
    model: Path, checkpoints: Sequence[FoldCheckpoint], trainer: str, configuration: str, plans_name: str
) -> dict[str, JsonValue]:
    return {
        "imported_from": "nnU-Net v2",
        "decathlete": __version__,
        "trainer": trainer,
        "plans": plans_name,
        "configuration": configuration,
        "folds": [fold.fold for fold in checkpoints],
        "checkpoints_sha256": [file_digest(fold.path) for fold in checkpoints],
        "postprocessing": _postprocessing(model),
    }


def _postprocessing(model: Path) -> JsonValue:
    """Read the post-processing that nnU-Net determined over the most folds. Only JSON is read, no pickle."""
    paths = sorted(model.glob("**/postprocessing.json"), key=lambda path: (len(path.parent.name), path.parent.name))
    if not paths:
        return None
    content = read_json(paths[-1])
    return {key: content.get(key) for key in ("postprocessing_fns", "postprocessing_kwargs")}


def _postprocessing_notes(model: Path) -> list[str]:
    """Note post-processing that is not applied. ``nnUNetv2_predict`` does not apply it either."""
    settings = _postprocessing(model)
    if isinstance(settings, dict) and settings.get("postprocessing_fns"):
        return ["its post-processing is recorded in model.json, but not applied (nor does nnUNetv2_predict apply it)"]
    if settings is None and any(model.glob("**/postprocessing.pkl")):
        return [
            "its postprocessing.pkl is not read, because unpickling can run code; predictions have no post-processing"
        ]
    return []


def _fold_notes(model: Path, kind: Weights, checkpoints: Sequence[FoldCheckpoint]) -> list[str]:
    available = {path.name[5:] for path in model.glob("fold_*")}
    others = sorted(available - {fold.fold for fold in checkpoints}, key=lambda fold: (len(fold), fold))
    numbered = [fold for fold in others if fold != "all"]
    notes = []
    if numbered:
        notes.append(f"folds {', '.join(numbered)} are not imported: not selected, or without a {kind} checkpoint")
    if len(numbered) < len(others):
        notes.append("fold_all, the network trained on all cases, is not imported: use --folds all to import it alone")
    return notes


def _trainer_notes(trainer: str) -> list[str]:
    if trainer.startswith("nnUNetTrainer"):
        return []
    return [f"it was trained by {trainer}, which is not a trainer of nnU-Net: compare some predictions"]
