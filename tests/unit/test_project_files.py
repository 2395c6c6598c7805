"""The files around the package agree with each other: version, release date, Python versions, checks and templates."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from decathlete.version import __version__

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")
RELEASES = re.findall(r"^## (\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)$", CHANGELOG, re.MULTILINE)
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
SECTIONS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


def test_the_changelog_has_an_unreleased_part_and_the_usual_sections() -> None:
    headings = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert headings == ["Unreleased", *(f"{version} - {date}" for version, date in RELEASES)]
    assert set(re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE)) <= SECTIONS


def test_the_version_is_the_latest_release_or_comes_after_it() -> None:
    latest = tuple(map(int, RELEASES[0][0].split(".")))
    number, _, development = __version__.partition(".dev")
    current = tuple(map(int, number.split(".")))
    assert current > latest if development else current == latest


def test_the_version_is_one_in_development_while_changes_are_not_released() -> None:
    unreleased = CHANGELOG.partition("## Unreleased\n")[2].partition("\n## ")[0]
    assert (".dev" in __version__) == ("\n- " in unreleased)


def test_the_citation_is_of_the_latest_release() -> None:
    citation = read_yaml("CITATION.cff")
    assert (citation["version"], citation["date-released"]) == RELEASES[0]
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]


def test_ci_tests_each_python_that_the_package_declares() -> None:
    jobs = read_yaml(".github/workflows/ci.yml")["jobs"]
    tested = jobs["test"]["strategy"]["matrix"]["python"]
    assert tested == re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert PROJECT["requires-python"] == f">={tested[0]}"


def test_ci_runs_targets_that_the_makefile_has() -> None:
    jobs = read_yaml(".github/workflows/ci.yml")["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = {match[1] for command in commands if (match := re.fullmatch(r"make ([\w-]+)", command))}
    assert {"check", "test", "docs"} <= targets
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert [target for target in sorted(targets) if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_commit_hooks_run_the_same_tools_as_make_check() -> None:
    (recipe,) = re.findall(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    tools = {tuple(line.split()[:2]) if "ruff" in line else (line.strip(),) for line in recipe.splitlines()}
    checked = {" ".join(tool).removeprefix("$(BIN)/").strip() for tool in tools}
    hooks = [hook["entry"] for repo in read_yaml(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert {" ".join(entry.split()[:2]) if "ruff" in entry else entry for entry in hooks} == checked


def test_no_function_is_written_twice() -> None:
    modules: dict[tuple[str, str], list[str]] = {}
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                content = ast.unparse(ast.Module(body, []))
                if len(body) > 1 or len(content) > 80:
                    modules.setdefault((ast.unparse(node.args), content), []).append(f"{path.name}: {node.name}")
    assert [names for names in modules.values() if len(names) > 1] == []


def test_the_devcontainer_uses_the_environment_of_the_makefile() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text("utf-8"))
    target = container["postCreateCommand"].removeprefix("make ")
    assert "$(VENV)/.installed:" in (ROOT / "Makefile").read_text("utf-8")
    assert target == ".venv/.installed"
    assert f":{PROJECT['requires-python'].removeprefix('>=')}-" in container["image"]


@pytest.mark.parametrize("path", [p for p in TEMPLATES if p.stem != "config"], ids=lambda path: path.stem)
def test_issue_templates_are_forms_with_a_required_answer(path: Path) -> None:
    template = yaml.safe_load(path.read_text("utf-8"))
    assert {"name", "description", "body"} <= set(template)
    answers = [part for part in template["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in answers}) == len(answers)
    assert any(part.get("validations", {}).get("required") for part in answers)
