"""A model trained here becomes a folder that nnU-Net v2 predicts with, by itself."""

from __future__ import annotations

import io
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from decathlete.core.files import atomic_path, swapped_in, writable_folder, write_json
from decathlete.core.schema import Schema
from decathlete.errors import DecathleteError, ModelError, OutputError
from decathlete.interop.nnunet_weights import to_nnunet
from decathlete.interop.to_nnunet_plan import CONFIGURATIONS, PLANS_NAME, TRAINER, dataset_json, obstacles, plans_json
from decathlete.models.bundle import ModelBundle
from decathlete.networks.unet_spec import as_unet
from decathlete.version import __version__

CHECKPOINT = "checkpoint_final.pth"
ORIGIN = "exported_from.json"


class Origin(Schema):
    """What a folder was made from: a finished export of the same model is kept.

    Attributes:
        model: the bundle's digest.
    """

    decathlete: str
    model: str


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A folder for nnU-Net.

    Attributes:
        folds: how many networks (``fold_0``, ``fold_1``, ...): those of the bundle.
        mirror_axes: along which nnU-Net averages over flips, unless told otherwise.
        notes: what is not taken over, a sentence each.
    """

    folder: Path
    folds: int
    mirror_axes: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def command(self) -> str:
        """That predicts with it."""
        folds = " ".join(map(str, range(self.folds)))
        return f"nnUNetv2_predict_from_modelfolder -m {shlex.quote(str(self.folder))} -f {folds} -i IMAGES -o OUTPUT"


def export_nnunet(model: str | Path, output: str | Path, *, overwrite: bool = False) -> Exported:
    """Make a folder with which nnU-Net v2 gives what `predict` gives, in the same weights.

    Its flips are those that training used: what nnU-Net does by itself is ``predict --tta``, and ``--disable_tta`` is
    `predict` without it. Images are then NIfTI files, one for each channel (``ID_0000.nii.gz``).

    Args:
        model: a run's folder or a model folder.
        output: the folder with ``plans.json``, ``dataset.json`` and ``fold_0``.
        overwrite: replace the nnU-Net model that is at ``output``.

    Raises:
        ModelError: no model there, or one that nnU-Net cannot express, with every reason.
        OutputError: something else is at ``output``, or it cannot be written.
    """
    bundle, folder = ModelBundle.load(Path(model)), Path(output)
    reasons = obstacles(bundle.record.plan)
    if reasons:
        listed = "".join(f"\n  - {reason}" for reason in reasons)
        raise ModelError(
            f"cannot be expressed in nnU-Net v2:{listed}", where=bundle.folder, remedy="predict with decathlete itself"
        )
    origin = Origin(decathlete=__version__, model=bundle.digest)
    if not _is_kept(folder, origin, overwrite=overwrite):
        _write(bundle, folder, origin)
    record = bundle.record
    return Exported(folder=folder, folds=record.n_networks, mirror_axes=record.mirror_axes, notes=tuple(_notes(bundle)))


def _is_kept(folder: Path, origin: Origin, *, overwrite: bool) -> bool:
    """Whether the same export is there already; anything but a nnU-Net model is never replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / "plans.json").is_file():
        raise OutputError("is there, and no nnU-Net model", where=folder, remedy="choose another folder")
    try:
        if Origin.load(folder / ORIGIN) == origin:
            return True
    except DecathleteError:
        pass  # nnU-Net's own, or of another release
    if not overwrite:
        raise OutputError(
            "holds another model", where=folder, remedy="give --overwrite to replace it, or choose another folder"
        )
    return False


def _write(bundle: ModelBundle, folder: Path, origin: Origin) -> None:
    plan, cases = bundle.record.plan, bundle.record.training_provenance.get("training_cases")
    writable_folder(folder.parent)
    with swapped_in(folder) as partial:
        write_json(partial / "plans.json", plans_json(plan))
        write_json(partial / "dataset.json", dataset_json(plan, n_training=cases if isinstance(cases, int) else 0))
        for number in range(bundle.record.n_networks):
            _write_checkpoint(partial / f"fold_{number}" / CHECKPOINT, _checkpoint(bundle, number))
        origin.save(partial / ORIGIN)


def _checkpoint(bundle: ModelBundle, number: int) -> dict[str, Any]:
    """What nnU-Net's predictor reads of a checkpoint; there is no optimizer to go on with."""
    plan = bundle.record.plan
    return {
        "network_weights": to_nnunet(bundle.build(number).state_dict(), as_unet(plan.network)),
        "trainer_name": TRAINER,
        "init_args": {"configuration": CONFIGURATIONS[plan.dims], "fold": number, "plans_name": PLANS_NAME},
        # nnU-Net asks for the greatest of the axes, so that none is not an empty tuple
        "inference_allowed_mirroring_axes": bundle.record.mirror_axes or None,
    }


def _write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_path(path) as partial:
        partial.write_bytes(buffer.getbuffer())


def _notes(bundle: ModelBundle) -> list[str]:
    record = bundle.record
    notes = []
    if record.plan.labels.ignore is not None:
        notes.append(f"the ignore label {record.plan.labels.ignore} is left out: no prediction has it")
    if record.plan.orientation == "canonical":
        notes.append("images are turned to RAS by nnU-Net's NibabelIOWithReorient, which reads NIfTI files alone")
    if record.temperature != 1:
        notes.append(f"its temperature {record.temperature:g} is left out: nnU-Net's probabilities have none")
    if record.postprocessing:
        notes.append("its post-processing is left out: nnU-Net predicts without it")
    return notes
