"""Pairs of structures on the left and the right of the body, whose labels change sides when an image is mirrored.

Flips along the axis from left to right make a left kidney look like a right one. With pairs, the labels of a flipped
patch are swapped in training, and the outputs of a flipped window are swapped in test-time augmentation, so that sides
are learned although training mirrors.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from decathlete.core.labels import LabelSet, Region
from decathlete.core.log_once import log_once
from decathlete.errors import OptionError, problems_found

log = logging.getLogger(__name__)

MirrorPair = tuple[str, str]
"""Names of the class on one side and of its partner on the other side."""
NONE = "none"
REMEDY = "write e.g. --mirror-pairs 'left kidney=right kidney;left lung=right lung', or --mirror-pairs none"

_Side = Literal["left", "right"]
_LEFT = ("left", "l", "lt", "lh", "links", "linke", "linker", "linkes", "gauche", "izquierda", "izquierdo", "sinistra",
         "sinistro", "sinister", "sin", "esquerda", "esquerdo")  # fmt: skip
_RIGHT = ("right", "r", "rt", "rh", "rechts", "rechte", "rechter", "rechtes", "droite", "droit", "derecha", "derecho",
          "destra", "destro", "dexter", "dex", "direita", "direito")  # fmt: skip
_SIDES = dict[str, _Side]()
_SIDES.update(dict.fromkeys(_LEFT, "left"))
_SIDES.update(dict.fromkeys(_RIGHT, "right"))
_HEART = frozenset({"heart", "cardiac", "atrium", "atrial", "ventricle", "ventricular", "myocardium"})
"""Chambers of the heart have sides in their names, but do not mirror each other."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-zäöüß]+|\d+")


@dataclass(frozen=True, kw_only=True)
class SideSwap:
    """What a flip along the axis from left to right does to labels and outputs.

    Attributes:
        axis: axis of the patch that runs from left to right, from 0.
        indices: of each class index of a label map, 0..255, the index after the flip.
        outputs: of each output channel of the network, the channel that a flipped image shows it in.
        inputs: of each input channel, the channel that takes its place in a flipped image: the previous stage's masks
            of paired structures change places. Empty: all channels keep their places.
    """

    axis: int
    indices: tuple[int, ...]
    outputs: tuple[int, ...]
    inputs: tuple[int, ...] = ()

    @property
    def swaps_inputs(self) -> bool:
        """Whether input channels change places."""
        return self.inputs != tuple(range(len(self.inputs)))


def find_mirror_pairs(labels: LabelSet) -> tuple[MirrorPair, ...]:
    """Find the classes whose names differ only in the side (``left kidney`` and ``right kidney``), the left one first.

    Sides are whole words (left, l, links, gauche, ...), anywhere in the name. A name that occurs twice on one side has
    no partner. Chambers of the heart are left out. So are pairs of which a region contains one side and no region the
    other, with a warning that names the region.

    >>> find_mirror_pairs(LabelSet.from_names(["Kidney_L", "Kidney_R", "right ventricle", "left ventricle"]))
    (('Kidney_L', 'Kidney_R'),)
    """
    names: dict[tuple[str, ...], dict[_Side, list[str]]] = {}
    for label in labels.foreground:
        words = tuple(word.lower() for word in _WORD.findall(label.name))
        sides = [word for word in words if word in _SIDES]
        if len(sides) != 1 or (_HEART & set(words) and "lateral" not in words):
            continue
        stem = tuple(word for word in words if word not in _SIDES)
        names.setdefault(stem, {}).setdefault(_SIDES[sides[0]], []).append(label.name)
    both = [sides for sides in names.values() if len(sides) == 2 and all(len(found) == 1 for found in sides.values())]
    return _symmetric_pairs([(sides["left"][0], sides["right"][0]) for sides in both], labels)


def _symmetric_pairs(pairs: Sequence[MirrorPair], labels: LabelSet) -> tuple[MirrorPair, ...]:
    """Return the pairs without those that separate a region from its mirror image, and log a warning about these."""
    value_of = {c.name: c.value for c in labels.classes}
    kept, regions = list(pairs), dict[str, None]()
    while separated := _separated_regions(kept, labels):
        regions |= dict.fromkeys(region.name for region in separated)
        kept = [
            pair
            for pair in kept
            if not any(len({value_of[name] for name in pair} & set(region.values)) == 1 for region in separated)
        ]
    if regions:
        listed = ", ".join(f"{first} and {second}" for first, second in pairs if (first, second) not in kept)
        log_once(
            log,
            f"no mirror pairs: {listed}. One side is in {', '.join(regions)}, and no region contains the other, so the "
            "model may confuse them in mirrored patches: add the region of the other side, or leave the axis from left "
            "to right out of --set mirror_axes=...",
        )
    return tuple(kept)


