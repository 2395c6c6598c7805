"""Start a training from the weights of a trained model: channels and classes are matched by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from decathlete.core.choices import Configuration
from decathlete.errors import ModelError, OptionError
from decathlete.models.bundle import BundleMember, ModelBundle
from decathlete.networks.build import build_network
from decathlete.networks.stages import first_stages, freeze_stages, tensor_names
from decathlete.planning.network_spec import Dims
from decathlete.planning.plan import Plan
from decathlete.planning.trained_network import with_trained_network
from decathlete.training.config import TrainConfig
from decathlete.training.reporting.records import Fold
from decathlete.training.weight_matching import NameMatch, input_names

_LISTED = 5


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What a network took over from a trained model.

    Attributes:
        carried: names of the tensors that have values of the trained model, wholly or for some channels or classes.
        fresh: names of the tensors that the trained model lacks or has in another shape.
        unknown: names of the carried tensors that have values of the trained model only in part -> the channels and
            classes that the model does not know.
        lines: a summary for the user.
    """

    carried: tuple[str, ...]
    fresh: tuple[str, ...]
    unknown: Mapping[str, tuple[str, ...]]
    lines: tuple[str, ...]


def open_pretrained(folder: Path, plan: Plan) -> BundleMember:
    """Return the member of a model whose network has the plan's dimensions and architecture.

    Of several, one with the plan's configuration is preferred: of a cascade, the stage that is trained.

    Raises:
        ModelError: there is no model, or it has no such member.
    """
    return _find_member(
        folder, dims=plan.dims, architecture=plan.network.architecture, configuration=plan.configuration_name
    )


def _find_member(folder: Path, *, dims: Dims, architecture: str, configuration: Configuration) -> BundleMember:
    members = ModelBundle.load(folder).members
    fitting = [m for m in members if (m.plan.dims, m.plan.network.architecture) == (dims, architecture)]
    if not fitting:
        found = ", ".join(f"{m.plan.dims}D {m.plan.network.architecture}" for m in members)
        raise ModelError(
            f"has networks of other kinds ({found}) than the training ({dims}D {architecture})",
            where=folder,
            remedy=f"use a model with a {dims}D {architecture} network, or train only what this model has networks for "
            "(--dim, --configurations, --architecture)",
            code="E-MODEL-UNSUPPORTED",
        )
    return next((m for m in fitting if m.plan.configuration_name == configuration), fitting[0])


def check_pretrained(
    config: TrainConfig,
    *,
    configuration: Configuration,
    dims: Dims,
    architecture: str,
    inputs: Sequence[str],
    has_own_network: bool,
) -> None:
    """Check what is known before the training: that a network of the model to start from can be trained further.

    Args:
        config: settings of the training, with the model to start from, if any.
        inputs: names of the input channels, as far as they are known.
        has_own_network: the user sets the network, so that it is not the model's.

    Raises:
        ModelError: there is no model, or it has no network of this kind.
        OptionError: stages are not to be trained that the model does not have, or has no weights of ``inputs`` for.
    """
    if config.pretrained is None:
        return
    folder = Path(config.pretrained)
    plan = _find_member(folder, dims=dims, architecture=architecture, configuration=configuration).plan
    if not config.freeze_stages:
        return
    known = input_names(plan)
    if new := [name for name in inputs if name not in known]:
        raise _new_channels_error(config.freeze_stages, new, model=folder)
    if not has_own_network:
        with torch.device("meta"):
            first_stages(build_network(plan.network), config.freeze_stages)


def network_replacement(config: TrainConfig, plan: Plan) -> Callable[[Plan], Plan]:
    """Return what gives plans like ``plan`` the network that is trained: that of the model to start from, if any.

    The model is read once. A network that the user set stays as it is.

    Raises:
        ModelError: see :func:`open_pretrained`.
    """
    if config.pretrained is None:
        return lambda other: other
    network = open_pretrained(Path(config.pretrained), plan).plan.network
    return partial(with_trained_network, network=network, model=config.pretrained)


