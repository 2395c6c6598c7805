from __future__ import annotations

import shutil
import tracemalloc

import numpy as np
import pytest

from decathlete.core.geometry import Box
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.splits import make_splits
from decathlete.errors import CasesFailedError, ModelError, OutputError, StoreError
from decathlete.planning.fingerprint import Fingerprint
from decathlete.preprocessing.run import preprocess
from decathlete.preprocessing.store import PreparedStore
from decathlete.synthetic.phantoms import make_phantoms
from factories import make_test_network, make_test_plan

FINGERPRINT = Fingerprint(dataset_digest="x", cases=(), intensity=())


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return read_dataset(make_phantoms(tmp_path_factory.mktemp("raw") / "Task99_Phantom", n_cases=4))


@pytest.fixture
def own_spec(tmp_path):
    return read_dataset(make_phantoms(tmp_path / "Task98_Own", n_cases=3, shape_ZYX=(10, 12, 14)))


def _run(spec, folder, plan=None, **options):
    return preprocess(
        spec, plan or make_test_plan(), folder, fingerprint=FINGERPRINT, splits=make_splits(spec, n_folds=2), **options
    )


def _times(folder):
    return {p.name: (p / "image.b2nd").stat().st_mtime_ns for p in (folder / "cases").iterdir()}


def test_a_case_without_the_prediction_of_the_previous_stage_is_not_prepared(spec, tmp_path):
    plan = make_test_plan(previous_stage="3d_lowres", network=make_test_network(in_channels=3))
    predictions = {case.id: case.label for case in spec.cases[1:]}
    with pytest.raises(ModelError, match=f"has not predicted 1 case: {spec.cases[0].id}"):
        _run(spec, tmp_path / "p", plan, previous_stage=predictions)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("dims", [2, 3])
def test_every_case_is_there_and_a_box_equals_the_part_of_the_whole(spec, tmp_path, dims):
    seen = []
    store = _run(spec, tmp_path / "p", make_test_plan(dims), progress=lambda *step: seen.append(step))
    assert store.case_ids == tuple(c.id for c in spec.cases)
    assert [s[0] for s in seen] == [1, 2, 3, 4]
    assert {s[2] for s in seen} == set(store.case_ids)
    case = store.case(store.case_ids[0])
    image, label = case.read_image(), case.read_label()
    assert image.shape == (1, *case.shape)
    assert (image.dtype, label.dtype) == (np.float32, np.uint8)
    box = Box(start=(2, 3, 4), stop=(9, 20, 17))
    assert np.array_equal(case.read_image(box=box), image[:, *box.slices])
    assert np.array_equal(case.read_label(box=box), label[box.slices])
    assert set(case.foreground) == {1, 2}
    assert len(case.foreground) == 2
    assert all((label.reshape(-1)[places] == index).all() for index, places in case.foreground.items())
    assert 3 not in case.foreground


def test_a_second_run_keeps_everything_and_damage_is_mended(spec, tmp_path):
    folder = tmp_path / "p"
    store = _run(spec, folder)
    before = _times(folder)
    first, second, third, _ = store.case_ids
    _run(spec, folder)
    assert _times(folder) == before
    truncated = folder / "cases" / first / "image.b2nd"
    truncated.write_bytes(truncated.read_bytes()[:100])
    (folder / "cases" / second / "case.json").unlink()
    (folder / "cases" / third / "case.json").write_text("{")
    with pytest.raises(StoreError, match="3 of 4 cases are missing or damaged") as caught:
        PreparedStore.open(folder)
    assert first in str(caught.value)
    assert "decathlete preprocess" in str(caught.value)
    fixed = _run(spec, folder)
    after = _times(folder)
    assert sum(after[c] == before[c] for c in after) == 1
    assert np.isfinite(fixed.case(first).read_image()).all()


