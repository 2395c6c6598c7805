"""Checkpoints of NVIDIA's nnU-Net for PyTorch, whose network is MONAI's DynUNet, as models of ours."""

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
from decathlete.errors import ModelError, OptionError, problems_found
from decathlete.interop.dynunet_names import Misfit
from decathlete.interop.dynunet_options import DynUNetOptions
from decathlete.interop.dynunet_weights import DynUNetWeights
from decathlete.interop.recipe_args import RecipeArgs
from decathlete.interop.recipe_plan import recipe_plan
from decathlete.interop.recipe_sources import Sources
from decathlete.interop.safe_checkpoint import load_from_outside
from decathlete.models.bundle import ModelBundle, TrainedMember, check_place
from decathlete.networks.unet_spec import UNetSpec
from decathlete.planning.plan import Plan
from decathlete.version import __version__

RECIPE_SLOPE = 0.01
"""Of the leaky ReLUs in every DynUNet that the recipe makes, whatever its option says."""
NEEDED = ("state_dict", "hyper_parameters")
"""What an import reads of a Lightning checkpoint."""


@dataclass(frozen=True, kw_only=True)
class ImportedModel:
    """A model that came from outside.

    Attributes:
        notes: what its user should know before trusting it, a sentence each.
    """

    bundle: ModelBundle
    notes: tuple[str, ...]

    @property
    def plan(self) -> Plan:
        """With the reason for each setting: where it is from."""
        return self.bundle.record.plan


def import_dynunet(
    checkpoint: str | Path, output: str | Path, *, options: DynUNetOptions = DynUNetOptions(), overwrite: bool = False
) -> ImportedModel:
    """Make a model of ours of a Lightning checkpoint of NVIDIA's recipe: the same weights, the same logits.

    Nothing in the checkpoint is run. Settings that it does not hold (patch, spacing, normalisation, names) come from
    the task or ``options``; the plan's reasons say which from where.

    Args:
        output: folder of the model.
        overwrite: replace the model that is there.

    Raises:
        ModelError: missing or damaged, asking for code to be run, of another network, or not what options and task say.
        OptionError: options that contradict each other, the weights or the checkpoint.
        OutputError: something is at ``output`` that may not be replaced, or it cannot be written.
    """
    path = Path(checkpoint)
    check_place(Path(output), overwrite=overwrite)
    content = load_from_outside(path, allowed=(Namespace,), keys=NEEDED)
    args = RecipeArgs.read(content)
    try:
        weights = DynUNetWeights.find(content.get("state_dict", content))
        network = _network(weights, args, options, path)
        state = weights.ours(network)
    except Misfit as problem:
        raise ModelError(
            str(problem), where=path, remedy="give a checkpoint of the recipe whose network is MONAI's DynUNet"
        ) from None
    found = recipe_plan(Sources.find(network, args, options, path))
    member = TrainedMember(
        plan=found.plan,
        networks=[state],
        mirror_axes=found.plan.mirrored_axes,
        weights="best" if "dice" in path.stem or path.stem.startswith("best") else "final",
        provenance={
            "decathlete": __version__,
            "torch": torch.__version__,
            "imported": {
                "from": "NVIDIA's nnU-Net for PyTorch" + (", version of 2021" if weights.kind == "recipe2021" else ""),
                "file": path.name,
                "sha256": file_digest(path),
                **_training(content),
            },
        },
    )
    return ImportedModel(bundle=ModelBundle.save(Path(output), member, overwrite=overwrite), notes=found.notes)


def _network(weights: DynUNetWeights, args: RecipeArgs, options: DynUNetOptions, path: Path) -> UNetSpec:
    """The weights' network, held against what checkpoint and user say about it."""
    network = weights.spec(
        norm=_norm(weights, args, options, path), negative_slope=_negative_slope(weights, args, options, path)
    )
    if problems := [*args.contradictions(network), *_contradictions(network, options)]:
        remedy = "give the options of this checkpoint's own training, or a checkpoint that is of one piece"
        raise problems_found(problems, where=path, remedy=remedy, kind=ModelError)
    return network


def _contradictions(network: UNetSpec, options: DynUNetOptions) -> Iterator[str]:
    if options.dims not in (None, network.dims):
        yield f"--dim {options.dims}: the network is {network.dims}D"
    if options.norm not in (None, network.norm):
        has = "has" if network.norm == "batch" else "lacks"
        yield f"--norm {options.norm}: the checkpoint {has} the statistics of batch norm"


def _norm(weights: DynUNetWeights, args: RecipeArgs, options: DynUNetOptions, path: Path) -> Norm | None:
    """Instance or group norm, whose weights look alike. The recipe's DynUNet cannot have had group norm."""
    if options.norm is not None:
        return options.norm
    if args.norm != "group" or weights.kind == "recipe2021":
        return "group" if args.norm == "group" else None
    raise OptionError(
        "its options say group norm, which the recipe never gave a DynUNet (it took instance norm)",
        where=path,
        remedy="say what it is: --norm instance, or --norm group (32 groups) if the recipe was changed",
    )


def _negative_slope(weights: DynUNetWeights, args: RecipeArgs, options: DynUNetOptions, path: Path) -> float:
    said = args.negative_slope
    if options.negative_slope is not None:
        return options.negative_slope
    if said in (None, RECIPE_SLOPE) or weights.kind == "recipe2021":
        return RECIPE_SLOPE if said is None else said
    raise OptionError(
        f"its options say negative_slope {said}, but the recipe gave every DynUNet {RECIPE_SLOPE}",
        where=path,
        remedy=f"say what it is: --negative-slope {RECIPE_SLOPE}, or {said} if the recipe was changed",
    )


def _training(content: Mapping[str, Any]) -> dict[str, JsonValue]:
    """What Lightning notes about the training."""
    keys = ("epoch", "global_step", "pytorch-lightning_version")
    return {key: content[key] for key in keys if isinstance(content.get(key), int | str)}
