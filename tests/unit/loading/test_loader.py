"""The loader: the same samples whatever the readers and ranks, errors that name the case, threads that end."""

from __future__ import annotations

import threading
import tracemalloc
from itertools import islice

import numpy as np
import pytest
import torch

from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.pipeline import Augmenter
from decathlete.core.checksums import file_crc32
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.splits import make_splits
from decathlete.errors import InsufficientMemoryError, OptionError, StoreError
from decathlete.loading.cache import CaseCache, HeldCase
from decathlete.loading.patch_loader import PatchLoader
from decathlete.loading.samplers import SAMPLERS, SamplerContext
from decathlete.planning.fingerprint import Fingerprint
from decathlete.preprocessing.run import preprocess
from decathlete.preprocessing.store import PreparedStore
from decathlete.synthetic.phantoms import make_phantoms
from factories import make_test_plan


def make_store(folder, dims: int, **phantoms) -> PreparedStore:
    spec = read_dataset(make_phantoms(folder / "raw" / "Task99_Phantom", n_cases=3, **phantoms))
    return preprocess(
        spec,
        make_test_plan(dims),
        folder / "prepared",
        fingerprint=Fingerprint(dataset_digest="x", cases=(), intensity=()),
        splits=make_splits(spec, n_folds=2),
    )


@pytest.fixture(scope="module", params=[2, 3], ids=["2d", "3d"])
def store(request, tmp_path_factory):
    # The first axis is shorter than the 3D patch of 16.
    return make_store(tmp_path_factory.mktemp("store"), request.param, shape_ZYX=(10, 24, 20))


def loader_of(store, *, config=None, patch_seed: int = 0, **changes) -> PatchLoader:
    plan = store.plan
    augmenter = Augmenter(config or AugmentationConfig.default(plan.dims), patch_size=plan.patch_size, seed=patch_seed)
    settings = {"batch_size": 4, "steps": range(6)} | changes
    sampled = {name: settings.pop(name) for name in ("oversampling", "nvol") if name in settings}
    context = SamplerContext(
        case_ids=tuple(store.case_ids),
        patch_size=plan.patch_size,
        global_batch=settings["batch_size"] * settings.pop("world", 1),
        seed=settings.pop("seed", patch_seed),
    )
    sampler = SAMPLERS.build(SAMPLERS.settings({"name": "foreground", **sampled}), context)
    return PatchLoader(store, sampler, augmenter, **settings)


def tensors(batch):
    return batch.plain_PCZYX, batch.plain_label_PZYX, batch.warped_WCZYX, batch.warped_label_WZYX


def assert_equal(one, other):
    assert (one.step, one.indices, one.draws, one.case_ids) == (other.step, other.indices, other.draws, other.case_ids)
    assert all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def readers():
    return [t for t in threading.enumerate() if t.name.startswith("decathlete-reader")]


@pytest.mark.parametrize(
    "changes", [{"n_readers": 1, "prefetch": 1}, {"n_readers": 5, "prefetch": 9}, {"cache_bytes": 0}]
)
def test_readers_prefetch_and_cache_change_nothing(store, changes):
    expected = list(loader_of(store))
    found = list(loader_of(store, **changes))
    assert [b.step for b in found] == list(range(6)) == [b.step for b in expected]
    for one, other in zip(expected, found, strict=True):
        assert_equal(one, other)


def test_starting_later_gives_the_same_steps(store):
    whole, late = list(loader_of(store)), list(loader_of(store, steps=range(4, 6)))
    assert len(loader_of(store, steps=range(4, 6))) == 2
    for one, other in zip(whole[4:], late, strict=True):
        assert_equal(one, other)


def test_two_ranks_see_what_one_process_sees(store):
    augmenter = Augmenter(AugmentationConfig.default(store.plan.dims), patch_size=store.plan.patch_size, seed=0)
    ranks = [loader_of(store, batch_size=2, rank=r, world=2) for r in range(2)]
    for whole, *parts in zip(loader_of(store), *ranks, strict=True):
        assert [i for part in parts for i in part.indices] == list(whole.indices)
        image, label = augmenter(whole, "cpu")
        halves = [augmenter(part, "cpu") for part in parts]
        torch.testing.assert_close(torch.cat([h[0] for h in halves]), image, atol=1e-4, rtol=0)
        assert torch.equal(torch.cat([h[1] for h in halves]), label)


def test_another_seed_gives_other_samples(store):
    one, other = next(iter(loader_of(store))), next(iter(loader_of(store, patch_seed=1)))
    assert one.draws != other.draws


