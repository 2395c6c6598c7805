"""Files of the repository outside ``docs/`` that the site shows, and links to them.

Pages are written with links that work in the repository, e.g. ``../../benchmarks/results/2026-11-28-peers.md``. On the
site such a link is rewritten to the page that shows the file. A link to a file that the site does not show keeps its
text alone; a link to a file that does not exist stays as it is, and the strict build fails.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path

from text import table

ROOT = Path(__file__).resolve().parents[2]
RESULTS = "benchmarks/results"
NAMED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "LICENSE": "license.txt",
    RESULTS: "benchmarks/index.md",
}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")


def pages() -> dict[str, str]:
    """Return the pages made from files of the repository, by their place in the docs folder."""
    made = {}
    for source, uri in _sources().items():
        if source.endswith(".ipynb"):
            made[uri] = _notebook(ROOT / source)
        elif uri == "benchmarks/index.md":
            made[uri] = _results()
        elif uri.endswith(".md"):
            made[uri] = (ROOT / source).read_text("utf-8")
    return made


def assets() -> dict[str, Path]:
    """Return the other files that the site shows, by their place in the docs folder."""
    return {uri: ROOT / source for source, uri in _sources().items() if not uri.endswith(".md")}


def rewrite_links(markdown: str, uri: str) -> str:
    """Rewrite the links of a page to files of the repository.

    Args:
        markdown: the page's text, with links relative to its source file.
        uri: the page's place in the docs folder.
    """
    page = {shown: source for source, shown in _sources().items()}.get(uri, f"docs/{uri}")
    parts = re.split(r"(^```.*?^```\s*$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else LINK.sub(lambda m: _link(m, page, uri), part) for part in parts)


def _link(match: re.Match[str], page: str, uri: str) -> str:
    mark, text, address = match.groups()
    target, hash_, anchor = address.partition("#")
    if not target or ":" in target or target.startswith("/"):
        return match[0]
    source = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
    if source in (sources := _sources()):
        shown = sources[source]
    elif source.startswith("docs/") and not (ROOT / source).is_dir():
        shown = source.removeprefix("docs/")
    elif (ROOT / source).exists():
        return text
    else:
        return match[0]
    return f"{mark}[{text}]({posixpath.relpath(shown, posixpath.dirname(uri) or '.')}{hash_}{anchor})"


def _sources() -> dict[str, str]:
    """Path in the repository -> place in the docs folder."""
    found = {source: uri for source, uri in NAMED.items() if (ROOT / source).exists()}
    for path in _result_files():
        found[path.relative_to(ROOT).as_posix()] = f"benchmarks/{_shown(path)}"
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"), reverse=True):
        found[f"notebooks/{path.name}"] = f"tutorials/notebooks/{path.stem}.md"
    return found


def _result_files() -> list[Path]:
    """List the pages and pictures of results: those with a date, the newest first, then folders that grow."""
    results = ROOT / RESULTS
    dated = sorted((*results.glob("*.md"), *results.glob("*.png")), reverse=True)
    return [
        *dated,
        *(path for page in sorted(results.glob("*/README.md")) for path in (page, *page.parent.glob("*.png"))),
    ]


def _shown(result: Path) -> str:
    """Return the place of a page or picture of results in the site's folder of benchmarks."""
    return result.relative_to(ROOT / RESULTS).as_posix().replace("README.md", "index.md")


def _notebook(path: Path) -> str:
    """Show a notebook's text and code, without outputs (notebooks are kept without them)."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    parts = []
    for cell in cells:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    parts.insert(1, f"*This page shows the notebook `notebooks/{path.name}` of the repository.*")
    return "\n\n".join(parts) + "\n"


def _results() -> str:
    rows = []
    for path in _result_files():
        if path.suffix == ".md":
            title = path.read_text("utf-8").partition("\n")[0].removeprefix("# ")
            date = "continued" if path.name == "README.md" else path.stem[:10]
            rows.append((date, f"[{title}]({_shown(path)})"))
    return f"""# Benchmarks

Measured figures, each with its date, its machine and the versions of the programs. The raw records lie beside these
pages in the repository, in `{RESULTS}`.

{table(("date", "what was measured"), rows)}
"""
