"""Many small images: their windows share batches, and nothing else."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from decathlete.core.geometry import Geometry
from decathlete.core.parallel import Outcome
from decathlete.core.sliding_window import SlidingWindow
from decathlete.errors import CasesFailedError, InsufficientMemoryError
from decathlete.inference.batching import cases as together
from decathlete.inference.batching.cases import predict_cases
from decathlete.inference.batching.shared_batches import CaseRequest
from decathlete.inference.predict import Predictor
from decathlete.inference.predict_files import predict_files
from decathlete.inference.sources import as_image
from decathlete.inference.windows.sweep import windows_per_batch
from decathlete.io.images import read_image, read_label, write_image
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from factories import make_test_plan, make_volumes
from training_support import SimulatedClock

# With patches of 16 cubed: 1, 2, 1, 4, 1, 1, 3 and 1 windows; in 2D a window for each slice, or four.
SHAPES = ((16, 16, 16), (24, 12, 16), (9, 16, 11), (20, 10, 24), (16, 16, 16), (5, 6, 7), (31, 16, 16), (12, 16, 16))
FLAT_SHAPES = ((1, 16, 16), (2, 14, 16), (1, 20, 20), (3, 9, 16), (1, 16, 16))


class Recording:
    """An engine that tells how many windows it was given at a time, and fails where it is told to."""

    name, precision, n_buffered_windows = "torch", "fp32", 0

    def __init__(self, engine, fails=lambda windows: False):
        self.engine, self.fails = engine, fails
        self.device = engine.device
        self.batches = []

    def __call__(self, windows):
        self.batches.append(len(windows))
        if self.fails(windows):
            raise InsufficientMemoryError("out of memory for this", remedy="none")
        return self.engine(windows)


def save_model(folder, dims=3, seed=0, **changes):
    plan = make_test_plan(dims, **changes)
    axes = tuple(range(dims))
    ModelBundle.save(
        folder, TrainedMember(plan=plan, networks=[build_network(plan.network, seed=seed)], mirror_axes=axes)
    )
    return folder


def recording(models, *, fails=lambda windows: False, **options):
    predictor = Predictor.load(models, engine="torch", device="cpu", precision="fp32", **options)
    predictor.ensembles = tuple(
        replace(ensemble, engines=tuple(Recording(engine, fails) for engine in ensemble.engines))
        for ensemble in predictor.ensembles
    )
    return predictor


def batches(predictor, number=0):
    return predictor.ensembles[number].engines[0].batches


def save_images(folder, shapes=SHAPES):
    for number, shape in enumerate(shapes):
        image, _ = make_volumes(shape, seed=number)
        write_image(folder / f"case{number}.nii.gz", image, Geometry.plain(shape, spacing_ZYX=(1.0, 1.0, 1.0)))
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return save_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "m")


def assert_same_files(found, expected):
    names = sorted(path.name for path in expected.glob("*.nii*"))
    assert names == sorted(path.name for path in found.glob("*.nii*"))
    for name in names:
        if name.endswith("_probabilities.nii"):
            ours, theirs = (read_image(folder / name).array_CZYX for folder in (found, expected))
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
        else:
            ours, theirs = (read_label(folder / name).array_ZYX for folder in (found, expected))
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("tta", [False, True])
def test_windows_of_several_cases_fill_batches_and_change_no_prediction(model, images, tmp_path, tta):
    shared, alone = (recording(model, batch_size=n, tta=tta) for n in (5, 1))
    done = predict_files(shared, images, tmp_path / "shared", save_probabilities=True)
    predict_files(alone, images, tmp_path / "alone", save_probabilities=True)
    assert [file.case_id for file in done] == [f"case{i}" for i in range(len(SHAPES))]
    flips = 8 if tta else 1
    assert batches(alone) == [1] * 14 * flips
    assert batches(shared) == [5] * 2 * flips + [4] * flips
    assert_same_files(tmp_path / "shared", tmp_path / "alone")


def test_small_flat_images_share_batches_unasked(tmp_path):
    model = save_model(tmp_path / "m", 2)
    images = save_images(tmp_path / "images", FLAT_SHAPES)
    shared, alone = recording(model), recording(model, batch_size=1)
    for predictor, name in ((shared, "shared"), (alone, "alone")):
        predict_files(predictor, images, tmp_path / name)
    assert (batches(shared), batches(alone)) == ([8, 3], [1] * 11)
    assert_same_files(tmp_path / "shared", tmp_path / "alone")


def test_images_that_models_of_several_plans_average_are_computed_alone(model, tmp_path):
    predictor = recording([model, save_model(tmp_path / "2d", 2, seed=1)], batch_size=64)
    groups = predict_cases(predictor, asked(predictor, SHAPES[:3]))
    assert [len(group) for group in groups if group] == [1, 1, 1]
    assert batches(predictor, 0) == [1, 2, 1]


def asked(predictor, shapes):
    for number, shape in enumerate(shapes):
        image, _ = make_volumes(shape, seed=number)
        ready = predictor.prepare(as_image(image, spacing=(1.0, 1.0, 1.0)))
        yield Outcome(case_id=str(number), value=CaseRequest(prepared=ready, payload=number))


def test_a_case_that_fills_a_batch_is_computed_alone_and_nothing_beside_it(model):
    predictor = recording(model, batch_size=4)
    small, large = (16, 16, 16), (40, 16, 16)
    groups = predict_cases(predictor, asked(predictor, (small, small, large, small)))
    finished = [[outcome.case_id for outcome in group] for group in groups]
    assert [group for group in finished if group] == [["0", "1"], ["2"], ["3"]]
    assert batches(predictor) == [2, 4, 1]


def test_no_more_cases_are_open_than_windows_fit_into_a_batch(model):
    predictor, taken, done = recording(model, batch_size=3), [], 0

    def cases():
        for outcome in asked(predictor, SHAPES * 3):
            taken.append(outcome)
            yield outcome

    for group in predict_cases(predictor, cases()):
        done += len(group)
        assert len(taken) - done < 3
    assert done == 24


@pytest.mark.parametrize("why", ["bytes", "memory"])
def test_what_would_hold_too_much_together_is_computed_alone(model, why, monkeypatch):
    limit = 2 * 10**9 if why == "memory" else None
    predictor = recording(model, batch_size=8, memory_gb=limit and limit / 1e9)
    if why == "bytes":
        monkeypatch.setattr(together, "SHARED_BYTES", 200_000)  # 16 cubed holds 86 kB: two of them, and no third
    groups = [len(group) for group in predict_cases(predictor, asked(predictor, ((16, 16, 16),) * 5)) if group]
    assert (groups, batches(predictor)) == (([2, 2, 1],) * 2 if why == "bytes" else ([1] * 5,) * 2)


def test_a_window_that_memory_does_not_hold_fails_its_own_case(model, images, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for path in images.iterdir():
        (folder / path.name).symlink_to(path)
    peak = np.ones((1, 16, 16, 16), np.float32)
    peak[0, 8, 8, 8] = 1e6  # far above all others also when it is normalised
    write_image(folder / "case3_peak.nii.gz", peak, Geometry.plain((16, 16, 16), spacing_ZYX=(1.0, 1.0, 1.0)))
    predictor = recording(model, batch_size=5, fails=lambda windows: windows.max() > 50)
    with pytest.raises(CasesFailedError, match=r"case3_peak: out of memory for[^\n]*\n\s+→ ") as failed:
        predict_files(predictor, folder, tmp_path / "shared")
    assert list(failed.value.failures) == ["case3_peak"]
    predict_files(recording(model, batch_size=1), images, tmp_path / "alone")
    assert_same_files(tmp_path / "shared", tmp_path / "alone")


def test_memory_that_holds_each_case_but_not_a_batch_of_several_fails_none(model, images, tmp_path):
    predictor = recording(model, batch_size=5, fails=lambda windows: len(windows) > 4)
    predict_files(predictor, images, tmp_path / "shared")
    predict_files(recording(model, batch_size=1), images, tmp_path / "alone")
    assert_same_files(tmp_path / "shared", tmp_path / "alone")


@pytest.mark.parametrize(
    "where", ["windows.tiles.TiledAccumulator.add", "output.restore.Restorer.add", "output.restore.Restorer.finish"]
)
def test_a_case_whose_sums_or_way_back_fail_fails_alone(model, images, tmp_path, monkeypatch, where):
    module, kind, method = where.rsplit(".", 2)
    holder = getattr(__import__(f"decathlete.inference.{module}", fromlist=[kind]), kind)
    original, calls = getattr(holder, method), []

    def second_too_large(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(*args, **kwargs)

    monkeypatch.setattr(holder, method, second_too_large)
    with pytest.raises(CasesFailedError, match="case1: out of memory for the prediction") as failed:
        predict_files(recording(model, batch_size=5), images, tmp_path / "out")
    assert list(failed.value.failures) == ["case1"]
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == len(SHAPES) - 1


def test_a_file_that_cannot_be_read_leaves_the_others_of_its_batch_alone(model, images, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for path in images.iterdir():
        (folder / path.name).write_bytes(path.read_bytes()[: 100 if path.name.startswith("case2") else None])
    predictor = recording(model, batch_size=5)
    with pytest.raises(CasesFailedError) as failed:
        predict_files(predictor, folder, tmp_path / "out")
    assert list(failed.value.failures) == ["case2"]
    assert batches(predictor) == [5, 5, 3]


def test_an_unexpected_error_is_the_failure_of_its_cases(model, images, tmp_path):
    def broken(windows):
        raise TypeError("a bug")

    with pytest.raises(CasesFailedError, match=r"8 of 8 cases[\s\S]*unexpected TypeError: a bug"):
        predict_files(recording(model, batch_size=5, fails=broken), images, tmp_path / "out")


def test_seconds_of_a_case_are_its_share(model, monkeypatch):
    """On a simulated clock: a window takes a second."""
    clock = SimulatedClock()
    monkeypatch.setattr(time, "perf_counter", clock)

    def take(windows):
        clock.now_s += len(windows)

    predictor = recording(model, batch_size=5, fails=take)
    groups = predict_cases(predictor, asked(predictor, SHAPES))
    seconds = {outcome.case_id: outcome.value[1].seconds for group in groups for outcome in group}
    assert [seconds[case_id] for case_id in sorted(seconds)] == pytest.approx([1, 2, 1, 4, 1, 1, 3, 1])


@pytest.mark.parametrize(
    ("device", "patch", "expected"),
    [
        ("cuda", (128, 128, 128), 6),
        ("mps", (16, 16, 16), 6),
        ("cuda", (512, 512), 8),
        ("cpu", (128, 128, 128), 1),
        ("cpu", (40, 56, 40), 2),
        ("cpu", (16, 16, 16), 8),
        ("cpu", (256, 256), 2),
        ("cpu", (1024, 512), 1),
    ],
)
def test_as_many_windows_as_the_plan_trains_with_but_few_on_a_cpu(device, patch, expected):
    plan = make_test_plan(len(patch), batch_size=6, patch_size=patch)
    assert windows_per_batch(SlidingWindow(), plan=plan, device=torch.device(device)) == expected
