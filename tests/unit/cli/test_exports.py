"""``decathlete export``: an exporter of a plug-in is a command, its settings are ``--set``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from decathlete.cli.main import app
from decathlete.errors import OptionError
from decathlete.export.exporters import EXPORTERS
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from factories import make_test_plan

MODULE = '''
from pydantic import Field

from decathlete.core.registry import ComponentSettings
from decathlete.export.exporters import EXPORTERS, Exporter, ExportResult


@EXPORTERS.register("listing")
class ListingExporter(Exporter):
    """Write the names of the weights."""

    class Settings(ComponentSettings):
        limit: int = Field(default=3, ge=1)
        """Number of names."""

    def export(self, model, output, *, windows, overwrite):
        names = list(model.build().state_dict())[: self.settings.limit]
        output.write_text("\\n".join(names))
        return ExportResult(path=output, notes=("biases are listed, too",))
'''


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "listing_exporter.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "listing_exporter", raising=False)
    plan = make_test_plan(2)
    bundle = ModelBundle.save(tmp_path / "m", TrainedMember(plan=plan, networks=[build_network(plan.network, seed=0)]))
    with EXPORTERS.isolated():
        EXPORTERS.load("listing_exporter:ListingExporter")
        yield bundle.folder


def run(*arguments: object):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_it_is_listed_with_its_settings(model: Path) -> None:
    assert "listing" in run("--help").output
    told = run("listing", "--help").output
    assert "Write the names of the weights." in told
    assert "limit: Number of names." in " ".join(told.split())


@pytest.mark.parametrize("name", ["listing", "listing_exporter:ListingExporter"])
def test_it_exports_with_its_settings(name: str, model: Path, tmp_path: Path) -> None:
    done = run(name, model, "--output", tmp_path / "out.txt", "--set", "limit=2")
    assert done.exit_code == 0, done.output
    assert len((tmp_path / "out.txt").read_text().splitlines()) == 2
    assert f"exported to {tmp_path / 'out.txt'}" in done.output
    assert "note: biases are listed, too" in done.output


def test_a_configuration_file_reaches_its_settings(model: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("set: [limit=2]\n")
    done = run("listing", model, "--output", tmp_path / "out.txt", "--config", tmp_path / "c.yaml")
    assert done.exit_code == 0, done.output
    assert len((tmp_path / "out.txt").read_text().splitlines()) == 2


def test_a_setting_out_of_range_is_an_error(model: Path, tmp_path: Path) -> None:
    done = run("listing", model, "--output", tmp_path / "out.txt", "--set", "limit=0")
    assert isinstance(done.exception, OptionError)
    assert "limit" in str(done.exception)
    assert not (tmp_path / "out.txt").exists()
    assert isinstance(run("listing", model, "--output", tmp_path / "out.txt", "--set", "limit").exception, OptionError)


def test_an_unknown_exporter_is_no_command(model: Path) -> None:
    assert "No such command" in run("lising", model, "--output", "x").output
