"""Models that nobody trained: tiny networks with random weights, to measure what stands around the network."""

from __future__ import annotations

from pathlib import Path

FEATURES = 4
"""Of every stage: convolutions are to cost next to nothing."""


def random_model(
    folder: Path, *, classes: int, patch: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    """Write a bundle for one CT channel that takes every image as it is.

    Args:
        classes: with the background.
        spacing: of the network's grid, mm.
    """
    from decathlete.core.labels import LabelSet
    from decathlete.models.bundle import ModelBundle, TrainedMember
    from decathlete.networks.architectures.unet import plan_unet
    from decathlete.networks.build import build_network
    from decathlete.planning.normalizations import NORMALIZATIONS
    from decathlete.planning.plan import Plan, Range, TrainingRanges
    from decathlete.planning.topology import make_topology

    labels = LabelSet.from_names([f"class {i}" for i in range(1, classes)])
    topology = make_topology(spacing, patch)
    spec = plan_unet(topology, in_channels=1, out_channels=labels.n_outputs)
    spec = spec.revised(features=tuple(FEATURES for _ in spec.features), heads=1)
    anything = Range(low=float("-inf"), high=float("inf"))
    plan = Plan(
        dataset="made up",
        dims=3,
        channels=("CT",),
        labels=labels,
        target_spacing=spacing,
        median_shape=patch,
        patch_size=patch,
        batch_size=1,
        normalization=(NORMALIZATIONS.settings("none"),),
        network=spec,
        training_ranges=TrainingRanges(spacing=(anything,) * 3, size=(anything,) * 3, intensity=(anything,)),
        fingerprint_digest="",
    )
    ModelBundle.save(folder, TrainedMember(plan=plan, networks=[build_network(spec, seed=0)]))
