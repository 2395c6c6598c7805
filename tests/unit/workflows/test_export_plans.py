"""A model of several plans is exported as a whole, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from decathlete.cli.main import app
from decathlete.core.files import list_files
from decathlete.core.registry import ComponentSettings
from decathlete.errors import ModelError, OutputError
from decathlete.export.exporters import EXPORTERS, CheckWindows, Exporter, ExportResult
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.models.combine import combine_bundles
from decathlete.networks.build import build_network
from decathlete.planning.plan import Plan
from decathlete.workflows.export_model import export_model
from decathlete.workflows.export_plans import ExportedPlans
from factories import make_test_network, make_test_plan

PLANS = {"2d": make_test_plan(2), "3d": make_test_plan(3)}
GROUP_NORM = make_test_plan(3, network=make_test_network().revised(norm="group"))


def both(folder: Path, *plans: Plan, **settings: Any) -> ModelBundle:
    models = []
    for number, plan in enumerate(plans or PLANS.values()):
        member = TrainedMember(plan=plan, networks=[build_network(plan.network, seed=number)])
        models.append(ModelBundle.save(folder / str(number), member).folder)
    return combine_bundles(models, folder / "both", **settings)


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in list_files(folder)}


def test_nothing_is_written_if_one_plan_cannot_be_exported(tmp_path: Path) -> None:
    model = both(tmp_path / "models", PLANS["2d"], GROUP_NORM)
    with pytest.raises(ModelError, match=rf"^{model.folder} \(3d\): cannot be represented in nnU-Net v2") as caught:
        export_model("nnunet", model.folder, tmp_path / "out")
    assert "group norm" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_an_earlier_export_is_replaced_as_a_whole_or_kept(tmp_path: Path) -> None:
    model = both(tmp_path / "models")
    export_model("nnunet", model.folder, tmp_path / "out")
    before = content(tmp_path / "out")
    with pytest.raises(OutputError, match="use --overwrite"):
        export_model("nnunet", model.folder, tmp_path / "out")
    other = both(tmp_path / "others", PLANS["2d"].revised(dataset="Other"), GROUP_NORM)
    with pytest.raises(ModelError):
        export_model("nnunet", other.folder, tmp_path / "out", overwrite=True)
    assert content(tmp_path / "out") == before
    (tmp_path / "out" / "2d" / "plans.json").write_text("{")
    export_model("nnunet", model.folder, tmp_path / "out", overwrite=True)
    assert content(tmp_path / "out") == before


def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path) -> None:
    model = both(tmp_path / "models")
    export_model("nnunet", model.folder, tmp_path / "out")
    (tmp_path / "out" / "2d" / "thesis.txt").write_text("x")
    with pytest.raises(OutputError, match="is not an exported program, or not one alone"):
        export_model("nnunet", model.folder, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "2d" / "thesis.txt").is_file()


@pytest.fixture
def watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """An exporter ``watching`` that looks whether ``out`` exists after each export: what a kill would leave."""
    seen: list[bool] = []
    monkeypatch.setattr(EXPORTERS, "_registered", dict(EXPORTERS._registered))

    @EXPORTERS.register("watching")
    class WatchingExporter(Exporter):
        """Write a line."""

        class Settings(ComponentSettings):
            pass

        def export(
            self,
            model: ModelBundle,
            output: Path,
            *,
            windows: Callable[[], CheckWindows],
            overwrite: bool,
        ) -> ExportResult:
            output.write_text(f"{model.record.plan.dims} {len(windows().windows)}")
            seen.append((tmp_path / "out").exists())
            return ExportResult(path=output, notes=("it is short",))

    return seen


def test_a_kill_between_two_plans_leaves_nothing(tmp_path: Path, watching: list[bool]) -> None:
    model = both(tmp_path / "models")
    result = export_model("watching", model.folder, tmp_path / "out")
    assert watching == [False, False]
    assert isinstance(result, ExportedPlans)
    assert [(part.path, part.path.read_text()) for part in result.parts] == [
        (tmp_path / "out" / "2d", "2 3"),
        (tmp_path / "out" / "3d", "3 3"),
    ]
    assert result.notes == ("it is short",)
    assert json.loads((tmp_path / "out" / "exported_plans.json").read_text())["files"] == ["2d", "3d"]


def test_the_command_says_how_nnunet_uses_both_and_what_it_lacks(tmp_path: Path) -> None:
    model, out = both(tmp_path / "models", temperature=1.5), tmp_path / "my out"
    told = CliRunner().invoke(app, ["export", "nnunet", str(model.folder), "--output", str(out)])
    assert told.exit_code == 0, told.output
    assert f"nnUNetv2_predict_from_modelfolder -m '{out / '3d'}' -f 0" in told.output
    assert "nnUNetv2_ensemble -i OUTPUT_2d OUTPUT_3d -o OUTPUT" in told.output
    assert told.output.count("its temperature 1.5 is left out") == 1
    assert "--model" not in told.output
    assert (out / "3d" / "fold_0" / "checkpoint_final.pth").is_file()
