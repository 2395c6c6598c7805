"""Exports models to nnU-Net v2, which predicts with them without Decathlete."""

from __future__ import annotations

import io
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from decathlete.core.estimates import weights_bytes
from decathlete.core.files import atomic_path, file_digest, list_files, replace_folder, write_json
from decathlete.core.locks import locked_output
from decathlete.core.output_paths import check_output_path
from decathlete.core.schema import Schema
from decathlete.core.sizes import require_disk_space
from decathlete.errors import DecathleteError, ModelError, OutputError
from decathlete.interop.nnunet_export_plan import (
    CONFIGURATIONS,
    PLANS_NAME,
    TRAINER,
    find_unsupported_features,
    make_dataset_json,
    make_plans_json,
    nnunet_labels,
)
from decathlete.interop.nnunet_weights import convert_to_nnunet
from decathlete.models.bundle import ModelBundle
from decathlete.networks.unet_spec import as_unet
from decathlete.preprocessing.normalize import needs_mask
from decathlete.version import __version__

CHECKPOINT = "checkpoint_final.pth"
ORIGIN = "exported_from.json"
_REMEDY = "free disk space, or choose an output on another disk"
_EXPORTED_FILE = re.compile(rf"plans\.json|dataset\.json|{re.escape(ORIGIN)}|fold_[0-9]+/{re.escape(CHECKPOINT)}")


class Origin(Schema):
    """Source of an exported model. An export of the same model is not repeated.

    Attributes:
        decathlete: version that exported the model.
        model: digest of the bundle.
        sha256: file in the folder -> its digest.
    """

    decathlete: str
    model: str
    sha256: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class NnUNetExportResult:
    """Result of an export to nnU-Net v2.

    Attributes:
        folder: folder of the nnU-Net model.
        folds: number of networks (``fold_0``, ``fold_1``, ...).
        mirror_axes: axes along which nnU-Net averages over flips by default.
        notes: what was not exported, a sentence each.
    """

    folder: Path
    folds: int
    mirror_axes: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def command(self) -> str:
        """Command of nnU-Net that predicts with the model."""
        return prediction_command(self.folder, self.folds)


def prediction_command(folder: Path, folds: int) -> str:
    """Return the command of nnU-Net that predicts with the networks ``fold_0``, ``fold_1``, ... in a model's folder."""
    numbers = " ".join(map(str, range(folds)))
    return f"nnUNetv2_predict_from_modelfolder -m {shlex.quote(str(folder))} -f {numbers} -i IMAGES -o OUTPUT"


def export_nnunet(model: str | Path, output: str | Path, *, overwrite: bool = False) -> NnUNetExportResult:
    """Export a model to a folder of nnU-Net v2. nnU-Net then gives the results of `predict`, with the same weights.

    nnU-Net averages over the flips that training used, like ``predict --tta``; with ``--disable_tta`` it is `predict`
    without that option. nnU-Net reads NIfTI files, one for each channel (``ID_0000.nii.gz``).

    Args:
        model: folder of a run or of a model.
        output: new folder, with ``plans.json``, ``dataset.json`` and ``fold_0``.
        overwrite: replace an earlier export at ``output``. An undamaged export of the same model is kept.

    Raises:
        ModelError: there is no model, or nnU-Net cannot represent it; the message lists every reason.
        OutputError: ``output`` exists and is not an export alone, or it cannot be written.
    """
    folder = check_output_path(output)
    bundle = ModelBundle.load(Path(model))
    reasons = find_unsupported_features(bundle.record.plan)
    if reasons:
        listed = "".join(f"\n  - {reason}" for reason in reasons)
        raise ModelError(
            f"cannot be represented in nnU-Net v2:{listed}",
            where=bundle.folder,
            remedy="predict with decathlete itself",
            code="E-MODEL-UNSUPPORTED",
        )
    with locked_output(folder):
        if not _is_exported(folder, bundle, overwrite=overwrite):
            n_bytes = weights_bytes(sum(n.n_parameters or 0 for m in bundle.record.members for n in m.networks))
            require_disk_space(folder.parent, n_bytes, needed_for="for the exported weights", remedy=_REMEDY)
            _write(bundle, folder)
    record = bundle.record
    return NnUNetExportResult(
        folder=folder, folds=record.n_networks, mirror_axes=_mirror_axes(bundle), notes=tuple(_notes(bundle))
    )


