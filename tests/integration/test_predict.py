"""Bundles on disk, images on disk, predictions on disk."""

import importlib
import json
import logging
import operator
import signal
import subprocess
import sys
from functools import partial

import nibabel
import numpy as np
import pytest
import torch

from decathlete.core.geometry import Geometry, HeaderCodes
from decathlete.core.locks import LOCK_NAME
from decathlete.core.sliding_window import SlidingWindow
from decathlete.errors import CasesFailedError, DatasetError, ImageError, ModelError, OptionError, OutputError
from decathlete.inference.options import PredictOptions
from decathlete.inference.output import output_kind
from decathlete.inference.output.probabilities import ProbabilityArray, ProbabilityFile
from decathlete.inference.output.restore import restore
from decathlete.inference.predict import Predictor
from decathlete.inference.predict_files import predict_files
from decathlete.inference.windows.sweep import predict_logits
from decathlete.io.images import Image, read_image, read_label, write_image
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.planning.plan import Range, TrainingRanges
from decathlete.preprocessing.prepare import prepare
from decathlete.workflows.predict import predict
from factories import make_oblique_geometry, make_test_plan, make_volumes


def save_model(folder, plan=None, *, seed=0, mirror_axes=()):
    plan = plan or make_test_plan()
    ModelBundle.save(
        folder, TrainedMember(plan=plan, networks=[build_network(plan.network, seed=seed)], mirror_axes=mirror_axes)
    )
    return folder


def load(models, **options):
    return Predictor.load(models, device="cpu", precision="fp32", **options)


def oblique(shape, **header):
    geometry = make_oblique_geometry(shape, (1.5, 0.8, 1.1))
    return geometry.revised(header=HeaderCodes(**header).model_dump())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "fold_0", mirror_axes=(0, 1, 2))


