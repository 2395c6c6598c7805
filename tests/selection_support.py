"""Runs whose quality is known: networks that classify each voxel by its intensity, made instead of trained.

Channel ``i`` holds the class of a voxel (0 background, 1 organ, 2 lesions), with some voxels that say nothing
(between background and organ, nearer to the organ). A network sees one channel only. Islands of the organ's intensity
lie beside the organ in every image, so that every network predicts an organ with islands.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from decathlete.core.geometry import Geometry
from decathlete.core.labels import LabelSet
from decathlete.io.images import write_image, write_label
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.planning.architectures import ARCHITECTURES, Architecture
from decathlete.planning.network_spec import Axes, NetworkSpec
from decathlete.planning.normalizations import NORMALIZATIONS
from decathlete.planning.options import PlanOptions
from decathlete.planning.plan import Plan
from decathlete.planning.topology import Topology
from decathlete.training.reporting.records import RunRecord
from factories import make_test_plan
from training_support import tiny_config

LABELS = LabelSet.from_names(["organ", "lesions"])
SPACING = (2.0, 1.0, 1.0)
N_FOLDS = 2


class IntensitySpec(NetworkSpec):
    """Logits that fall with the squared distance of the intensity from each class's own."""

    channel: int = Field(default=0, ge=0, description="The channel that is seen.")


class _IntensityNetwork(nn.Module):
    def __init__(self, channel: int, n_classes: int) -> None:
        super().__init__()
        self.channel = channel
        self.centres = nn.Parameter(torch.arange(n_classes, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        seen = x[:, self.channel].unsqueeze(1)
        centres = self.centres.view(1, -1, *[1] * (x.ndim - 2))
        return -20 * (seen - centres) ** 2


@ARCHITECTURES.register("intensity")
class IntensityArchitecture(Architecture[IntensitySpec]):
    """A classifier of single voxels."""

    Settings = IntensitySpec

    @classmethod
    def plan_spec(
        cls, topology: Topology, *, in_channels: int, out_channels: int, options: PlanOptions
    ) -> IntensitySpec:
        return IntensitySpec(dims=len(topology.patch_size), in_channels=in_channels, out_channels=out_channels)

    def build(self) -> nn.Module:
        return _IntensityNetwork(self.spec.channel, self.spec.out_channels)

    def multiply_adds(self, patch_size: Axes) -> int:
        return int(np.prod(patch_size))

    def feature_map_elements(self, patch_size: Axes) -> int:
        return int(np.prod(patch_size))

    @property
    def width(self) -> int:
        return 1


def make_truth(number: int) -> np.ndarray:
    """One organ with two lesions."""
    truth = np.zeros((12, 24, 24), np.uint8)
    truth[3:9, 4:14, 4 : 14 + number % 3] = 1
    truth[4:6, 6:8, 6:8] = 2
    truth[5:8, 9:13, 9:13] = 2
    return truth


def write_dataset(root: Path, *, n_cases: int = 10, unknown: Sequence[float] = (0.0, 0.0)) -> Path:
    """Write the raw dataset.

    Args:
        unknown: share of the background voxels of each channel that say nothing; no voxel is unknown in both.
    """
    generator = np.random.default_rng(0)
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for number in range(n_cases):
        truth = make_truth(number)
        shown = truth.astype(np.float32)
        shown[1:3, 17 : 19 + number % 2, 18:20] = shown[8:10, 19:21, 2:5] = 1  # islands
        draw = generator.uniform(size=truth.shape)
        first, both = unknown[0], unknown[0] + unknown[1]
        free = shown == 0
        channels = np.stack([shown, shown])
        channels[0][free & (draw < first)] = 0.55
        channels[1][free & (draw >= first) & (draw < both)] = 0.55
        geometry = Geometry.plain(truth.shape, spacing_ZYX=SPACING)
        for channel in range(2):
            write_image(root / "imagesTr" / f"c{number:02}_{channel:04}.nii.gz", channels[channel][None], geometry)
        write_label(root / "labelsTr" / f"c{number:02}.nii.gz", truth, geometry)
    manifest = {
        "channel_names": {"0": "first", "1": "second"},
        "labels": {"background": 0, "organ": 1, "lesions": 2},
        "numTraining": n_cases,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(manifest))
    return root


def write_configuration(
    folder: Path,
    root: Path,
    *,
    dims: int = 3,
    channel: int = 0,
    first_stages: Sequence[Sequence[float]] = (),
    n_cases: int = 10,
    **changes: Any,
) -> Path:
    """Write the finished folds of a configuration whose networks see ``channel``.

    Args:
        first_stages: of a cascade: the intensities that the first stage of each fold (it sees channel 1) gives to the
            classes. Channels 2 and 3 of the second stage are the masks of both classes.
        changes: fields of every run's record to replace.
    """
    plan = _make_plan(dims, channel, cascade=bool(first_stages))
    cases = [f"c{number:02}" for number in range(n_cases)]
    for fold in range(N_FOLDS):
        val = cases[fold::N_FOLDS]
        member = TrainedMember(
            plan=plan,
            networks=[_IntensityNetwork(channel, 3)],
            name=f"{folder.name}_fold_{fold}",
            folds=[str(fold)],
            previous_stage="3d_lowres" if first_stages else None,
        )
        first = [
            TrainedMember(
                plan=_make_plan(3, 1),
                networks=[{"centres": torch.tensor(centres)}],
                name="3d_lowres",
                folds=[str(fold)],
            )
            for centres in first_stages[fold : fold + 1]
        ]
        ModelBundle.save(folder / f"fold_{fold}" / "model", [*first, member])
        fields: dict[str, Any] = {
            "version": "0",
            "dataset": root.name,
            "dataset_root": str(root),
            "dataset_digest": "test",
            "prepared": str(folder / "nowhere"),
            "dims": dims,
            "fold": fold,
            "train": tuple(case for case in cases if case not in val),
            "val": tuple(val),
            "config": tiny_config(),
            "plan_digest": plan.digest,
            "started": "2024-01-01T00:00:00+00:00",
            "finished": "2024-01-01T01:00:00+00:00",
            "plan": plan,
        }
        RunRecord(**(fields | changes)).save(folder / f"fold_{fold}" / "run.json")
    return folder


def _make_plan(dims: int, channel: int, *, cascade: bool = False) -> Plan:
    return make_test_plan(
        dims,
        n_channels=2,
        labels=LABELS,
        normalization=(NORMALIZATIONS.settings("none"),) * 2,
        target_spacing=(None if dims == 2 else 2.0, 1.0, 1.0),
        network=IntensitySpec(dims=dims, in_channels=4 if cascade else 2, out_channels=3, channel=channel),
        **({"configuration": "3d_cascade", "previous_stage": "3d_lowres"} if cascade else {}),
    )
