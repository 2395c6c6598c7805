"""Find files that were copied by mistake: equal images of two cases, equal channels, one label map for two images."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.schema import Schema
from decathlete.dataset.check_report import Problem
from decathlete.dataset.given_splits import name_some
from decathlete.io.volumes import smallest_integer

_CODE = "E-DATASET-DUPLICATES"


class CaseDigests(Schema):
    """Digests of the voxels of a case.

    Attributes:
        channels: one for each channel that has several values, by its number; empty if they are not compared.
        label: ``None`` if the label map is missing or empty.
    """

    image: str | None = None
    channels: dict[int, str] = {}
    label: str | None = None


def digest_case(
    channels_ZYX: Sequence[NDArray[Any]], label_ZYX: NDArray[Any] | None, *, compare_channels: bool
) -> CaseDigests:
    """Return the digests of a case whose images were read.

    Args:
        compare_channels: whether the channels should differ, other than those of a grey picture in three channels.
    """
    digests = [_digest(channel_ZYX) for channel_ZYX in channels_ZYX]
    compared = enumerate(channels_ZYX) if compare_channels and len(channels_ZYX) > 1 else ()
    label = None
    if label_ZYX is not None and label_ZYX.any():
        label = _digest(label_ZYX.astype(smallest_integer(label_ZYX), copy=False))  # files may differ in their type
    return CaseDigests(
        image=" ".join(digests),
        channels={c: digests[c] for c, channel_ZYX in compared if channel_ZYX.min() != channel_ZYX.max()},
        label=label,
    )


def _digest(array_ZYX: NDArray[Any]) -> str:
    total = hashlib.blake2b(str(array_ZYX.shape).encode(), digest_size=16)
    total.update(np.ascontiguousarray(array_ZYX).data)
    return total.hexdigest()


def find_duplicates(channels: Sequence[str], digests: Mapping[str, CaseDigests]) -> list[Problem]:
    """Return a problem for each group of equal images, of equal channels, and of equal label maps of unlike images.

    Args:
        channels: names of the channels.
        digests: by ``train ID`` and ``test ID``.
    """
    images = [
        _problem(
            keys,
            f"the images of {', '.join(map(_name, keys))} are the same, voxel for voxel",
            "keep one of them, otherwise the same image may be trained on and held out",
        )
        for keys in _groups({key: found.image for key, found in digests.items()})
    ]
    labels = [
        _problem(
            keys,
            f"the label maps of {name_some([_name(key) for key in keys])} are the same, voxel for voxel, although "
            "their images differ",
            "make sure that no label map was copied to another case",
        )
        for keys in _groups({key: found.label for key, found in digests.items()})
        if len({digests[key].image for key in keys}) > 1
    ]
    return images + _equal_channels(channels, digests) + labels


def _equal_channels(channels: Sequence[str], digests: Mapping[str, CaseDigests]) -> list[Problem]:
    keys_of: dict[tuple[int, int], list[str]] = defaultdict(list)
    for key, found in digests.items():
        for one, other in combinations(sorted(found.channels), 2):
            if found.channels[one] == found.channels[other]:
                keys_of[one, other].append(key)
    return [
        _problem(
            keys,
            f"the channels {channels[one]} and {channels[other]} are the same, voxel for voxel, in {len(keys)} "
            f"of {len(digests)} cases: {name_some([_name(key) for key in keys])}",
            "make sure that each file is the channel that its name says",
        )
        for (one, other), keys in sorted(keys_of.items())
    ]


def _groups(digests: Mapping[str, str | None]) -> list[list[str]]:
    keys_of: dict[str, list[str]] = defaultdict(list)
    for key, digest in digests.items():
        if digest is not None:
            keys_of[digest].append(key)
    return [keys for keys in keys_of.values() if len(keys) > 1]


def _name(key: str) -> str:
    part, case_id = key.split(" ", 1)
    return case_id if part == "train" else f"{case_id} (test)"


def _problem(keys: Sequence[str], message: str, remedy: str) -> Problem:
    names = tuple(map(_name, keys))
    case_id = names[0] if len(names) == 1 else None  # the message names several cases
    return Problem(severity="warning", code=_CODE, case_id=case_id, cases=names, message=message, remedy=remedy)