@pytest.fixture
def images(tmp_path):
    """Three images in a folder, one of them with NIfTI codes of its own."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed, (name, shape) in enumerate({"a": (20, 18, 22), "b": (9, 30, 12), "c": (1, 17, 16)}.items()):
        image, _ = make_volumes(shape, margin=2, seed=seed)
        write_image(folder / f"{name}.nii.gz", image, oblique(shape, qform_code=1, sform_code=3))
    return folder


def test_predict_goes_through_prepare_sweep_and_restore(model):
    image, _ = make_volumes((20, 24, 18), margin=2)
    geometry = oblique((20, 24, 18))
    prediction = load(model).predict(image, geometry=geometry, probabilities=True)
    bundle = ModelBundle.load(model)
    case = prepare(Image(array_CZYX=image, geometry=geometry), bundle.record.plan)
    logits = predict_logits(bundle.build(), case.image_CZYX, plan=bundle.record.plan, precision="fp32")
    expected = restore(logits, case.restoration, bundle.record.plan.labels, probabilities=True)
    np.testing.assert_array_equal(prediction.label_ZYX, expected.label_ZYX)
    np.testing.assert_allclose(prediction.probabilities_KZYX, expected.probabilities_KZYX, atol=1e-5)
    assert prediction.geometry == geometry
    assert set(prediction.volumes_ml) == {"c1", "c2"}
    voxels = {n: int((prediction.label_ZYX == v).sum()) for n, v in (("c1", 1), ("c2", 2))}
    assert prediction.volumes_ml == pytest.approx({n: v * geometry.voxel_volume_mm3 / 1000 for n, v in voxels.items()})


def test_arrays_of_every_form(model):
    predictor = load(model)
    image, _ = make_volumes((10, 12, 14))
    whole = predictor.predict(image, spacing=(1.0, 1.0, 1.0))
    np.testing.assert_array_equal(predictor.predict(image[0], spacing=(1.0, 1.0, 1.0)).label_ZYX, whole.label_ZYX)
    assert predictor.predict(image[0, 0], spacing=(1.0, 1.0, 1.0)).label_ZYX.shape == (1, 12, 14)
    assert predictor.predict(np.zeros((5, 5, 5)), spacing=(1.0, 1.0, 1.0)).label_ZYX.shape == (5, 5, 5)
    assert whole.probabilities_KZYX is None


@pytest.mark.parametrize(
    ("array", "options", "error", "words"),
    [
        (np.ones((4, 4, 4)), {}, OptionError, "spacing of the array is missing"),
        (np.ones((4, 4, 4)), {"spacing": (1.0, 0.0, 1.0)}, OptionError, "not a spacing"),
        (np.ones((4, 4, 4)), {"geometry": Geometry.plain((4, 4, 5))}, OptionError, "geometry is for shape"),
        (np.ones(4), {"spacing": (1.0, 1.0, 1.0)}, OptionError, "not an image"),
        (np.ones((2, 4, 4, 4)), {"spacing": (1.0, 1.0, 1.0)}, ModelError, "2 channels"),
        (np.full((4, 4, 4), np.nan), {"spacing": (1.0, 1.0, 1.0)}, ImageError, "NaN"),
        ("missing.nii.gz", {}, ImageError, "does not exist"),
        ("missing.nii.gz", {"geometry": Geometry.plain((4, 4, 4))}, OptionError, "its own geometry"),
        (np.ones((4, 4, 4)), {"image_formats": {"nifti": {"compression_level": 1}}}, OptionError, "no effect"),
    ],
)
def test_inputs_that_do_not_fit(model, array, options, error, words):
    with pytest.raises(error, match=words):
        load(model).predict(array, **options)


@pytest.mark.parametrize("options", [{"overlap": 1.5}, {"blend": "cosine"}, {"batch_size": 0}])
def test_options_out_of_range(model, options):
    with pytest.raises(OptionError):
        load(model, **options)


def test_a_2d_model_predicts_volumes(tmp_path):
    image, _ = make_volumes((7, 20, 24))
    prediction = load(save_model(tmp_path / "m", make_test_plan(2))).predict(image, spacing=(3.0, 1.0, 1.0))
    assert prediction.label_ZYX.shape == (7, 20, 24)


def test_folds_are_averaged_as_logits(tmp_path):
    plan = make_test_plan()
    folds = [
        save_model(tmp_path / str(seed), plan.revised(reasons={"patch_size": str(seed)}), seed=seed) for seed in (1, 2)
    ]
    image, _ = make_volumes((20, 20, 20))
    predictor = load(folds)
    assert len(predictor.ensembles) == 1
    given = predictor.predict(image, spacing=(1.0, 1.0, 1.0), probabilities=True).probabilities_KZYX
    case = prepare(Image(array_CZYX=image, geometry=Geometry.plain((20, 20, 20))), plan)
    logits = [predict_logits(ModelBundle.load(f).build(), case.image_CZYX, plan=plan, precision="fp32") for f in folds]
    expected = torch.softmax((logits[0] + logits[1]) / 2, dim=0)
    np.testing.assert_allclose(given, expected.numpy(), atol=1e-5)


def test_different_plans_are_averaged_as_probabilities(tmp_path):
    models = [save_model(tmp_path / "3d"), save_model(tmp_path / "2d", make_test_plan(2), seed=1)]
    image, _ = make_volumes((12, 20, 20))
    alone = [load(m).predict(image, spacing=(2.0, 1.0, 1.0), probabilities=True) for m in models]
    both = load(models).predict(image, spacing=(2.0, 1.0, 1.0), probabilities=True)
    mean = (alone[0].probabilities_KZYX + alone[1].probabilities_KZYX) / 2
    np.testing.assert_allclose(both.probabilities_KZYX, mean, atol=1e-6)
    np.testing.assert_array_equal(both.label_ZYX, mean.argmax(0))


def test_models_that_do_not_go_together(tmp_path):
    base = save_model(tmp_path / "a")
    with pytest.raises(ModelError, match="other classes"):
        load([base, save_model(tmp_path / "b", make_test_plan(n_foreground=1))])
    with pytest.raises(ModelError, match="other channels"):
        load([base, save_model(tmp_path / "c", make_test_plan(n_channels=2))])
    with pytest.raises(ModelError, match="does not exist"):
        load(tmp_path / "mistyped")


def test_tta_uses_the_axes_that_training_mirrored(tmp_path, caplog):
    image, _ = make_volumes((20, 20, 20))
    plan = make_test_plan()
    case = prepare(Image(array_CZYX=image, geometry=Geometry.plain((20, 20, 20))), plan)
    folder = save_model(tmp_path / "m", plan, mirror_axes=(1,))
    given = load(folder, tta=True).predict(image, spacing=(1.0, 1.0, 1.0), probabilities=True).probabilities_KZYX
    network = ModelBundle.load(folder).build()
    logits = predict_logits(
        network, case.image_CZYX, plan=plan, window=SlidingWindow(tta=True), mirror_axes=(1,), precision="fp32"
    )
    np.testing.assert_allclose(given, logits.softmax(0).numpy(), atol=1e-5)
    with caplog.at_level(logging.WARNING):
        load(save_model(tmp_path / "unmirrored"), tta=True)
    assert "without mirroring" in caplog.text


def test_a_folder_of_images(model, images, tmp_path):
    output = tmp_path / "out"
    calls = []
    done = predict_files(load(model), images, output, progress=lambda *a: calls.append(a))
    assert calls == [(1, 3, "a"), (2, 3, "b"), (3, 3, "c")]
    assert sorted(p.name for p in output.iterdir()) == [f"{i}{s}" for i in "abc" for s in (".json", ".nii.gz")]
    for file in done:
        given = nibabel.load(images / file.path.name)
        written = nibabel.load(file.path)
        assert written.shape == given.shape[:3]
        assert np.array_equal(written.affine, given.affine)
        for field in ("qform_code", "sform_code", "xyzt_units"):
            assert written.header[field] == given.header[field]
        assert written.get_data_dtype() == np.uint8
        expected = load(model).predict(images / file.path.name)
        np.testing.assert_array_equal(read_label(file.path).array_ZYX, expected.label_ZYX)


def test_the_first_images_alone_when_told(model, images, tmp_path):
    names = sorted(p.name for p in images.glob("*.nii*"))
    done = predict(model, images, tmp_path / "out", options=PredictOptions(device="cpu"), cases=2)
    assert len(names) > 2
    assert [p.path.name for p in done] == sorted(p.name for p in (tmp_path / "out").glob("*.nii*")) == names[:2]
    with pytest.raises(OptionError, match="--cases must be at least 1"):
        predict(model, images, tmp_path / "other", cases=0)


def test_the_json_says_how_it_was_made(model, images, tmp_path):
    load(model, tta=True)
    predict_files(load(model, tta=True, overlap=0.25, blend="constant"), images / "a.nii.gz", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "a.json").read_text())
    assert record["inputs"] == ["a.nii.gz"]
    assert str(tmp_path) not in json.dumps(record)
    assert "Research use only" in record["notice"]
    settings = record["settings"]
    assert (settings["tta"], settings["overlap"], settings["blend"]) == (True, 0.25, "constant")
    (used,) = settings["models"]
    assert used["digest"] == ModelBundle.load(model).digest
    assert (used["engine"], used["precision"], record["device"]) == ("torch", "fp32", "cpu")
    assert set(record["volumes_ml"]) == {"c1", "c2"}
    assert record["seconds"] > 0


def test_warnings_are_recorded(images, tmp_path):
    narrow = Range(low=1.0, high=1.0)
    plan = make_test_plan(
        training_ranges=TrainingRanges(
            spacing=(narrow,) * 3, size=(Range(low=0, high=1e3),) * 3, intensity=(Range(low=-1e9, high=1e9),)
        )
    )
    (done,) = predict_files(load(save_model(tmp_path / "m", plan)), images / "a.nii.gz", tmp_path / "out")
    assert any(w.startswith("spacing along axis 0 is 1.5 mm") for w in done.record.warnings)


@pytest.mark.parametrize("several", [False, True], ids=["one plan", "2D with 3D"])
def test_where_probabilities_are_kept_changes_no_bit_of_them(model, images, tmp_path, several):
    models = [model, save_model(tmp_path / "2d", make_test_plan(2), seed=1)] if several else [model]
    predictor = load(models, batch_size=1)
    for name in "abc":
        ready = predictor.prepare(read_image(images / f"{name}.nii.gz"))
        in_memory = predictor.compute(ready, probabilities=ProbabilityArray)
        on_disk = predictor.compute(ready, probabilities=partial(ProbabilityFile.nifti, tmp_path))
        on_disk.probabilities.move_to(tmp_path / f"{name}.nii")
        np.testing.assert_array_equal(read_image(tmp_path / f"{name}.nii").array_CZYX, in_memory.probabilities_KZYX)


@pytest.mark.parametrize("several", [False, True], ids=["one plan", "2D with 3D"])
def test_probabilities_on_disk_are_those_in_memory(model, images, tmp_path, several):
    models = [model, save_model(tmp_path / "2d", make_test_plan(2), seed=1)] if several else [model]
    predict_files(load(models, batch_size=1), images, tmp_path / "out", save_probabilities=True)
    for name in "abc":
        written = read_image(tmp_path / "out" / f"{name}_probabilities.nii")
        expected = load(models, batch_size=1).predict(images / f"{name}.nii.gz", probabilities=True)
        # Images for files are prepared in a reader's thread, where sums are taken in another order now and then.
        np.testing.assert_allclose(written.array_CZYX, expected.probabilities_KZYX, rtol=0, atol=1e-6)
        np.testing.assert_allclose(written.array_CZYX.sum(0), 1, atol=1e-5)
        label = read_label(tmp_path / "out" / f"{name}.nii.gz")
        assert written.geometry == label.geometry
        np.testing.assert_array_equal(written.array_CZYX.argmax(0), label.array_ZYX)
    assert len(list((tmp_path / "out").iterdir())) == 9


def test_a_failed_case_leaves_no_probabilities(model, images, tmp_path, monkeypatch):
    def full(self, output, first, planes_ZYX):
        if first > 4:
            raise OutputError("is full", where=self.path.parent)

    monkeypatch.setattr(ProbabilityFile, "put", full)
    with pytest.raises(CasesFailedError, match="is full"):
        predict_files(load(model), images / "a.nii.gz", tmp_path / "out", save_probabilities=True)
    assert not list((tmp_path / "out").iterdir())


KILLED = """
import os, signal, sys
from functools import partial
from pathlib import Path
from decathlete.inference.predict_files import predict_files
from decathlete.inference.predict import Predictor
from decathlete.inference.output.probabilities import ProbabilityFile

