"""What the user's options make of the planned network, and the reasons that they leave in the plan."""

from __future__ import annotations

from decathlete.planning.explain import BY_HAND
from decathlete.planning.network_spec import NetworkSpec
from decathlete.planning.options import PlanOptions
from decathlete.planning.topology import Pooling, default_heads

WIDE_FEATURES = (64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Of ``wide_encoder``: wider at full resolution, and growing more slowly than by doubling."""


def features_by_hand(options: PlanOptions) -> tuple[int, ...]:
    """Channels of each stage at most, if the options say so; else nothing."""
    return WIDE_FEATURES if options.wide_encoder else options.filters


def pooling_of(options: PlanOptions) -> Pooling:
    """How far to pool: at most ``depth`` times, and no deeper than there are ``filters``."""
    limits = [options.depth + 1] if options.depth is not None else []
    limits += [len(options.filters)] if options.filters else []
    return Pooling(min_edge=options.min_fmap, most_stages=min(limits, default=None))


def shaped(network: NetworkSpec, options: PlanOptions) -> NetworkSpec:
    """``network`` with the features, the slope and the heads that the options ask for."""
    n = network.n_stages
    heads = default_heads(n) if options.heads is None else min(options.heads, n - 1)
    return network.revised(
        features=features_by_hand(options)[:n] or network.features,
        negative_slope=options.negative_slope,
        heads=heads if options.deep_supervision else 1,
    )


def why_by_hand(options: PlanOptions) -> dict[str, str]:
    """Field of the plan -> reason, for what the options ask for other than the planner would choose."""
    plain = PlanOptions()

    def flag(name: str, value: object) -> list[str]:
        return (
            [] if getattr(options, name) == getattr(plain, name) else [f"--{name.replace('_', '-')} {value}".rstrip()]
        )

    flags = {
        "network.strides": flag("depth", options.depth) + flag("min_fmap", options.min_fmap),
        "network.features": flag("filters", ",".join(map(str, options.filters))) + flag("wide_encoder", ""),
        "network.heads": flag("heads", options.heads) + ([] if options.deep_supervision else ["--no-deep-supervision"]),
        "network.negative_slope": flag("negative_slope", options.negative_slope),
        "network.block": flag("block", options.block),
        "network.norm": flag("norm", options.norm),
    }
    return {field: f"{BY_HAND} ({' '.join(given)})" for field, given in flags.items() if given}
