"""Prediction with bundles of several members: combination, temperature, post-processing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from decathlete.core.geometry import Geometry
from decathlete.errors import ModelError, OptionError, OutputError
from decathlete.export.exporters import CheckWindows
from decathlete.export.programs import ProgramSource
from decathlete.inference.options import PredictOptions
from decathlete.inference.output.apply_postprocessing import build_steps, postprocess
from decathlete.inference.predict import Predictor
from decathlete.io.images import read_image, read_label, write_image
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.models.combine import combine_bundles
from decathlete.models.record import Combination, PostprocessingStep
from decathlete.networks.build import build_network
from decathlete.workflows.export_model import export_model, export_onnx
from decathlete.workflows.predict import predict
from factories import make_test_plan, make_volumes

SPACING = (1.0, 1.0, 1.0)
LARGEST = PostprocessingStep(name="keep_largest_component")


def save_model(folder: Path, dims: int = 3, *, seeds=(0,), mirror_axes=(0, 1), **options) -> Path:
    plan = make_test_plan(dims)
    networks = [build_network(plan.network, seed=seed) for seed in seeds]
    return ModelBundle.save(
        folder, TrainedMember(plan=plan, networks=networks, mirror_axes=mirror_axes), **options
    ).folder


def run(models, image, **options):
    predictor = Predictor.load(models, device="cpu", precision="fp32", engine="torch", **options)
    return predictor.predict(image, spacing=SPACING, probabilities=True)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return make_volumes((18, 20, 22))[0]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[Path]:
    """Three folds of one 3D plan, two of them in one bundle, around a 2D model; mirrored along different axes."""
    folder = tmp_path_factory.mktemp("models")
    return [
        save_model(folder / "first", seeds=(1, 2), mirror_axes=(0, 1, 2)),
        save_model(folder / "flat", 2, seeds=(3,)),
        save_model(folder / "last", seeds=(4,), mirror_axes=(1, 2)),
    ]


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("chosen", [[0, 2], [0, 1, 2], [1]])
def test_a_combined_bundle_predicts_what_the_list_of_models_predicts(models, image, tmp_path, chosen, tta):
    chosen_models = [models[i] for i in chosen]
    combined = combine_bundles(chosen_models, tmp_path / "combined")
    assert len(combined.members) == len(chosen)
    expected, found = (run(m, image, tta=tta) for m in (chosen_models, combined.folder))
    assert np.array_equal(found.probabilities_KZYX, expected.probabilities_KZYX)
    assert np.array_equal(found.label_ZYX, expected.label_ZYX)
    assert len(np.unique(found.label_ZYX)) > 1


def test_a_combined_bundle_holds_what_its_models_held(models, tmp_path):
    combined = combine_bundles(models, tmp_path / "combined")
    sources = [ModelBundle.load(model) for model in models]
    assert [member.name for member in combined.record.members] == ["3d", "2d", "3d-2"]
    assert combined.record.provenance["combined_from"] == [source.digest for source in sources]
    assert combined.record.n_networks == 4
    assert combined.digest not in {source.digest for source in sources}
    for member, source in zip(combined.members, sources, strict=True):
        assert member.record.mirror_axes == source.record.mirror_axes
        for network, expected in zip(member.build_all(), source.members[0].build_all(), strict=True):
            for name, value in network.state_dict().items():
                assert torch.equal(value, expected.state_dict()[name]), name
    again = combine_bundles([combined.folder, models[0]], tmp_path / "again")
    assert [member.name for member in again.record.members] == ["3d", "2d", "3d-2", "3d-3"]


def test_weights_of_plans(models, image, tmp_path):
    combined = combine_bundles(models[:2], tmp_path / "combined", weights=[3, 1])
    assert combined.record.combination.weights == (3.0, 1.0)
    parts = [run(model, image).probabilities_KZYX for model in models[:2]]
    found = run(combined.folder, image)
    np.testing.assert_allclose(found.probabilities_KZYX, 0.75 * parts[0] + 0.25 * parts[1], atol=1e-6)
    assert not np.allclose(found.probabilities_KZYX, (parts[0] + parts[1]) / 2, atol=1e-3)
    with pytest.raises(OptionError, match="1 weights for 2 models"):
        combine_bundles(models[:2], tmp_path / "other", weights=[1])
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(OptionError, match="are not all positive"):
            combine_bundles(models[:2], tmp_path / "other", weights=[1, wrong])
    with pytest.raises(ModelError, match="members of one plan have different weights"):
        combine_bundles([models[0], models[2]], tmp_path / "other", weights=[1, 2])
    with pytest.raises(ModelError, match="another weights"):
        Predictor.load([combined.folder, models[2]], device="cpu")
    assert combine_bundles([combined.folder], tmp_path / "copy").record.combination == combined.record.combination


@pytest.mark.parametrize("several_plans", [False, True])
def test_temperature_divides_the_logits_before_they_become_probabilities(models, image, tmp_path, several_plans):
    chosen = models[:2] if several_plans else models[:1]
    hot = [combine_bundles([model], tmp_path / str(i), temperature=2.5).folder for i, model in enumerate(chosen)]
    plain = [run(model, image) for model in chosen]
    found = run(hot, image)
    # exp(log(p) / T), normalised, is the softmax of the logits divided by T
    powers = [p.probabilities_KZYX.astype(np.float64) ** (1 / 2.5) for p in plain]
    expected = np.mean([power / power.sum(axis=0) for power in powers], axis=0)
    np.testing.assert_allclose(found.probabilities_KZYX, expected, atol=1e-5)
    if not several_plans:
        assert np.array_equal(found.label_ZYX, plain[0].label_ZYX)
        assert found.probabilities_KZYX.max() < plain[0].probabilities_KZYX.max()


def test_post_processing_changes_the_label_map_and_its_volumes(models, image, tmp_path):
    cleaned = combine_bundles([models[0]], tmp_path / "cleaned", postprocessing=[LARGEST])
    plain, found = run(models[0], image), run(cleaned.folder, image)
    labels = cleaned.record.labels
    expected = postprocess(
        plain.label_ZYX, Geometry.plain(image.shape[1:], spacing_ZYX=SPACING), labels, build_steps([LARGEST], labels)
    )
    assert np.array_equal(found.label_ZYX, expected)
    assert not np.array_equal(found.label_ZYX, plain.label_ZYX)
    assert found.volumes_ml["c1"] == pytest.approx(np.count_nonzero(expected == 1) / 1000)
    assert np.array_equal(found.probabilities_KZYX, plain.probabilities_KZYX)


def test_small_images_that_share_batches_get_the_same(models, tmp_path):
    """Temperature and post-processing are applied whether a case is computed alone or with others."""
    model = combine_bundles([models[2]], tmp_path / "m", temperature=2.0, postprocessing=[LARGEST]).folder
    predictor = Predictor.load(model, device="cpu", precision="fp32", engine="torch", batch_size=4)
    for seed in range(3):
        volume = make_volumes((14, 15, 16), seed=seed)[0]
        write_image(tmp_path / "images" / f"{seed}.nii.gz", volume, Geometry.plain((14, 15, 16), spacing_ZYX=SPACING))
    options = PredictOptions(device="cpu", precision="fp32", engine="torch", batch_size=4)
    done = predict(model, tmp_path / "images", tmp_path / "out", options=options, save_probabilities=True)
    for seed, file in enumerate(done):
        alone = predictor.predict(tmp_path / "images" / f"{seed}.nii.gz", probabilities=True)
        written = tmp_path / "out" / f"{seed}.nii.gz", tmp_path / "out" / f"{seed}_probabilities.nii"
        assert np.array_equal(read_label(written[0]).array_ZYX, alone.label_ZYX), file
        np.testing.assert_allclose(read_image(written[1]).array_CZYX, alone.probabilities_KZYX, atol=1e-5)


def test_every_member_is_recorded_beside_a_prediction(models, image, tmp_path):
    combined = combine_bundles(models[:2], tmp_path / "combined")
    write_image(tmp_path / "images" / "a.nii.gz", image, Geometry.plain(image.shape[1:], spacing_ZYX=SPACING))
    predict(combined.folder, tmp_path / "images", tmp_path / "out", options=PredictOptions(device="cpu"))
    used = json.loads((tmp_path / "out" / "a.json").read_text())["settings"]["models"]
    assert [(model["digest"], model["dims"]) for model in used] == [(combined.digest, 3), (combined.digest, 2)]


def test_models_with_different_settings_are_not_mixed(models, tmp_path):
    hot = combine_bundles([models[0]], tmp_path / "hot", temperature=2.0)
    cleaned = combine_bundles([models[0]], tmp_path / "cleaned", postprocessing=[LARGEST])
    for other, message in ((hot, "another temperature"), (cleaned, "another postprocessing")):
        with pytest.raises(ModelError, match=rf"{other.folder.name}: has {message} than .*first"):
            Predictor.load([models[0], other.folder], device="cpu")
        with pytest.raises(ModelError, match=message):
            combine_bundles([models[0], other.folder], tmp_path / "new")
    both = combine_bundles([hot.folder, cleaned.folder], tmp_path / "new", temperature=1.0, postprocessing=())
    assert (both.record.temperature, both.record.postprocessing) == (1.0, ())


def test_post_processing_that_cannot_be_run_is_found_before_any_image(tmp_path):
    for step, message in (
        (PostprocessingStep(name="sharpen"), "no postprocessing called 'sharpen'"),
        (PostprocessingStep(name="fill_holes", settings={"structures": ["liver"]}), "unknown structures: liver"),
    ):
        model = save_model(tmp_path / step.name, postprocessing=[step])
        with pytest.raises(ModelError, match=message):
            Predictor.load(model, device="cpu")


def test_combining_refuses_what_is_in_the_way(models, tmp_path):
    (tmp_path / "work").mkdir()
    with pytest.raises(OutputError, match="is not a model"):
        combine_bundles(models, tmp_path / "work", overwrite=True)
    combine_bundles(models[:1], tmp_path / "m")
    with pytest.raises(OutputError, match="already exists"):
        combine_bundles(models, tmp_path / "m")
    assert len(combine_bundles(models, tmp_path / "m", overwrite=True).members) == 3
    with pytest.raises(OptionError, match="no model"):
        combine_bundles([], tmp_path / "none")


def test_a_model_may_replace_itself(models, image, tmp_path):
    model = combine_bundles([models[0]], tmp_path / "m").folder
    expected = run(model, image)
    hot = combine_bundles([model], model, temperature=2.0, overwrite=True)
    assert hot.record.temperature == 2.0
    assert np.array_equal(run(model, image).label_ZYX, expected.label_ZYX)


def test_exported_programs_keep_temperature_and_post_processing(models, tmp_path):
    model = combine_bundles([models[0]], tmp_path / "m", temperature=2.0, postprocessing=[LARGEST])
    record = ProgramSource.of(model, CheckWindows(windows=[], origin="")).record
    assert (record.temperature, record.postprocessing, record.networks) == (2.0, (LARGEST,), 2)
    folds = ProgramSource.of(
        combine_bundles([models[0], models[2]], tmp_path / "folds"), CheckWindows(windows=[], origin="")
    ).record
    assert (folds.networks, folds.mirror_axes) == (3, (1, 2))
    with pytest.raises(ModelError, match="different plans"):
        ProgramSource.of(combine_bundles(models, tmp_path / "all"), CheckWindows(windows=[], origin=""))


def test_a_model_of_several_plans_is_exported_as_a_program_of_each(models, image, tmp_path):
    pytest.importorskip("onnxruntime")
    combined = combine_bundles(models[:2], tmp_path / "both", temperature=2.0, postprocessing=[LARGEST])
    exported = export_model("onnx", combined.folder, tmp_path / "programs")
    assert [part.path for part in exported.parts] == [tmp_path / "programs" / name for name in ("3d", "2d")]
    assert f"--model {tmp_path / 'programs' / '3d'} --model {tmp_path / 'programs' / '2d'}" in exported.summary
    expected = run(combined.folder, image)
    programs = Predictor.load([part.path for part in exported.parts], device="cpu")
    found = programs.predict(image, spacing=SPACING, probabilities=True)
    np.testing.assert_allclose(found.probabilities_KZYX, expected.probabilities_KZYX, atol=1e-4)
    with pytest.raises(OutputError, match="exists"):
        export_model("onnx", combined.folder, tmp_path / "programs")
    with pytest.raises(OptionError, match="several plans"):
        export_model("onnx", combined.folder, tmp_path / "program.onnx")
    with pytest.raises(ModelError, match="different plans"):
        export_onnx(combined.folder, tmp_path / "one")
    weighted = combine_bundles(models[:2], tmp_path / "weighted", weights=[3, 1])
    with pytest.raises(ModelError, match="weights the probabilities"):
        export_model("onnx", weighted.folder, tmp_path / "weighted_programs")


def test_weights_that_are_equal_change_nothing(models, image, tmp_path):
    bundle = ModelBundle.load(models[1])
    assert bundle.record.combination == Combination()
    equal = combine_bundles(models[:2], tmp_path / "equal", weights=[2, 2])
    assert np.array_equal(run(equal.folder, image).label_ZYX, run(models[:2], image).label_ZYX)