put = ProbabilityFile.put
def killed(self, output, first, planes_ZYX):
    put(self, output, first, planes_ZYX)
    if first > 4:
        os.kill(os.getpid(), signal.SIGKILL)

ProbabilityFile.put = killed
model, image, output = map(Path, sys.argv[1:])
predict_files(Predictor.load(model, device="cpu"), image, output, save_probabilities=True)
"""


def test_a_killed_run_leaves_no_probabilities_names_its_case_and_is_repeated(model, images, tmp_path, caplog):
    output = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, model, images / "a.nii.gz", output], check=False)
    assert done.returncode == -signal.SIGKILL
    left = [p.name for p in output.iterdir() if not p.name.startswith(".partial-")]
    assert set(left) == {".in_work", LOCK_NAME}, "the file is left, its lock is not held"
    assert len(list(output.iterdir())) == 3
    predict_files(load(model), images / "a.nii.gz", output, save_probabilities=True)
    assert "was ended while it predicted 1 case: a (" in caplog.text
    assert sorted(p.name for p in output.iterdir()) == ["a.json", "a.nii.gz", "a_probabilities.nii"]


def test_within_a_limit_of_memory_one_case_is_there_at_a_time(model, images, tmp_path, monkeypatch):
    there, most = [], []
    prepare, write = Predictor.prepare, output_kind.write_label
    monkeypatch.setattr(
        Predictor, "prepare", lambda *a, **k: (there.append(1), most.append(len(there)), prepare(*a, **k))[-1]
    )
    monkeypatch.setattr(output_kind, "write_label", lambda *a, **k: (there.pop(), write(*a, **k))[-1])
    predict_files(load(model, memory_gb=1), images, tmp_path / "out")
    assert (most, there) == ([1, 1, 1], [])
    for name in "abc":
        expected = load(model).predict(images / f"{name}.nii.gz").label_ZYX
        np.testing.assert_array_equal(read_label(tmp_path / "out" / f"{name}.nii.gz").array_ZYX, expected)


def test_channels_in_files_of_their_own(tmp_path):
    model = save_model(tmp_path / "m", make_test_plan(n_channels=2))
    folder = tmp_path / "images"
    image, _ = make_volumes((8, 9, 10), n_channels=2)
    for channel in range(2):
        write_image(folder / f"x_{channel:04d}.nii.gz", image[channel : channel + 1], oblique((8, 9, 10)))
    (done,) = predict_files(load(model), folder, tmp_path / "out")
    assert done.path.name == "x.nii.gz"
    assert done.record.inputs == ("x_0000.nii.gz", "x_0001.nii.gz")
    (folder / "x_0001.nii.gz").unlink()
    with pytest.raises(CasesFailedError, match="2 channels"):
        predict_files(load(model), folder, tmp_path / "other")


def test_two_files_of_one_case_do_not_stop_the_others(model, images, tmp_path):
    image = read_image(images / "b.nii.gz")
    write_image(images / "c.nii", image.array_CZYX, image.geometry)
    with pytest.raises(CasesFailedError, match="c comes twice") as error:
        predict(model, images, tmp_path / "out", options=PredictOptions(device="cpu"))
    assert set(error.value.failures) == {"c"}
    assert {p.name for p in (tmp_path / "out").glob("*.nii.gz")} == {"a.nii.gz", "b.nii.gz"}
    done = predict(model, images, tmp_path / "one", options=PredictOptions(device="cpu"), cases=2)
    assert [file.case_id for file in done] == ["a", "b"]


def test_one_truncated_file_does_not_stop_the_others(model, images, tmp_path):
    whole = (images / "b.nii.gz").read_bytes()
    (images / "b.nii.gz").write_bytes(whole[: len(whole) // 2])
    output = tmp_path / "out"
    with pytest.raises(CasesFailedError) as failed:
        predict_files(load(model), images, output)
    assert list(failed.value.failures) == ["b"]
    assert failed.value.n_done == 2
    assert sorted(p.name for p in output.iterdir()) == ["a.json", "a.nii.gz", "c.json", "c.nii.gz"]
    (images / "b.nii.gz").write_bytes(whole)
    done = predict_files(load(model), images, output)
    assert [d.kept for d in done] == [True, False, True]


SHORT = {
    "the network, on a CPU": (
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        "engines.torch:TorchEngine._compute",
    ),
    "a copy, on a GPU": (torch.OutOfMemoryError("CUDA out of memory"), "windows.tiles:TiledAccumulator.add"),
    "the way back": (MemoryError("Unable to allocate 9 TiB"), "output.restore:Restorer.finish"),
    "reading": (MemoryError("Unable to allocate 9 TiB"), "predict_files:read_channels"),
    "writing": (MemoryError(), "predict_files:write_outputs"),
}


@pytest.mark.parametrize("where", SHORT)
def test_memory_that_one_case_does_not_fit_into_does_not_stop_the_others(model, images, tmp_path, monkeypatch, where):
    error, target = SHORT[where]
    module, _, rest = target.partition(":")
    name = f"decathlete.inference.{module}.{rest}"
    holder, _, attribute = name.rpartition(".")
    original = operator.attrgetter(rest)(importlib.import_module(f"decathlete.inference.{module}"))
    calls = []

    def first_too_large(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(f"{holder}.{attribute}", first_too_large)
    with pytest.raises(CasesFailedError, match=r"a: out of memory for[^\n]*\n\s+→ ") as failed:
        predict_files(load(model, batch_size=1), images, tmp_path / "out")
    assert list(failed.value.failures) == ["a"]
    assert failed.value.exit_code == 2
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["b.json", "b.nii.gz", "c.json", "c.nii.gz"]


def test_one_window_at_a_time_predicts_the_same(model, images):
    whole, single = (load(model, batch_size=n).predict(images / "b.nii.gz", probabilities=True) for n in (8, 1))
    np.testing.assert_allclose(whole.probabilities_KZYX, single.probabilities_KZYX, atol=1e-5)


def test_finished_predictions_are_kept(model, images, tmp_path):
    output = tmp_path / "out"
    predict_files(load(model), images, output)
    before = {p: p.stat().st_mtime_ns for p in output.iterdir()}
    kept = predict_files(load(model), images, output, overwrite=True)
    assert all(d.kept for d in kept)
    assert len({id(d.record.settings) for d in kept}) == 1  # held once, however many cases there are
    assert before == {p: p.stat().st_mtime_ns for p in output.iterdir()}


def test_probabilities_that_were_cut_are_computed_again(model, images, tmp_path):
    """Not those that are whole; and a file that has no header any more is no error."""
    out = tmp_path / "out"
    predict_files(load(model), images, out, save_probabilities=True)
    known = {path.name: path.read_bytes() for path in out.glob("*_probabilities.nii")}
    for name, cut in (("a", len(known["a_probabilities.nii"]) - 4), ("b", 100)):
        with (out / f"{name}_probabilities.nii").open("r+b") as stream:
            stream.truncate(cut)
    done = predict_files(load(model), images, out, save_probabilities=True)
    assert {prediction.case_id: prediction.kept for prediction in done} == {"a": False, "b": False, "c": True}
    assert {path.name: path.read_bytes() for path in out.glob("*_probabilities.nii")} == known


def test_asking_for_probabilities_later_adds_them(model, images, tmp_path):
    predict_files(load(model), images, tmp_path / "out")
    done = predict_files(load(model), images, tmp_path / "out", save_probabilities=True)
    assert not any(d.kept for d in done)
    assert len(list((tmp_path / "out").glob("*_probabilities.nii"))) == 3
    assert all(d.kept for d in predict_files(load(model), images, tmp_path / "out"))


@pytest.mark.parametrize("change", ["settings", "input", "edited", "foreign"])
def test_anything_else_in_the_way_is_refused(model, images, tmp_path, change):
    output = tmp_path / "out"
    output.mkdir()
    predictor = load(model)
    if change == "foreign":
        (output / "b.nii.gz").write_bytes(b"someone's own work")
    else:
        predict_files(predictor, images, output)
    if change == "settings":
        predictor = load(model, overlap=0.25)
    elif change == "input":
        write_image(images / "b.nii.gz", make_volumes((9, 9, 9))[0], oblique((9, 9, 9)))
    elif change == "edited":
        (output / "b.nii.gz").write_bytes(b"corrected by hand")
    before = {p: p.read_bytes() for p in output.iterdir()}
    with pytest.raises(OutputError, match=r"b\.nii\.gz.*\n.*--overwrite"):
        predict_files(predictor, images, output)
    assert before == {p: p.read_bytes() for p in output.iterdir()}
    done = predict_files(predictor, images, output, overwrite=True)
    assert not {d.case_id: d for d in done}["b"].kept
    assert all(d.kept for d in predict_files(predictor, images, output))


def test_a_run_killed_before_the_label_was_in_place_goes_on(model, images, tmp_path):
    output = tmp_path / "out"
    predict_files(load(model), images, output)
    (output / "b.nii.gz").unlink()
    (output / ".partial-0123-c.nii.gz").touch()
    done = predict_files(load(model), images, output)
    assert [d.kept for d in done] == [True, False, True]
    assert not list(output.glob(".partial-*"))


def test_places_that_cannot_be_used(model, images, tmp_path):
    predictor = load(model)
    with pytest.raises(OutputError, match="contains the input images"):
        predict_files(predictor, images, images, overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        predict_files(predictor, images, tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no images"):
        predict_files(predictor, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(DatasetError, match="no images"):
        predict_files(predictor, {}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