def test_patches_are_parts_of_their_cases(store):
    batch = next(iter(loader_of(store, config=AugmentationConfig.none(), oversampling=1.0)))
    assert batch.plain_PCZYX.shape == (4, 1, *store.plan.patch_size)
    assert batch.plain_label_PZYX.flatten(1).any(1).all()
    for case_id, image in zip(batch.case_ids, batch.plain_PCZYX.numpy(), strict=True):
        whole = store.case(case_id).read_image()
        values = image[image != 0]
        assert values.size > 100
        assert np.isin(values, whole).all()


def test_abandoned_iteration_ends_its_threads(store):
    assert not readers()
    batches = iter(loader_of(store, steps=range(10**9)))
    assert [b.step for b in islice(batches, 2)] == [0, 1]
    assert readers()
    batches.close()
    assert not readers()


def test_a_damaged_case_is_named_and_threads_end(tmp_path):
    store = make_store(tmp_path, 3)
    victim = store.case_ids[1]
    path = store.case(victim).folder / "image.b2nd"
    path.write_bytes(path.read_bytes()[:64])
    with pytest.raises(StoreError, match=victim):
        list(loader_of(store, steps=range(20)))
    assert not readers()


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (ValueError("odd"), StoreError, r"case \S+ cannot be read \(ValueError: odd\)"),
        (MemoryError("no room"), InsufficientMemoryError, r"out of memory for reading case \S+"),
    ],
)
def test_any_failure_of_reading_is_told_with_the_case(store, monkeypatch, failure, kind, message):
    def fails(*_):
        raise failure

    monkeypatch.setattr("decathlete.loading.patch_loader.read_patch", fails)
    with pytest.raises(kind, match=message):
        list(loader_of(store))


def test_the_cache_keeps_to_its_room(store):
    first, second, _ = store.case_ids
    one_case = store.case(first).n_bytes
    assert not isinstance(CaseCache(one_case - 1).get(store.case(first)), HeldCase)
    cache = CaseCache(one_case)
    held = cache.get(store.case(first))
    assert isinstance(held, HeldCase)
    assert held.n_bytes <= one_case < held.n_bytes + 2_000
    assert cache.get(store.case(first)) is held
    assert not isinstance(cache.get(store.case(second)), HeldCase)
    assert held.shape == store.case(first).shape


def test_cases_that_are_not_held_keep_nothing_of_what_was_read(tmp_path):
    """Of 10,000 cases that would be gigabytes."""
    store = make_store(tmp_path, 3, shape_ZYX=(10, 24, 20))
    many = np.zeros(10**6, np.int64)
    for case_id in store.case_ids:
        path = store.case(case_id).folder / "foreground.npz"
        np.savez(path, **{"1": many})
        record = store.case(case_id).record
        changed = {"sizes": path.stat().st_size, "crc32": file_crc32(path)}
        record = record.revised(**{name: getattr(record, name) | {path.name: v} for name, v in changed.items()})
        record.save(path.with_name("case.json"))
    store = PreparedStore.open(store.folder)
    loader = loader_of(store, cache_bytes=0, oversampling=1.0)
    tracemalloc.start()
    try:
        read = sum(len(batch) for batch in loader)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read == 24
    assert kept < many.nbytes < peak


@pytest.mark.parametrize("changes", [{"batch_size": 0}, {"n_readers": 0}, {"prefetch": 0}, {"oversampling": -1.0}])
def test_numbers_that_do_not_fit_are_refused(store, changes):
    with pytest.raises(OptionError):
        loader_of(store, **changes)


def test_nvol_is_for_slices(store):
    if store.plan.dims == 3:
        with pytest.raises(OptionError, match="2D"):
            loader_of(store, nvol=2)
    else:
        batch = next(iter(loader_of(store, nvol=2)))
        assert len(set(batch.case_ids[:2])) == len(set(batch.case_ids[2:])) == 1


@pytest.mark.parametrize("dims", [2, 3])
def test_single_slices_and_tiny_volumes(tmp_path, dims):
    store = make_store(tmp_path, dims, shape_ZYX=(1, 9, 11))
    augmenter = Augmenter(AugmentationConfig.default(dims), patch_size=store.plan.patch_size, seed=0)
    for batch in loader_of(store):
        image, label = augmenter(batch, "cpu")
        assert image.shape == (4, 1, *store.plan.patch_size)
        assert torch.isfinite(image).all()
        assert label.max() <= 2
