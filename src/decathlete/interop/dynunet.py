"""Imports checkpoints of NVIDIA's nnU-Net for PyTorch, whose network is MONAI's DynUNet."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue

from decathlete.core.choices import Norm
from decathlete.core.files import file_digest
from decathlete.core.locks import locked_output
from decathlete.core.output_paths import check_output_path
from decathlete.errors import ModelError, OptionError, problems_found
from decathlete.interop.dynunet_names import WeightsMismatchError
from decathlete.interop.dynunet_options import DynUNetOptions
from decathlete.interop.dynunet_weights import DynUNetWeights
from decathlete.interop.recipe_args import RecipeArgs
from decathlete.interop.recipe_plan import build_recipe_plan
from decathlete.interop.recipe_sources import SettingSources
from decathlete.interop.safe_checkpoint import load_untrusted_checkpoint
from decathlete.models.bundle import ModelBundle, TrainedMember, check_place
from decathlete.models.weights import NetworkTensors, check_state
from decathlete.networks.unet_spec import UNetSpec
from decathlete.planning.plan import Plan
from decathlete.version import __version__

RECIPE_SLOPE = 0.01
"""Negative slope of the leaky ReLUs in every DynUNet of the recipe. The recipe ignores its own option."""
REQUIRED_KEYS = ("state_dict", "hyper_parameters")
"""Entries of a Lightning checkpoint that an import reads."""


@dataclass(frozen=True, kw_only=True)
class DynUNetImportResult:
    """Result of an import from NVIDIA's recipe.

    Attributes:
        bundle: the imported model.
        notes: what a user must know before using the model, a sentence each.
    """

    bundle: ModelBundle
    notes: tuple[str, ...]

    @property
    def plan(self) -> Plan:
        """Plan of the model. Its reasons name the source of each setting."""
        return self.bundle.record.plan


def import_dynunet(
    checkpoint: str | Path, output: str | Path, *, options: DynUNetOptions = DynUNetOptions(), overwrite: bool = False
) -> DynUNetImportResult:
    """Import a Lightning checkpoint of NVIDIA's recipe. The model has the same weights and gives the same logits.

    No code in the checkpoint is run. Settings that the checkpoint does not contain (patch, spacing, normalisation,
    names) come from the task or from ``options``; the reasons in the plan name the source of each.

    Args:
        checkpoint: path of the checkpoint.
        output: folder of the new model.
        options: settings that the checkpoint does not contain.
        overwrite: replace an existing model.

    Raises:
        ModelError: the checkpoint is missing or damaged, would run code, has another network, or contradicts the
            options or the task.
        OptionError: options contradict each other, the weights or the checkpoint.
        OutputError: ``output`` exists and may not be replaced, or it cannot be written.
    """
    path, folder = Path(checkpoint), check_output_path(output)
    with locked_output(folder):
        check_place(folder, overwrite=overwrite)
        member, notes = _make_member(path, options)
        return DynUNetImportResult(bundle=ModelBundle.save(folder, member, overwrite=overwrite), notes=notes)


def _make_member(path: Path, options: DynUNetOptions) -> tuple[TrainedMember, tuple[str, ...]]:
    """Return the model of a checkpoint, and notes for the user."""
    content = load_untrusted_checkpoint(path, allowed=(Namespace,), keys=REQUIRED_KEYS)
    args = RecipeArgs.from_checkpoint(content)
    try:
        weights = DynUNetWeights.from_state_dict(content.get("state_dict", content))
        network = _network(weights, args, options, path)
        state = weights.to_state_dict(network)
    except WeightsMismatchError as problem:
        raise ModelError(
            str(problem), where=path, remedy="use a checkpoint of the recipe whose network is MONAI's DynUNet"
        ) from None
    check_state(state, NetworkTensors.of(network), where=path)
    result = build_recipe_plan(SettingSources.collect(network, args, options, path))
    member = TrainedMember(
        plan=result.plan,
        networks=[state],
        mirror_axes=result.plan.mirrored_axes,
        weights="best" if "dice" in path.stem or path.stem.startswith("best") else "final",
        provenance={
            "decathlete": __version__,
            "torch": torch.__version__,
            "imported": {
                "from": "NVIDIA's nnU-Net for PyTorch" + (", version of 2021" if weights.kind == "recipe2021" else ""),
                "file": path.name,
                "sha256": file_digest(path),
                **_training_progress(content),
            },
        },
    )
    return member, result.notes


def _network(weights: DynUNetWeights, args: RecipeArgs, options: DynUNetOptions, path: Path) -> UNetSpec:
    """Derive the network from the weights and compare it with the options of checkpoint and user."""
    network = weights.network_spec(
        norm=_norm(weights, args, options, path), negative_slope=_negative_slope(weights, args, options, path)
    )
    if problems := [*args.find_contradictions(network), *_find_contradictions(network, options)]:
        remedy = "use the options with which this checkpoint was trained, or another checkpoint"
        raise problems_found(problems, where=path, remedy=remedy, kind=ModelError)
    return network


def _find_contradictions(network: UNetSpec, options: DynUNetOptions) -> Iterator[str]:
    if options.dims not in (None, network.dims):
        yield f"--dim {options.dims}: the network is {network.dims}D"
    if options.norm not in (None, network.norm):
        has = "has" if network.norm == "batch" else "lacks"
        yield f"--norm {options.norm}: the checkpoint {has} the statistics of batch norm"


def _norm(weights: DynUNetWeights, args: RecipeArgs, options: DynUNetOptions, path: Path) -> Norm | None:
    """Choose between instance and group norm, which have the same weights. The recipe's DynUNet has no group norm."""
    if options.norm is not None:
        return options.norm
    if args.norm != "group" or weights.kind == "recipe2021":
        return "group" if args.norm == "group" else None
    raise OptionError(
        "its options name group norm, but the recipe uses instance norm in every DynUNet",
        where=path,
        remedy="use --norm instance, or --norm group (32 groups) if the recipe was changed",
    )


def _negative_slope(weights: DynUNetWeights, args: RecipeArgs, options: DynUNetOptions, path: Path) -> float:
    slope = args.negative_slope
    if options.negative_slope is not None:
        return options.negative_slope
    if slope in (None, RECIPE_SLOPE) or weights.kind == "recipe2021":
        return RECIPE_SLOPE if slope is None else slope
    raise OptionError(
        f"its options name negative_slope {slope}, but the recipe uses {RECIPE_SLOPE} in every DynUNet",
        where=path,
        remedy=f"use --negative-slope {RECIPE_SLOPE}, or {slope} if the recipe was changed",
    )


def _training_progress(content: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Return Lightning's record of the training."""
    keys = ("epoch", "global_step", "pytorch-lightning_version")
    return {key: content[key] for key in keys if isinstance(content.get(key), int | str)}
