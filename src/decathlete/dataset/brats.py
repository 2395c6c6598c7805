"""Whole tumour, core and enhancing of a brain tumour dataset, by the *names* of its labels.

The numbers cannot tell: 2 is the non-enhancing tumour in the Decathlon's Task 01, but the oedema in BraTS 2021. What a
name does not say clearly is asked for rather than guessed.
"""

from __future__ import annotations

import re
from typing import Literal

from decathlete.core.labels import LabelSet
from decathlete.core.regions import Regions
from decathlete.errors import OptionError, problems_found

Part = Literal["oedema", "core", "enhancing"]
"""What a label adds to: the whole tumour alone; the core as well; the enhancing tumour as well."""

_OEDEMA = re.compile(r"o?edema\w*|\bed\b|\bsnfh\b|(surrounding )?(non ?enhancing )?flair hyperintensity")
_DEAD = re.compile(r"necro(sis|tic)\w*|\bncr\b|\bnetc?\b|\b(non|not|un) ?((contrast|gd|gadolinium) ?)?enhanc\w*")
"""Necrosis, and tumour that does not enhance."""
_ENHANCING = re.compile(r"enhanc\w*|\bet\b")
_SPARING = re.compile(r"\b(no|without|except|excluding)\b")
"""A name that says what a label is *not*."""
_REMEDY = "say which values make each region: --regions 'whole tumour=...;core=...;enhancing=...'"


def brats_regions(labels: LabelSet) -> Regions:
    """The three regions, outer ones first.

    Raises:
        OptionError: the names do not decide; every name that is in the way is given.
    """
    parts = {c.value: part_of(c.name) for c in labels.foreground}
    problems = [
        f"label {c.value} is called {c.name!r}, which is not clearly one of oedema, necrosis, non-enhancing, enhancing"
        for c in labels.foreground
        if parts[c.value] is None
    ]
    if not problems:  # else the missing part may be the one that is not understood
        found = set(parts.values())
        lacking = [part for part in ("oedema", "core", "enhancing") if part not in found]
        words = {"oedema": "oedema", "core": "necrosis or non-enhancing tumour", "enhancing": "enhancing tumour"}
        problems = [f"no label is called {words[part]}" for part in lacking]
    if problems:
        remedy = _REMEDY + ("; or leave --brats out: dataset.json declares regions" if labels.regions else "")
        raise problems_found(problems, where="--brats", remedy=remedy, kind=OptionError, code="E-OPTION-REGIONS")
    return {
        "whole tumour": tuple(parts),
        "core": tuple(value for value, part in parts.items() if part != "oedema"),
        "enhancing": tuple(value for value, part in parts.items() if part == "enhancing"),
    }


def part_of(name: str) -> Part | None:
    """What a label's name says; ``None`` where it says nothing, or two things that exclude each other."""
    text, n_oedema = _OEDEMA.subn(" ", _plain(name))
    text, n_dead = _DEAD.subn(" ", text)
    enhances, is_core = bool(_ENHANCING.search(text)), n_dead > 0 or "core" in text.split()
    if _SPARING.search(text) or (n_oedema and (enhances or is_core)) or (enhances and n_dead):
        return None
    if n_oedema:
        return "oedema"
    if enhances:
        return "enhancing"
    return "core" if is_core else None


def _plain(name: str) -> str:
    """Small letters in words: ``NonEnhancing_Tumour`` -> ``non enhancing tumour``."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(re.findall(r"[a-zà-ÿœ0-9]+", apart.casefold())).replace("œ", "oe").replace("ö", "oe")
