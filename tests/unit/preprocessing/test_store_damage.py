"""Damaged prepared data are found before they are used, and `preprocess` prepares exactly them again."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decathlete.core.checksums import add_checksum, remove_checksum
from decathlete.core.geometry import Geometry
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.splits import make_splits
from decathlete.errors import OutputError, StoreError
from decathlete.io.images import Image
from decathlete.planning.fingerprint import Fingerprint
from decathlete.preprocessing.prepare import prepare
from decathlete.preprocessing.run import preprocess
from decathlete.preprocessing.store import CaseRecord, PreparedStore, StoredCase
from decathlete.preprocessing.write import write_case
from decathlete.synthetic.phantoms import make_phantoms
from factories import make_test_plan

FINGERPRINT = Fingerprint(dataset_digest="x", cases=(), intensity=())
SHARED_STORE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
"""Each example repairs the store, so that the folder may be shared."""
FILES = (
    "plan.json",
    "fingerprint.json",
    "splits.json",
    "source.json",
    *(f"cases/phantom_000/{name}" for name in ("image.b2nd", "label.b2nd", "foreground.npz", "case.json")),
)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return read_dataset(make_phantoms(tmp_path_factory.mktemp("raw") / "Task97_Tiny", n_cases=2, shape_ZYX=(9, 12, 10)))


@pytest.fixture(scope="module")
def folder(spec, tmp_path_factory) -> Path:
    return run(spec, tmp_path_factory.mktemp("prepared") / "3d").folder


def run(spec, folder: Path, **options) -> PreparedStore:
    return preprocess(
        spec,
        make_test_plan(),
        folder,
        fingerprint=FINGERPRINT,
        splits=make_splits(spec, n_folds=2),
        workers=1,
        **options,
    )


def content(store: PreparedStore) -> list[object]:
    """All that a store holds, comparable."""
    found: list[object] = [store.plan, store.fingerprint, store.splits, store.source]
    for case in map(store.case, store.case_ids):
        arrays = [case.read_image(), case.read_label(), *(dict(case.foreground).values())]
        found += [case.record.revised(sizes=case.record.sizes), sorted(case.foreground)]
        found += [(array.shape, array.dtype.str, array.tobytes()) for array in arrays]
    return found


@contextmanager
def flipped(path: Path, places: list[float], bit: int):
    """Change a bit at some relative places."""
    whole = path.read_bytes()
    changed = bytearray(whole)
    for place in set(places):
        changed[int(place * len(whole))] ^= 1 << bit
    path.write_bytes(changed)
    yield
    if path.read_bytes() == bytes(changed):
        path.write_bytes(whole)


PLACES = st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=3)


@SHARED_STORE
@given(st.sampled_from(FILES), PLACES, st.integers(0, 7))
def test_changed_bits_give_equal_data_or_an_error_and_are_repaired(spec, folder, name, places, bit):
    expected = content(PreparedStore.open(folder))
    times = {path: path.stat().st_mtime_ns for path in folder.glob("cases/phantom_001/*")}
    with flipped(folder / name, places, bit):
        with suppress(StoreError):
            assert content(PreparedStore.open(folder)) == expected
        assert content(run(spec, folder)) == expected
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.parametrize("name", ["image.b2nd", "label.b2nd"])
def test_a_bit_that_blosc2_does_not_notice(spec, tmp_path, name):
    folder = run(spec, tmp_path / "p").folder
    path = folder / "cases" / "phantom_000" / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)
    case = PreparedStore.open(folder).case("phantom_000")  # opening compares sizes only
    with pytest.raises(StoreError, match="does not match its checksum") as caught:
        case.read_image() if name == "image.b2nd" else case.read_label()
    assert (caught.value.code, caught.value.where) == ("E-STORE-DAMAGED", path)
    run(spec, folder)
    repaired = PreparedStore.open(folder).case("phantom_000")
    repaired.read_image()
    repaired.read_label()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "zeros"])
def test_files_that_are_absent_or_cut_are_repaired(spec, folder, name, damage):
    expected, path = content(PreparedStore.open(folder)), folder / name
    whole = path.read_bytes()
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "zeros": bytes(len(whole))}[damage])
    with pytest.raises(StoreError):
        content(PreparedStore.open(folder))
    assert content(run(spec, folder)) == expected


def make_old(folder: Path) -> None:
    """Write a store's files as a release without checksums did."""
    for path in folder.rglob("*.json"):
        content = json.loads(remove_checksum(path.read_text()))
        content.pop("splits_digest", None)
        if path.name == "case.json":
            content.pop("crc32")
            content["version"] = 1
        path.write_text(json.dumps(content, indent=1))


