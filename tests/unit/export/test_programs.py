"""Exported programs: they compute what the model computes, say what they are, and appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import decathlete
from decathlete.cli.main import app
from decathlete.core.geometry import Geometry
from decathlete.errors import ImageError, ModelError, OptionError, OutputError, StoreError
from decathlete.export.parity import TOLERANCE, check_difference, check_windows, difference, measure_rounding
from decathlete.inference.engines.onnx import OnnxEngine
from decathlete.inference.engines.openvino import OpenVinoEngine
from decathlete.inference.engines.torch import TorchEngine
from decathlete.inference.exported_program import ProgramRecord
from decathlete.io.images import write_image
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.networks.onnx_program import onnx_program
from decathlete.preprocessing.store import StoreSource
from decathlete.workflows.export_model import export_onnx, export_openvino
from factories import make_test_plan, make_volumes
from training_support import make_store

FORMS = {"onnx": (export_onnx, "onnxruntime"), "openvino": (export_openvino, "openvino")}


def needs(form: str):
    pytest.importorskip("onnx")
    pytest.importorskip(FORMS[form][1])
    return FORMS[form][0]


@pytest.fixture
def model(tmp_path) -> Path:
    plan = make_test_plan(2)
    return ModelBundle.save(
        tmp_path / "m", TrainedMember(plan=plan, networks=[build_network(plan.network, seed=0)], mirror_axes=(0,))
    ).folder


@pytest.fixture
def image(tmp_path) -> Path:
    array, _ = make_volumes((5, 20, 24))
    write_image(tmp_path / "images" / "a.nii.gz", array, Geometry.plain((5, 20, 24), spacing_ZYX=(1.0, 1.0, 1.0)))
    return tmp_path / "images"


@pytest.mark.full
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("checked_on", ["noise", "images"])
def test_a_program_computes_the_models_logits_and_says_what_it_is(form, checked_on, model, image, tmp_path):
    export = needs(form)
    made = export(model, tmp_path / "p", inputs=image if checked_on == "images" else None)
    assert made.difference < 1e-5
    assert made.checked_on == (1 if checked_on == "images" else 3)
    files = {"onnx": ["model.onnx"], "openvino": ["model.bin", "model.xml"]}[form]
    assert sorted(p.name for p in made.path.iterdir()) == [*files, "program.json"]
    record = ProgramRecord.load(made.path / "program.json")
    bundle = ModelBundle.load(model)
    assert (record.model, record.plan, record.mirror_axes) == (bundle.digest, bundle.record.plan, (0,))
    assert (record.window, record.output) == ((1, 16, 16), (3, 16, 16))
    windows = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    engine = OnnxEngine if form == "onnx" else OpenVinoEngine
    found = engine(made.path / files[-1], window=record.window, precision="fp32")(windows)
    torch.testing.assert_close(found, TorchEngine(bundle.build(), precision="fp32")(windows), atol=1e-4, rtol=0)
    assert sorted(record.sha256) == files
    assert ProgramRecord.model_validate_json(inner_record(form, made.path)) == record.revised(sha256={})


def inner_record(form: str, path: Path) -> str:
    if form == "onnx":
        import onnx

        file = path / "model.onnx" if path.is_dir() else path
        onnx.checker.check_model(str(file))
        return next(p.value for p in onnx.load(str(file)).metadata_props if p.key == "decathlete")
    import openvino

    return openvino.Core().read_model(path / "model.xml").get_rt_info("decathlete").value


@pytest.mark.full
def test_an_onnx_file_alone_is_enough_and_the_command_makes_it(model, tmp_path):
    needs("onnx")
    told = CliRunner().invoke(app, f"export onnx {model} --output {tmp_path / 'net.onnx'}".split())
    assert told.exit_code == 0
    assert "of the greatest, on 3 windows of smooth noise, since no case" in told.output
    record = ProgramRecord.model_validate_json(inner_record("onnx", tmp_path / "net.onnx"))
    assert record.model == ModelBundle.load(model).digest
    with pytest.raises(OutputError, match="--overwrite"):
        decathlete.export_onnx(model, tmp_path / "net.onnx")
    decathlete.export_onnx(model, tmp_path / "net.onnx", overwrite=True)


@pytest.mark.full
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrong", [1.01, float("nan")])
def test_a_program_that_is_not_the_model_is_refused_and_nothing_stays(form, wrong, model, tmp_path, monkeypatch):
    """Weights that went wrong on the way, by one percent in one layer; then one that is no number."""
    export = needs(form)
    from onnx import numpy_helper

    right = numpy_helper.from_array
    monkeypatch.setattr(
        numpy_helper, "from_array", lambda x, name: right(x * x.dtype.type(wrong) if x.shape[:1] == (3,) else x, name)
    )
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ModelError, match="other logits than the model"):
        export(model, tmp_path / "p")
    if form == "onnx":
        with pytest.raises(ModelError, match="nothing was written"):
            export(model, tmp_path / "p.onnx")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.full
@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_program_is_never_replaced(form, model, tmp_path):
    export = needs(form)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "thesis.txt").write_text("x")
    with pytest.raises(OutputError, match="not an exported program"):
        export(model, tmp_path / "p", overwrite=True)
    assert (tmp_path / "p" / "thesis.txt").read_text() == "x"


@pytest.mark.full
def test_an_onnx_file_of_someone_elses_is_never_replaced(model, tmp_path):
    """Neither another program's nor one that is no program; a folder of ours with a thesis in it is kept, too."""
    needs("onnx")
    network, plan = build_network(make_test_plan(2).network, seed=0), make_test_plan(2)
    theirs = {
        "made.onnx": onnx_program([network.eval()], window=(1, *plan.patch_size), n_outputs=3, metadata={"title": "x"}),
        "text.onnx": b"my thesis",
    }
    for name, content in theirs.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(OutputError, match="not an exported program"):
            export_onnx(model, tmp_path / name, overwrite=True)
        assert (tmp_path / name).read_bytes() == content
    export_onnx(model, tmp_path / "p")
    export_onnx(model, tmp_path / "p", overwrite=True)
    (tmp_path / "p" / "thesis.txt").write_text("x")
    with pytest.raises(OutputError, match="not an exported program, or not one alone"):
        export_onnx(model, tmp_path / "p", overwrite=True)
    assert (tmp_path / "p" / "thesis.txt").read_text() == "x"


