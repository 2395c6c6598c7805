"""Names that every logger accepts."""

from __future__ import annotations

import re
from collections.abc import Iterable


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Map class names to names that all loggers accept, each unique.

    >>> plain_names(["left lung", "tumour (core)", "tumour [core]"])
    {'left lung': 'left lung', 'tumour (core)': 'tumour _core_', 'tumour [core]': 'tumour _core_ 2'}
    """
    plain: dict[str, str] = {}
    for name in names:
        wanted = candidate = plain_name(name)
        number = 1
        while candidate in plain.values():
            number += 1
            candidate = f"{wanted} {number}"
        plain[name] = candidate
    return plain


def plain_name(name: str) -> str:
    """Replace each letter that some logger rejects by an underscore."""
    return re.sub(r"[^a-zA-Z0-9_. -]", "_", name)
