"""Resources of Dask workers, as text."""

from __future__ import annotations

from collections.abc import Mapping

from decathlete.errors import OptionError


def parse_resources(text: str) -> Mapping[str, float]:
    """Parse resources as ``dask worker --resources`` does: ``GPU=1,MEMORY=64e9``, separated by commas or spaces.

    Raises:
        OptionError: the text has another form.
    """
    try:
        pairs = [part.partition("=") for part in text.replace(",", " ").split()]
        resources = {name: float(amount) for name, _, amount in pairs}
    except ValueError:
        resources = {}
    if not resources or not all(name and amount > 0 for name, amount in resources.items()):
        raise OptionError(f"{text!r} names no resources", remedy="write e.g. GPU=1,MEMORY=64e9", code="E-OPTION-SYNTAX")
    return resources
