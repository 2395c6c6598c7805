"""Programs of others that tests run: missing ones are listed, and `make debian-packages` has all of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import external_programs
from external_programs import PROGRAMS, missing_programs

ROOT = Path(__file__).parents[2]


def test_each_missing_program_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"orthanc", "plastimatch"}
    found = tuple(replace(one, is_installed=lambda one=one: one.package in installed) for one in PROGRAMS)
    monkeypatch.setattr(external_programs, "PROGRAMS", found)
    lines = list(missing_programs())
    assert [line.split(": ")[1].split()[0] for line in lines] == [
        one.package for one in PROGRAMS if one.package not in installed
    ]
    assert lines[0] == (
        "not installed, so not tested: chromium (the page of the service, and OHIF); see make debian-packages"
    )


def test_a_path_without_programs_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert external_programs.find_chromium() is None
    (tmp_path / "google-chrome").touch(mode=0o755)
    assert external_programs.find_chromium() == str(tmp_path / "google-chrome")
    assert external_programs.find_orthanc() is None


def test_the_makefile_and_contributing_name_the_same_packages() -> None:
    makefile, guide = ((ROOT / name).read_text("utf-8") for name in ("Makefile", "CONTRIBUTING.md"))
    (listed,) = re.findall(r"^DEBIAN_PACKAGES := (.*)$", makefile, re.MULTILINE)
    packages = [one.package for one in PROGRAMS if not one.package.startswith("libpython")]
    assert listed.split() == packages
    assert [name for name in (*packages, "libpython3", "make debian-packages") if f"`{name}" not in guide] == []