def test_an_opened_store_holds_little_of_each_case(spec, tmp_path):
    """Ten thousand cases are to cost tens of megabytes: 5 kB each for the whole command, of which this is a part."""
    folder, n = tmp_path / "p", 200
    store = _run(spec, folder)
    pattern = store.case(store.case_ids[0])
    ids = tuple(f"case_{i:05d}" for i in range(n))
    for case_id in ids:
        shutil.copytree(pattern.folder, folder / "cases" / case_id)
    store.source.revised(case_ids=ids).save(folder / "source.json")
    PreparedStore.open(folder)
    tracemalloc.start()
    try:
        opened = PreparedStore.open(folder)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert opened.case_ids == ids
    assert held / n < 2_500
    case = opened.case(ids[-1])
    assert (case.record, case.shape, case.restoration) == (pattern.record, pattern.shape, pattern.restoration)


def test_a_changed_file_is_prepared_again(own_spec, tmp_path):
    folder = tmp_path / "p"
    _run(own_spec, folder)
    before = _times(folder)
    own_spec.cases[0].label.touch()
    _run(own_spec, folder)
    after = _times(folder)
    assert [c for c in after if after[c] != before[c]] == [own_spec.cases[0].id]


def test_another_plan_is_refused_unless_overwritten(spec, tmp_path):
    folder = tmp_path / "p"
    _run(spec, folder)
    other = make_test_plan(target_spacing=(2.0, 2.0, 2.0))
    with pytest.raises(OutputError, match="another plan"):
        _run(spec, folder, other)
    assert PreparedStore.open(folder).plan == make_test_plan()
    store = _run(spec, folder, other, overwrite=True)
    assert store.case(store.case_ids[0]).shape == (12, 14, 10)


def test_a_foreground_channel_makes_other_arrays(spec, tmp_path):
    folder = tmp_path / "p"
    _run(spec, folder)
    other = make_test_plan(foreground_channel=True, network=make_test_network(in_channels=2))
    with pytest.raises(OutputError, match="another plan"):
        _run(spec, folder, other)
    store = _run(spec, folder, other, overwrite=True)
    assert store.case(store.case_ids[0]).n_channels == 2


def test_a_plan_that_differs_in_training_only_keeps_the_arrays(spec, tmp_path):
    folder = tmp_path / "p"
    _run(spec, folder)
    before = _times(folder)
    store = _run(spec, folder, make_test_plan(patch_size=(8, 8, 8)))
    assert _times(folder) == before
    assert store.plan.patch_size == (8, 8, 8)


def test_what_else_is_in_the_way_is_left_alone(spec, tmp_path):
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match="something else"):
        _run(spec, folder)
    _run(spec, folder, overwrite=True)
    assert (folder / "thesis.txt").read_text() == "precious"
    with pytest.raises(OutputError, match="is a file"):
        _run(spec, folder / "thesis.txt")


def test_one_bad_case_does_not_stop_the_others(own_spec, tmp_path):
    folder = tmp_path / "p"
    bad = own_spec.cases[1]
    bad.images[0].write_bytes(b"not an image")
    with pytest.raises(CasesFailedError) as caught:
        _run(own_spec, folder)
    assert list(caught.value.failures) == [bad.id]
    assert caught.value.n_done == 2
    assert sorted(_times(folder)) == sorted(c.id for c in own_spec.cases if c is not bad)
    assert not [p for p in folder.rglob("*") if p.name.startswith(".partial")]
    with pytest.raises(StoreError, match="1 of 3 cases"):
        PreparedStore.open(folder)


def test_what_is_no_store_is_said_so(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        PreparedStore.open(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="contains no prepared data"):
        PreparedStore.open(tmp_path)


def test_damage_inside_a_file_is_an_error_of_the_store(own_spec, tmp_path):
    store = _run(own_spec, tmp_path / "p")
    case = store.case(store.case_ids[0])
    for name, read in (("image.b2nd", case.read_image), ("foreground.npz", lambda: list(case.foreground))):
        path = case.folder / name
        path.write_bytes(bytes(path.stat().st_size))
        with pytest.raises(StoreError, match="is damaged"):
            read()
    with pytest.raises(StoreError, match="no case"):
        store.case("nobody")


def test_many_threads_read_one_case(spec, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    store = _run(spec, tmp_path / "p")
    case = store.case(store.case_ids[0])
    image = case.read_image()

    def read(seed):
        start = tuple(int(v) for v in np.random.default_rng(seed).integers(0, 10, 3))
        box = Box(start=start, stop=tuple(v + 8 for v in start))
        return np.array_equal(case.read_image(box=box), image[:, *box.slices])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(200)))