def parse_mirror_pairs(text: str, labels: LabelSet) -> tuple[MirrorPair, ...]:
    """Parse ``left kidney=right kidney;3=4``: names or values of classes. ``none`` gives no pairs.

    Raises:
        OptionError: the text is not valid or does not fit the labels; lists every problem.
    """
    if text.strip().lower() == NONE:
        return ()
    by_text = {str(c.value): c.name for c in labels.foreground} | {c.name: c.name for c in labels.foreground}
    pairs, problems = [], []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        sides = [side.strip() for side in part.split("=")]
        if len(sides) != 2 or not all(sides):
            problems.append(f"{part!r} is not a pair")
            continue
        pairs.append((by_text.get(sides[0], sides[0]), by_text.get(sides[1], sides[1])))
    if not pairs and not problems:
        problems.append("there is no pair")
    problems += pair_problems(pairs, labels)
    if problems:
        declared = ", ".join(f"{c.value} {c.name}" for c in labels.foreground)
        raise problems_found(
            problems,
            where="--mirror-pairs",
            remedy=f"{REMEDY}; the dataset declares: {declared}",
            kind=OptionError,
            code="E-OPTION-MIRROR-PAIRS",
        )
    return tuple(pairs)


def pair_problems(pairs: Sequence[MirrorPair], labels: LabelSet) -> list[str]:
    """Return why labels cannot have these pairs; each class is in one pair at most."""
    names = {c.name for c in labels.foreground}
    counts = Counter(name for pair in pairs for name in pair)
    problems = [f"class {name!r} is not declared" for name in counts if name not in names]
    problems += [f"class {name!r} is {n} times in the pairs" for name, n in counts.items() if n > 1]
    return problems or [
        f"region {region.name!r} contains one side of a pair, and no region contains the other"
        for region in _separated_regions(pairs, labels)
    ]


def _separated_regions(pairs: Sequence[MirrorPair], labels: LabelSet) -> list[Region]:
    """Return the regions whose mirror images are no regions."""
    partners = _swapped_structures(labels, _partners(pairs))
    return [region for region, partner in zip(labels.structures, partners, strict=True) if partner is None]


def make_side_swap(
    labels: LabelSet, pairs: Sequence[MirrorPair], *, axis: int, first_mask: int | None = None
) -> SideSwap:
    """Return what a flip along ``axis`` does, for pairs that fit the labels.

    Args:
        first_mask: of a cascade: the input channel with the previous stage's mask of the first structure; those of the
            others follow.
    """
    partners = _partners(pairs)
    names = [c.name for c in labels.classes]
    classes = [names.index(partners.get(name, name)) for name in names]
    indices = dict(enumerate((*classes, *range(len(classes), 256))))
    for members in labels.unannotated:
        indices[labels.unannotated_index(members)] = labels.unannotated_index(_swapped(members, labels, partners))
    structures = [index for index in _swapped_structures(labels, partners) if index is not None]
    first = labels.n_background_outputs
    masks = [] if first_mask is None else [*range(first_mask), *(first_mask + index for index in structures)]
    return SideSwap(
        axis=axis,
        indices=tuple(indices[index] for index in range(256)),
        outputs=(*range(first), *(first + index for index in structures)),
        inputs=tuple(masks),
    )


def with_swapped_annotations(labels: LabelSet, pairs: Sequence[MirrorPair]) -> LabelSet:
    """Return labels that also have the sets of unannotated classes that flips from left to right make.

    Raises:
        OptionError: there are more sets than label maps can tell apart.
    """
    sets = (*labels.unannotated, *missing_swapped_annotations(labels, pairs))
    if len(sets) > labels.max_unannotated:
        raise OptionError(
            f"there are {len(labels.unannotated)} different sets of annotated classes, with those of mirrored patches "
            f"{len(sets)}; with {labels.n_classes} classes at most {labels.max_unannotated} are possible",
            where="--mirror-pairs",
            remedy="use --mirror-pairs none, or annotate both sides of paired classes in the same cases",
            code="E-OPTION-MIRROR-PAIRS",
        )
    return labels.revised(unannotated=sets)


def missing_swapped_annotations(labels: LabelSet, pairs: Sequence[MirrorPair]) -> list[tuple[int, ...]]:
    """Return the sets of unannotated classes that flips from left to right make and ``labels`` does not have.

    Args:
        pairs: pairs that fit the labels.
    """
    partners = _partners(pairs)
    swapped = {_swapped(members, labels, partners) for members in labels.unannotated}
    return sorted(swapped - set(labels.unannotated))


def _swapped(values: Sequence[int], labels: LabelSet, partners: dict[str, str]) -> tuple[int, ...]:
    """Return the values of the partners of classes, ascending."""
    value_of = {c.name: c.value for c in labels.classes}
    return tuple(sorted(value_of[partners.get(c.name, c.name)] for c in labels.classes if c.value in values))


def _partners(pairs: Iterable[MirrorPair]) -> dict[str, str]:
    """Return the partner of each class, in both directions."""
    return {name: partner for first, second in pairs for name, partner in ((first, second), (second, first))}


def _swapped_structures(labels: LabelSet, partners: dict[str, str]) -> list[int | None]:
    """Return the number of the structure that each structure becomes; ``None``: there is no such structure."""
    value_of = {c.name: c.value for c in labels.classes}
    swapped = {c.value: value_of.get(partners.get(c.name, c.name), c.value) for c in labels.classes}
    sets = [frozenset(structure.values) for structure in labels.structures]
    targets = [frozenset(swapped[value] for value in values) for values in sets]
    return [sets.index(target) if target in sets else None for target in targets]
