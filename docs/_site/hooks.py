"""MkDocs hooks of the documentation site: add the generated pages, fill the navigation, rewrite links.

MkDocs loads this file (``hooks`` in ``mkdocs.yml``). The pages themselves come from the modules beside it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

import api
import commands
import components
import repository

HIDDEN = {"index.md": ["navigation"], "reference/files.md": ["toc"], "reference/recipe.md": ["toc"]}
"""Side bars that a page does without, because it is the first one, or needs the width."""
ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):<code>~?([\w.]+)</code>")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and expand the folders of the navigation."""
    pages = commands.pages() | api.pages() | components.component_pages() | repository.pages()
    for uri, content in pages.items():
        files.append(File.generated(config, uri, content=content))
    for uri, path in repository.assets().items():
        files.append(File.generated(config, uri, abs_src_path=str(path), inclusion=InclusionLevel.NOT_IN_NAV))
    uris = [file.src_uri for file in files.documentation_pages()]
    config.nav = _expand(config.nav, uris)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Point links to files of the repository at their pages on the site; hide side bars."""
    if hidden := HIDDEN.get(page.file.src_uri):
        page.meta["hide"] = hidden
    return repository.rewrite_links(markdown, page.file.src_uri)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Show reStructuredText roles of docstrings (``:class:`Plan```) as code."""
    return ROLE.sub(lambda match: f"<code>{match[1].rpartition('.')[2]}</code>", html)


def _expand(nav: Any, uris: list[str]) -> Any:
    """Replace each entry ``folder/*`` by the pages of that folder, its index first; leave out empty sections."""
    if isinstance(nav, dict):
        return {title: _expand(entry, uris) for title, entry in nav.items()}
    if not isinstance(nav, list):
        return nav
    entries: list[Any] = []
    for entry in nav:
        if isinstance(entry, str) and entry.endswith("/*"):
            folder = entry.removesuffix("*")
            found = [uri for uri in uris if uri.startswith(folder) and "/" not in uri.removeprefix(folder)]
            entries += sorted(found, key=lambda uri: Path(uri).name != "index.md")  # stable: generated order is kept
        else:
            expanded = _expand(entry, uris)
            if not (isinstance(expanded, dict) and list(expanded.values()) == [[]]):
                entries.append(expanded)
    return entries
