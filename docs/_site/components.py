"""The component reference: a page for each kind of component with the names and settings that are registered."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple

from decathlete.workflows.components import all_registries
from text import code, fields_table, summary, table

FOLDER = "reference/components"


class Kind(NamedTuple):
    """A kind of component.

    Attributes:
        name: in the singular, e.g. ``loss``.
        summary: what components of this kind do, one sentence.
        members: registered name -> (the class or function, its settings schema or ``None``).
    """

    name: str
    summary: str
    members: dict[str, tuple[Any, Any]]

    @property
    def page(self) -> str:
        """The name of the page."""
        return self.name.replace(" ", "-")


def _kinds() -> Iterator[Kind]:
    """Read the registries."""
    for kind, registry in all_registries().items():
        # The first sentence; the rest is for readers of the module.
        first_line = (import_module(registry.home).__doc__ or "").strip().partition("\n")[0]
        about = first_line.partition(". ")[0].rstrip(".")
        yield Kind(kind, f"{about}.", {c.name: (c.cls, c.settings) for c in registry})


def component_pages() -> dict[str, str]:
    """Return the pages of the component reference by their place in the docs folder."""
    kinds = list(_kinds())
    if not kinds:
        return {}
    return {f"{FOLDER}/index.md": _index(kinds)} | {f"{FOLDER}/{kind.page}.md": _page(kind) for kind in kinds}


def _index(kinds: list[Kind]) -> str:
    rows = [
        (f"[{kind.name}]({kind.page}.md)", kind.summary, ", ".join(code(name) for name in kind.members))
        for kind in kinds
    ]
    return f"""# Components

Components are chosen by their registered name. `decathlete components` lists them with their settings, including those
of installed plug-ins. [Add a component](../../how-to/extend.md) of your own in one file.

{table(("kind", "purpose", "names"), rows)}
"""


def _page(kind: Kind) -> str:
    parts = [f"# {kind.name.capitalize()}", kind.summary]
    for name, (component, settings) in kind.members.items():
        parts += [f"## {name}", summary(component)]
        parts.append(fields_table(settings) if settings is not None and settings.model_fields else "No settings.")
    return "\n\n".join(parts) + "\n"
