"""What every registered exporter does, those of installed plug-ins included."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from decathlete.core.files import file_digest
from decathlete.errors import MissingPackageError, OutputError
from decathlete.export.exporters import EXPORTERS, ExportResult
from decathlete.inference.engines.torch import TorchEngine
from decathlete.inference.exported_program import ExportedFolder, is_program
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.workflows.export_model import export_model
from factories import make_test_plan

pytestmark = pytest.mark.parametrize("name", EXPORTERS.names())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    plan = make_test_plan(3)
    member = TrainedMember(plan=plan, networks=[build_network(plan.network, seed=0)], mirror_axes=(0, 1, 2))
    return ModelBundle.save(tmp_path / "m", member).folder


@pytest.fixture
def exporter(name: str) -> str:
    try:
        EXPORTERS.resolve(name).cls.check_available()
    except MissingPackageError as problem:
        pytest.skip(problem.problem)
    return name


def export(exporter: str, model: Path, output: Path, *, overwrite: bool = False) -> ExportResult:
    """Export with the default settings, whose format may need a package that is not installed here."""
    try:
        return export_model(exporter, model, output, overwrite=overwrite)
    except MissingPackageError as problem:
        pytest.skip(problem.problem)


def digests(folder: Path) -> dict[str, str]:
    return {str(path): file_digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_it_writes_a_model_and_says_where(exporter: str, model: Path, tmp_path: Path) -> None:
    before = digests(model)
    result = export(exporter, model, tmp_path / "out")
    assert result.path.exists()
    assert str(result.path) in result.summary
    assert EXPORTERS.resolve(exporter).summary
    assert digests(model) == before, "the model is unchanged"
    assert {path.name for path in tmp_path.iterdir()} == {"m", "out"}, "nothing temporary stays"


def test_a_program_computes_the_models_logits(exporter: str, model: Path, tmp_path: Path) -> None:
    export(exporter, model, tmp_path / "out")
    if not is_program(tmp_path / "out"):
        pytest.skip(f"{exporter} writes no program that an engine here computes")
    program, bundle = ExportedFolder(tmp_path / "out"), ModelBundle.load(model)
    assert program.record.model == bundle.digest
    windows = torch.randn(2, *program.record.window, generator=torch.Generator().manual_seed(3))
    expected = TorchEngine(bundle.build(), device="cpu", precision="fp32")(windows)
    atol = program.record.tolerance * float(expected.abs().max())
    torch.testing.assert_close(program.load()(windows), expected, rtol=0, atol=atol)


def test_what_somebody_else_wrote_is_never_replaced(exporter: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("x")
    with pytest.raises(OutputError):
        export(exporter, model, tmp_path / "out", overwrite=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_an_earlier_export_of_another_model_is_replaced_only_with_overwrite(
    exporter: str, model: Path, tmp_path: Path
) -> None:
    export(exporter, model, tmp_path / "out")
    first = digests(tmp_path / "out")
    shutil.rmtree(model)
    plan = make_test_plan(3)
    ModelBundle.save(
        model, TrainedMember(plan=plan, networks=[build_network(plan.network, seed=1)], mirror_axes=(0, 1, 2))
    )
    with pytest.raises(OutputError, match="--overwrite"):
        export(exporter, model, tmp_path / "out")
    assert digests(tmp_path / "out") == first
    export(exporter, model, tmp_path / "out", overwrite=True)
    assert digests(tmp_path / "out") != first
