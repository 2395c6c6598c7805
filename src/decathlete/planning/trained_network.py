"""Give a plan the network of a trained model, so that its weights can be used."""

from __future__ import annotations

from decathlete.planning.explain import times
from decathlete.planning.network_spec import NetworkSpec
from decathlete.planning.plan import Plan
from decathlete.planning.topology import round_up


def sets_network(plan: Plan) -> bool:
    """Return whether the user has set the network of a plan, or a part of it."""
    return any(field.partition(".")[0] == "network" for field in plan.user_set)


def with_trained_network(plan: Plan, network: NetworkSpec, *, model: str) -> Plan:
    """Return the plan with the network of a trained model, which no later step of planning changes.

    Input channels and outputs stay the plan's. The patch is rounded up to a multiple of the network's strides. If the
    user set the network, the plan is returned as it is.

    Args:
        network: of the same dimensions as the plan.
        model: where it is from, for the reasons.
    """
    if sets_network(plan):
        return plan
    network = network.revised(in_channels=plan.network.in_channels, out_channels=plan.network.out_channels)
    patch = [round_up(size, divisor) for size, divisor in zip(plan.patch_size, network.divisor, strict=True)]
    if network.divisor != plan.network.divisor and tuple(patch) == network.divisor:
        patch[-1] *= 2  # instance norm needs more than one voxel in the coarsest feature map
    reasons = {field: why for field, why in plan.reasons.items() if not field.startswith("network.")}
    reasons["network.strides"] = f"the network of the pretrained model {model}"
    if tuple(patch) != plan.patch_size:
        planned = plan.reasons.get("patch_size", "as planned")
        reasons["patch_size"] = (
            f"{planned}; rounded up from {times(plan.patch_size)} to a multiple of {times(network.divisor)}, the "
            "product of the strides of the pretrained model"
        )
    return plan.revised(
        network=network,
        patch_size=tuple(patch),
        reasons=reasons,
        user_set=plan.user_set | {"network": f"--pretrained {model}"},
    )