def _is_exported(folder: Path, bundle: ModelBundle, *, overwrite: bool) -> bool:
    """Return whether the folder contains an undamaged export of the model.

    Raises:
        OutputError: the folder contains something else than an export; or an export of another model, or a changed
            one, and ``overwrite`` is not set.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        origin = Origin.load(folder / ORIGIN)
    except DecathleteError:
        origin = None  # damaged, or written by another release
    changed = None
    if origin is not None and (origin.decathlete, origin.model) == (__version__, bundle.digest):
        changed = [name for name, digest in origin.sha256.items() if not _has_digest(folder / name, digest)]
    if changed == []:
        return True
    if (foreign := _find_foreign(folder)) is not None:
        raise OutputError(
            f"exists and is not an exported nnU-Net model alone: {foreign}",
            where=folder,
            remedy="choose another folder",
            code="E-OUTPUT-EXISTS",
        )
    if not overwrite:
        raise OutputError(
            f"contains this model, but was changed or damaged after the export: {', '.join(changed)}"
            if changed
            else "contains another model, or the export of another release",
            where=folder,
            remedy="use --overwrite to replace it, or choose another folder",
            code="E-OUTPUT-EXISTS",
        )
    return False


def _find_foreign(folder: Path) -> str | None:
    """Return what in a folder does not belong to an export, as a clause; ``None``: nothing."""
    if not (folder / ORIGIN).is_file():
        return f"it has no {ORIGIN}"
    others = [name for name in list_files(folder) if not _EXPORTED_FILE.fullmatch(name)]
    return f"it contains {others[0]}" if others else None


def _has_digest(path: Path, digest: str) -> bool:
    return path.is_file() and file_digest(path) == digest


def _write(bundle: ModelBundle, folder: Path) -> None:
    plan, cases = bundle.record.plan, bundle.record.training_provenance.get("training_cases")
    with replace_folder(folder) as partial:
        write_json(partial / "plans.json", make_plans_json(plan))
        write_json(partial / "dataset.json", make_dataset_json(plan, n_training=cases if isinstance(cases, int) else 0))
        for number in range(bundle.record.n_networks):
            _write_checkpoint(partial / f"fold_{number}" / CHECKPOINT, _make_checkpoint(bundle, number))
        digests = {name: file_digest(partial / name) for name in list_files(partial)}
        Origin(decathlete=__version__, model=bundle.digest, sha256=digests).save(partial / ORIGIN)


def _make_checkpoint(bundle: ModelBundle, number: int) -> dict[str, Any]:
    """Return a checkpoint for nnU-Net's predictor. It has no state of an optimizer."""
    plan = bundle.record.plan
    return {
        "network_weights": convert_to_nnunet(bundle.build(number=number).state_dict(), as_unet(plan.network)),
        "trainer_name": TRAINER,
        "init_args": {"configuration": CONFIGURATIONS[plan.dims], "fold": number, "plans_name": PLANS_NAME},
        # nnU-Net computes the maximum of the axes, which fails for an empty tuple
        "inference_allowed_mirroring_axes": _mirror_axes(bundle) or None,
    }


def _mirror_axes(bundle: ModelBundle) -> tuple[int, ...]:
    """Return the axes that nnU-Net may flip: it does not swap sides back."""
    swap = bundle.record.plan.side_swap
    return tuple(axis for axis in bundle.record.mirror_axes if swap is None or axis != swap.axis)


def _write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_path(path) as partial:
        partial.write_bytes(buffer.getbuffer())


def _notes(bundle: ModelBundle) -> list[str]:
    record = bundle.record
    notes = []
    labels, exported = record.plan.labels, nnunet_labels(record.plan.labels)
    if labels.ignore != exported.ignore:
        notes.append(
            f"the ignore label {labels.ignore} is {exported.ignore} in nnU-Net, which requires the value after the "
            "exported classes"
        )
    if _mirror_axes(bundle) != tuple(record.mirror_axes):
        notes.append(
            "nnU-Net does not average over flips from left to right, because it cannot swap the outputs of mirror pairs"
        )
    if record.plan.orientation == "canonical":
        notes.append("nnU-Net's NibabelIOWithReorient reorients images to RAS and reads only NIfTI files")
    elif record.plan.spacing_unit == "pixel":
        notes.append("nnU-Net's NibabelIO reads only NIfTI files: convert the images, with a spacing of 1")
    if record.plan.dims == 2 and needs_mask(record.plan.normalization) and record.plan.fill_slice_holes:
        notes.append(
            "nnU-Net does not fill the holes of the object in images of a single slice, which changes their "
            "normalisation; a model trained with --set fill_slice_holes=false fills none either"
        )
    if record.temperature != 1:
        notes.append(f"its temperature {record.temperature:g} is left out, because nnU-Net does not scale its logits")
    if record.postprocessing:
        notes.append("its post-processing is left out, because nnU-Net predicts without it")
    return notes
