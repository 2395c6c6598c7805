"""The regions whole tumour, core and enhancing of a brain tumour dataset, derived from the *names* of its labels.

The values do not decide: 2 is the non-enhancing tumour in the Decathlon's Task 01, but the oedema in BraTS 2021. An
ambiguous name is an error; it is never guessed.
"""

from __future__ import annotations

import re
from typing import Literal

from decathlete.core.labels import LabelSet
from decathlete.core.regions import Regions
from decathlete.errors import OptionError, problems_found

Part = Literal["oedema", "core", "enhancing"]
"""Innermost region of a label: only the whole tumour (oedema), the core, or the enhancing tumour."""

_OEDEMA = re.compile(r"o?edema\w*|\bed\b|\bsnfh\b|(surrounding )?(non ?enhancing )?flair hyperintensity")
_NON_ENHANCING = re.compile(
    r"necro(sis|tic)\w*|\bncr\b|\bnetc?\b|\b(non|not|un) ?((contrast|gd|gadolinium) ?)?enhanc\w*"
)
"""Necrosis, and tumour that does not enhance."""
_ENHANCING = re.compile(r"enhanc\w*|\bet\b")
_NEGATION = re.compile(r"\b(no|without|except|excluding)\b")
"""Words in names that say what a label is *not*."""
_REMEDY = "set the values of each region: --regions 'whole tumour=...;core=...;enhancing=...'"


def brats_regions(labels: LabelSet) -> Regions:
    """Derive the three regions, the outermost first.

    Raises:
        OptionError: the names are ambiguous; lists every such name.
    """
    parts = {c.value: tumour_part(c.name) for c in labels.foreground}
    problems = [
        f"label {c.value} is called {c.name!r}, which is not clearly one of oedema, necrosis, non-enhancing, enhancing"
        for c in labels.foreground
        if parts[c.value] is None
    ]
    if not problems:  # otherwise the missing part may be the label with the ambiguous name
        missing = [part for part in ("oedema", "core", "enhancing") if part not in parts.values()]
        names = {"oedema": "oedema", "core": "necrosis or non-enhancing tumour", "enhancing": "enhancing tumour"}
        problems = [f"no label is called {names[part]}" for part in missing]
    if problems:
        remedy = _REMEDY + ("; or leave out --brats: dataset.json declares regions" if labels.regions else "")
        raise problems_found(problems, where="--brats", remedy=remedy, kind=OptionError, code="E-OPTION-REGIONS")
    return {
        "whole tumour": tuple(parts),
        "core": tuple(value for value, part in parts.items() if part != "oedema"),
        "enhancing": tuple(value for value, part in parts.items() if part == "enhancing"),
    }


def tumour_part(name: str) -> Part | None:
    """Return the part that a label's name describes; ``None`` if it describes none, or two that exclude each other."""
    text, n_oedema = _OEDEMA.subn(" ", _normalize(name))
    text, n_non_enhancing = _NON_ENHANCING.subn(" ", text)
    enhances, is_core = bool(_ENHANCING.search(text)), n_non_enhancing > 0 or "core" in text.split()
    if _NEGATION.search(text) or (n_oedema and (enhances or is_core)) or (enhances and n_non_enhancing):
        return None
    if n_oedema:
        return "oedema"
    if enhances:
        return "enhancing"
    return "core" if is_core else None


def _normalize(name: str) -> str:
    """Convert a name to lower-case words: ``NonEnhancing_Tumour`` -> ``non enhancing tumour``."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(re.findall(r"[a-zà-ÿœ0-9]+", words.casefold())).replace("œ", "oe").replace("ö", "oe")