def start_from_pretrained(network: nn.Module, plan: Plan, config: TrainConfig) -> Transfer:
    """Put the weights of the model to start from into ``network``, and exclude the first stages from training.

    Args:
        network: built by ``plan``, with random weights.
        config: settings of the training; ``pretrained`` is set.

    Raises:
        ModelError: as of :func:`load_pretrained`.
        OptionError: there are no such stages, or weights in them are not the model's.
    """
    folder = Path(config.pretrained or "")
    transfer = load_pretrained(network, plan, folder)
    _check_frozen(network, config.freeze_stages, transfer, model=folder)
    freeze_stages(network, config.freeze_stages)
    return transfer


def load_pretrained(network: nn.Module, plan: Plan, folder: Path) -> Transfer:
    """Put the weights of a trained model into ``network``, in place.

    Tensors of the same name and shape are copied. Weights of input channels and outputs are copied by name. An input
    channel that the model does not know starts from the mean of its channels, a class from its random weights.

    Args:
        network: built by ``plan``, with random weights.

    Raises:
        ModelError: see :func:`open_pretrained`, or no weight fits.
    """
    member = open_pretrained(folder, plan)
    trained = member.build(number=0).state_dict()
    names = NameMatch.of(member.plan, plan)
    state = network.state_dict()
    carried: list[str] = []
    fresh: list[str] = []
    for name, value in state.items():
        found = names.fit(name, trained.get(name), value)
        (fresh if found is None else carried).append(name)
        if found is not None:
            with torch.no_grad():
                value.copy_(found)
    n_carried = sum(state[name].numel() for name in carried)
    if not n_carried:
        raise ModelError(
            "has no weight that fits the network of this training",
            where=folder,
            remedy="leave out the options that change the network (--block, --filters, --set network...)",
            code="E-MODEL-UNSUPPORTED",
        )
    share = n_carried / sum(value.numel() for value in state.values())
    lines = [
        f"pretrained: {len(carried)} of {len(state)} tensors ({share:.0%} of the weights) from {folder}, "
        f"network {member.record.name}",
        *names.describe(),
    ]
    if fresh:
        lines.append(f"not carried over (absent or of another shape): {_listed(fresh)}")
    unknown = {name: new for name in carried if (new := names.unknown(name))}
    return Transfer(carried=tuple(carried), fresh=tuple(fresh), unknown=unknown, lines=tuple(lines))


def describe_seen_cases(plan: Plan, config: TrainConfig, *, dataset_digest: str, fold: Fold) -> str | None:
    """Say that the model to start from has been trained on cases that ``fold`` holds out; ``None``: it is not known.

    Raises:
        ModelError: see :func:`open_pretrained`.
    """
    folder = Path(config.pretrained or "")
    member = open_pretrained(folder, plan).record
    trained = member.networks[0].fold
    if fold == "all" or trained == str(fold) or member.provenance.get("dataset_digest") != dataset_digest:
        return None
    source = "on all cases" if trained == "all" else "as another fold"
    return (
        f"{folder} was trained {source} of the same dataset and has seen cases that fold {fold} holds out, so that "
        f"their scores will be too high; start fold {fold} from a model of fold {fold}, or of another dataset"
    )


def _check_frozen(network: nn.Module, n_stages: int, transfer: Transfer, *, model: Path) -> None:
    """Check that all weights that are not trained are the model's.

    Raises:
        OptionError: some are not, or there are no such stages.
    """
    for number, modules in enumerate(first_stages(network, n_stages), start=1):
        names = tensor_names(network, modules)
        if fresh := [name for name in names if name in transfer.fresh]:
            fewer = f"use --freeze-stages {number - 1}" if number > 1 else "leave out --freeze-stages"
            raise OptionError(
                f"--freeze-stages {n_stages}: stage {number} of the encoder would keep random weights: "
                f"{_listed(fresh)} is not in {model}, or has another shape there",
                remedy=f"{fewer}, or leave out the options that change the network (--filters, --block, "
                "--set network...)",
                code="E-OPTION-CONFLICT",
            )
        if new := dict.fromkeys(channel for name in names for channel in transfer.unknown.get(name, ())):
            raise _new_channels_error(n_stages, list(new), model=model)


def _new_channels_error(n_stages: int, channels: Sequence[str], *, model: Path) -> OptionError:
    return OptionError(
        f"--freeze-stages {n_stages}: {model} has no weights for {', '.join(channels)}, and the first stage, which "
        "would learn them, is not trained",
        remedy="leave out --freeze-stages; or use only channels that the model was trained with, with the same names",
        code="E-OPTION-CONFLICT",
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
