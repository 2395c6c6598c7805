"""Policies: named strengths of the whole augmentation."""

from __future__ import annotations

from typing import Any, Literal, get_args

Policy = Literal["none", "light", "standard", "heavy"]
POLICIES: tuple[str, ...] = get_args(Policy)


def policy_settings(policy: str) -> dict[str, dict[str, Any]]:
    """Return the settings in which a policy differs from nnU-Net's, by transform.

    ``none`` changes nothing in a patch. ``light`` is for short trainings and images that were all acquired in the
    same way: small rotations, mirroring, brightness, contrast and a little noise. ``standard`` is nnU-Net's
    augmentation. ``heavy`` is for few cases, several scanners and long trainings: wider ranges, more often, with cutout
    and loss of channels.

    Raises:
        ValueError: there is no such policy.
    """
    if policy not in POLICIES:
        raise ValueError(f"there is no policy {policy!r}; choose among {', '.join(POLICIES)}")
    off = {"enabled": False}
    if policy == "none":
        from decathlete.augmentation.config import DEFAULT_TRANSFORMS

        return {name: dict(off) for name in DEFAULT_TRANSFORMS}
    if policy == "light":
        return {
            "rotation": {"probability": 0.1, "degrees": 10.0},
            "scaling": {"probability": 0.1, "between": (0.85, 1.15)},
            "noise": {"probability": 0.05, "between": (0.0, 0.1)},
            "blur": dict(off),
            "brightness": {"probability": 0.1, "between": (0.9, 1.1)},
            "contrast": {"probability": 0.1, "between": (0.9, 1.1)},
            "low_resolution": dict(off),
            "gamma_inverted": dict(off),
            "gamma": {"probability": 0.1, "between": (0.85, 1.2)},
        }
    if policy == "heavy":
        return {
            "rotation": {"probability": 0.4},
            "scaling": {"probability": 0.4, "between": (0.6, 1.6)},
            "noise": {"probability": 0.2},
            "blur": {"probability": 0.3, "between": (0.5, 1.5)},
            "brightness": {"probability": 0.3, "between": (0.6, 1.4)},
            "contrast": {"probability": 0.3, "between": (0.5, 1.5)},
            "low_resolution": {"probability": 0.35},
            "gamma": {"probability": 0.5, "between": (0.6, 1.8)},
            "gamma_inverted": {"probability": 0.2, "between": (0.6, 1.8)},
            "cutout": {"probability": 0.2},
            "channel_dropout": {"probability": 0.1},
        }
    return {}