def test_a_store_without_checksums_is_read_and_gets_them(spec, tmp_path):
    new = run(spec, tmp_path / "p")
    expected = {c: new.case(c).read_image() for c in new.case_ids}
    make_old(new.folder)
    old = PreparedStore.open(new.folder)
    assert all(not old.case(c).record.crc32 for c in old.case_ids)
    assert all(np.array_equal(old.case(c).read_image(), expected[c]) for c in old.case_ids)
    times = {path: path.stat().st_mtime_ns for path in new.folder.rglob("*.b2nd")}
    again = run(spec, new.folder)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert content(again) == content(new)


def test_damage_in_a_store_without_checksums_is_repaired(spec, tmp_path):
    store = run(spec, tmp_path / "p")
    make_old(store.folder)
    path = store.folder / "cases" / "phantom_001" / "image.b2nd"
    raw = bytearray(path.read_bytes())
    raw[40:80] = bytes(40)
    path.write_bytes(raw)
    with pytest.raises(StoreError, match="is damaged"):
        PreparedStore.open(store.folder).case("phantom_001").read_image()
    run(spec, store.folder)
    assert PreparedStore.open(store.folder).case("phantom_001").read_image().shape == (1, 9, 12, 10)


def test_a_damaged_plan_does_not_let_another_plan_in(spec, tmp_path):
    folder = run(spec, tmp_path / "p").folder
    (folder / "plan.json").write_text("{")
    other = make_test_plan(target_spacing=(2.0, 2.0, 2.0))
    splits = make_splits(spec, n_folds=2)
    with pytest.raises(OutputError, match="a plan that cannot be read"):
        preprocess(spec, other, folder, fingerprint=FINGERPRINT, splits=splits)


def test_damaged_splits_do_not_let_other_folds_in(spec, tmp_path):
    folder = run(spec, tmp_path / "p").folder
    (folder / "splits.json").write_text("{")
    other = make_splits(spec, n_folds=2, seed=1)
    if other == make_splits(spec, n_folds=2):
        other = other.revised(seed=2)
    with pytest.raises(OutputError, match=r"damaged splits\.json"):
        preprocess(spec, make_test_plan(), folder, fingerprint=FINGERPRINT, splits=other)


def test_a_file_that_may_not_be_read_is_not_called_damaged(spec, tmp_path, monkeypatch):
    store = run(spec, tmp_path / "p")
    case = store.case("phantom_000")

    def refuse(self, *_args, **_options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StoreError, match=r"cannot be read \(Permission denied\)") as caught:
        case.read_image()
    assert caught.value.code == "E-FILE"
    assert "damaged" not in str(caught.value)


def test_a_file_is_verified_once(spec, tmp_path, monkeypatch):
    from decathlete.preprocessing import store as module

    case, verified = run(spec, tmp_path / "p").case("phantom_000"), []
    monkeypatch.setattr(module, "verify_file", lambda path, _: verified.append(path.name))
    for _ in range(3):
        case.read_image()
        case.read_label()
        dict(case.foreground)
    assert sorted(verified) == ["foreground.npz", "image.b2nd", "label.b2nd"]


@given(st.dictionaries(st.text(max_size=4), st.text(max_size=4) | st.integers() | st.none(), min_size=1, max_size=4))
def test_texts_keep_their_content_and_a_changed_character_is_found(value):
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    checked = add_checksum(text)
    assert json.loads(remove_checksum(checked)) == value
    assert remove_checksum(text) == text
    with pytest.raises(ValueError, match="checksum"):
        remove_checksum(checked.replace("{", "{ ", 1))


def test_a_record_names_every_file(spec, folder):
    record = PreparedStore.open(folder).case("phantom_000").record
    for changes in ({"crc32": {}}, {"sizes": record.sizes | {"../x": 1}}, {"crc32": record.crc32 | {"/etc/passwd": 1}}):
        with pytest.raises(ValueError, match="must name"):
            record.revised(**changes)
    assert isinstance(StoredCase.of(folder, record).record, CaseRecord)


def test_stores_that_were_copied_are_verified(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    assert content(PreparedStore.open(tmp_path / "copy")) == content(PreparedStore.open(folder))


def test_a_full_disk_is_named_and_no_case_is_half_written(small_disk):
    image_CZYX = np.random.default_rng(0).random((1, 40, 60, 60), np.float32)
    image = Image(array_CZYX=image_CZYX, geometry=Geometry.plain(image_CZYX.shape[1:]))
    prepared = prepare(image, make_test_plan(), case_id="a")
    with pytest.raises(OutputError, match="No space left on device") as caught:
        write_case(small_disk / "a", prepared, digest="x", dims=3)
    assert caught.value.code == "E-DISK-FULL"
    assert list(small_disk.iterdir()) == []
