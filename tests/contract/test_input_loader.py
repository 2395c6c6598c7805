"""What every input loader promises, built in or of a plug-in: batches of a seed, a step and an index alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from decathlete.augmentation.batch import RawBatch
from decathlete.augmentation.pipeline import Augmenter
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.splits import make_splits
from decathlete.errors import OptionError
from decathlete.loading.loaders import LOADERS, LoaderContext
from decathlete.loading.samplers import SAMPLERS, SamplerContext
from decathlete.planning.fingerprint import Fingerprint
from decathlete.preprocessing.run import preprocess
from decathlete.preprocessing.store import PreparedStore
from decathlete.synthetic.phantoms import make_phantoms
from factories import make_test_plan

N_STEPS = 3

pytestmark = pytest.mark.parametrize("name", LOADERS.names())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PreparedStore:
    folder = tmp_path_factory.mktemp("store")
    spec = read_dataset(make_phantoms(folder / "Task01_Small", n_cases=3, shape_ZYX=(10, 24, 20)))
    fingerprint = Fingerprint(dataset_digest="x", cases=(), intensity=())
    splits = make_splits(spec, n_folds=2)
    return preprocess(spec, make_test_plan(3), folder / "prepared", fingerprint=fingerprint, splits=splits)


def load(
    name: str, store: PreparedStore, *, seed: int = 0, first: int = 0, rank: int = 0, world: int = 1
) -> list[tuple[RawBatch, Tensor, Tensor]]:
    """The batches of one rank, each with its augmented images and labels; skip a loader that cannot be used here."""
    plan, loader = store.plan, LOADERS.build(LOADERS.settings(name))
    augmentation = loader.default_augmentation(plan.dims)
    try:
        loader.check(augmentation)
    except OptionError as problem:
        pytest.skip(problem.problem)
    sampling = SamplerContext(case_ids=tuple(store.case_ids), patch_size=plan.patch_size, global_batch=4, seed=seed)
    context = LoaderContext(
        store=store,
        sampler=SAMPLERS.build(SAMPLERS.settings("foreground"), sampling),
        augmenter=Augmenter(augmentation, patch_size=plan.patch_size, seed=seed),
        n_channels=plan.n_inputs,
        batch_size=4 // world,
        steps=range(first, N_STEPS),
        rank=rank,
        device=torch.device("cpu"),
    )
    augment = Augmenter(loader.on_device(augmentation), patch_size=plan.patch_size, seed=seed)
    return [(batch, *augment(batch, "cpu")) for batch in loader.batches(context)]


def test_batches_are_steps_of_the_patch_size_and_finite(name: str, store: PreparedStore) -> None:
    batches = load(name, store)
    assert [batch.step for batch, _, _ in batches] == list(range(N_STEPS))
    for batch, image_BCZYX, label_BZYX in batches:
        assert image_BCZYX.shape == (4, store.plan.n_inputs, *store.plan.patch_size)
        assert label_BZYX.shape == (4, *store.plan.patch_size)
        assert torch.isfinite(image_BCZYX).all()
        assert set(batch.case_ids) <= set(store.case_ids)


def test_it_repeats_by_seed_and_resumes_at_any_step(name: str, store: PreparedStore) -> None:
    whole, again, resumed = load(name, store), load(name, store), load(name, store, first=2)
    for one, other in zip([*whole, whole[2]], [*again, *resumed], strict=True):
        assert one[0].case_ids == other[0].case_ids
        assert torch.equal(one[1], other[1])
        assert torch.equal(one[2], other[2])
    assert not torch.equal(whole[0][1], load(name, store, seed=1)[0][1])


def test_two_ranks_see_the_batch_of_one_process(name: str, store: PreparedStore) -> None:
    ranks = [load(name, store, rank=rank, world=2) for rank in range(2)]
    for (whole, _, label_BZYX), *parts in zip(load(name, store), *ranks, strict=True):
        assert [case_id for part in parts for case_id in part[0].case_ids] == list(whole.case_ids)
        assert torch.equal(torch.cat([part[2] for part in parts]), label_BZYX)


def test_its_settings_need_no_values_and_round_trip(name: str) -> None:
    settings = LOADERS.settings(name)
    assert LOADERS.settings(settings.to_config()) == settings