@pytest.mark.full
def test_what_a_killed_export_left_goes_with_the_next(model, tmp_path):
    export = needs("openvino")
    leftover, other = tmp_path / ".partial-0badcafe-p", tmp_path / ".partial-0badcafe-other"
    for folder in (leftover, other):
        folder.mkdir()
        (folder / "model.bin").write_bytes(b"half of it")
    export(model, tmp_path / "p")
    assert not leftover.exists()
    assert other.exists()


def test_windows_to_compare_on_are_the_same_each_time_and_smooth(model):
    plan = make_test_plan(3, n_channels=2)
    first, again = check_windows(plan), check_windows(plan)
    assert [tuple(w.shape) for w in first] == [(1, 2, 16, 16, 16)] * 3
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])
    assert float(first[0].diff(dim=2).abs().mean()) < 0.3 * float(first[0].std())


def test_windows_of_images_are_cut_from_the_prepared_image(image):
    (window,) = check_windows(make_test_plan(3), image)
    assert window.shape == (1, 1, 16, 16, 16)
    assert float(window.std()) > 0.1
    with pytest.raises(ImageError):
        check_windows(make_test_plan(3), image / "absent.nii.gz")


def test_a_store_without_cases_is_refused(tmp_path):
    store = make_store(tmp_path / "store")
    source = StoreSource.load(store.folder / "source.json")
    source.revised(case_ids=()).save(store.folder / "source.json")
    with pytest.raises(StoreError, match="contains no case"):
        check_windows(store.plan, store.folder)


def test_a_difference_is_a_share_of_the_greatest_logit():
    window = [torch.tensor([[1.0, -4.0]])]
    assert difference(lambda x: x + 0.5, [lambda x: x * 2], [w * 0.5 for w in window]) == pytest.approx(2.5 / 4)
    assert np.isnan(difference(lambda x: x * torch.nan, [lambda x: x], window))


def test_rounding_is_how_far_float32_is_from_float64():
    window = [torch.tensor([[1.0, 4.0]])]
    assert measure_rounding([torch.nn.Identity()], window) == 0

    class Thirds(torch.nn.Module):
        def forward(self, x):
            return (1 + x / 3e4) - 1  # of float32 few digits are left

    assert 1e-5 < measure_rounding([Thirds(), Thirds()], window) < TOLERANCE


def test_what_is_further_than_rounding_takes_it_is_refused():
    where = Path("model")
    check_difference(TOLERANCE, rounding=lambda: pytest.fail("measured without need"), title="X", where=where)
    check_difference(0.003, rounding=lambda: 0.001, title="X", where=where)
    for found, allowed in ((0.005, "0.004 is allowed"), (np.nan, "0.001 is allowed")):
        with pytest.raises(ModelError, match=allowed):
            check_difference(found, rounding=lambda: 0.001, title="X", where=where)


@pytest.mark.parametrize(("function", "package"), [(export_onnx, "onnxruntime"), (export_openvino, "openvino")])
def test_without_the_package_it_says_what_to_install(function, package, model, tmp_path, monkeypatch):
    from decathlete.core import extras

    def import_module(name):
        if name == package:
            raise ModuleNotFoundError(name)

    monkeypatch.setattr(extras, "import_module", import_module)
    with pytest.raises(OptionError, match=r'pip install "\.\['):
        function(model, tmp_path / "p")
    assert not (tmp_path / "p").exists()
