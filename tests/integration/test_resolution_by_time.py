"""The training time plans the grid of the prepared data."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from decathlete.errors import OptionError, OutputError, StoreError
from decathlete.planning import resolution as planning_resolution
from decathlete.planning.compute_budget import ComputeBudget
from decathlete.planning.options import PlanOptions
from decathlete.preprocessing.run import preprocess as prepare_store
from decathlete.preprocessing.store import COARSE_START, PreparedStore
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.training.config import TrainConfig
from decathlete.workflows import preprocess as preprocess_module
from decathlete.workflows import resolution
from decathlete.workflows.preprocess import preprocess
from decathlete.workflows.workspace import Workspace

FULL = (1.0, 1.0, 1.0)
MINUTE, MONTH = TrainConfig(max_time_s=60), TrainConfig(max_time_s=30 * 24 * 3600)


class Killed(BaseException):
    """Ends the work as a kill does."""


@pytest.fixture
def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Prepares a dataset of 5 large balls on a machine with one slow thread."""
    make_phantoms(tmp_path / "Balls", n_cases=5, shape_ZYX=(72, 71, 73), spacing_ZYX=FULL)
    monkeypatch.setattr(planning_resolution, "FEWEST_CASES", 5)
    monkeypatch.setattr(
        resolution,
        "budget_of_folds",
        lambda config, *_, **__: ComputeBudget(device="cpu", max_time_s=config.max_time_s, threads=1),
    )

    def prepared(training: TrainConfig | None, **options):
        workspace = Workspace(prepared=tmp_path / "prepared")
        return preprocess(tmp_path / "Balls", workspace=workspace, training=training, workers=1, **options)

    return prepared


def test_a_short_time_prepares_a_coarser_grid_that_later_runs_keep(prepare, caplog):
    short = prepare(MINUTE)
    spacing = short.plan.target_spacing
    coarse = short.plan.coarse_start.target_spacing
    assert min(coarse) > min(spacing) >= 1
    assert short.plan.on_coarse_grid().median_shape[0] == round(72 / coarse[0])
    assert "labels keep a Dice of" in short.plan.reasons["coarse_start"]
    assert short.plan.user_set == {}
    with caplog.at_level(logging.WARNING):
        assert prepare(MINUTE).plan == short.plan
        assert caplog.text == ""
        for options in ({}, {"reuse": True}):
            assert prepare(MONTH, **options).plan == short.plan, "runs of these data could not be resumed"
    assert caplog.text.count("prepare them again with --overwrite") == 2
    assert prepare(MONTH, overwrite=True).plan.target_spacing == FULL


def test_prepared_data_of_a_training_from_a_model_are_used_when_the_model_is_gone(prepare, tmp_path, caplog):
    store = prepare(MINUTE)
    config = MONTH.revised(pretrained=str(tmp_path / "gone"))
    with caplog.at_level(logging.WARNING):
        assert prepare(config, reuse=True).plan == store.plan
    assert caplog.text == ""


def test_no_time_or_a_grid_of_the_user_keeps_the_grid(prepare):
    options = PlanOptions(overrides=("target_spacing=1.5,1.5,1.5",))
    assert prepare(MINUTE, options=options).plan.target_spacing == (1.5, 1.5, 1.5)
    assert prepare(None, overwrite=True).plan.target_spacing == FULL


def test_measured_ceilings_are_kept_until_the_dataset_changes(prepare, monkeypatch):
    first = prepare(MINUTE)

    def fail(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(resolution, "measure_ceilings", fail)
    assert prepare(MINUTE, overwrite=True).plan == first.plan
    (first.folder.parent / "ceilings_3d.json").write_text("damaged")
    with pytest.raises(AssertionError, match="measured again"):
        prepare(MINUTE, overwrite=True)


def test_every_case_is_prepared_on_both_grids(prepare, caplog):
    store = prepare(MINUTE)
    coarse = store.open_coarse_start()
    assert coarse.plan == store.plan.on_coarse_grid()
    assert coarse.case_ids == store.case_ids
    assert (coarse.splits, coarse.plan.coarse_start) == (store.splits, None)
    for case_id in store.case_ids:
        shapes = [of.case(case_id).shape for of in (store, coarse)]
        ratio = coarse.plan.target_spacing[0] / store.plan.target_spacing[0]
        assert shapes[0] == pytest.approx([n * ratio for n in shapes[1]], abs=1.5)
    missing = next((coarse.folder / "cases").iterdir())
    shutil.rmtree(missing)
    with pytest.raises(StoreError, match=missing.name):
        store.open_coarse_start()
    assert prepare(MINUTE, reuse=True).open_coarse_start().case(missing.name).shape


def test_progress_counts_both_grids(prepare):
    heard = []
    prepare(MINUTE, progress=lambda done, total, case_id: heard.append((done, total)))
    assert heard == [(done, 10) for done in range(1, 11)]


def test_another_coarse_grid_is_not_mixed_with_the_prepared_one(prepare):
    def at(coarse):
        return PlanOptions(overrides=("target_spacing=1.5,1.5,1.5", f"coarse_start={coarse}"))

    first = prepare(None, options=at("3,3,3"))
    assert first.plan.coarse_start.target_spacing == (3, 3, 3)
    for other in ("2,2,2", "none"):
        with pytest.raises(OutputError, match="another plan"):
            prepare(None, options=at(other))
    assert prepare(None, options=at("none"), overwrite=True).plan.coarse_start is None
    assert not (first.folder / COARSE_START).exists()
    with pytest.raises(OutputError, match="another plan"):  # runs in progress would no longer fit
        prepare(None, options=at("2,2,2"))


def test_a_coarse_grid_of_other_files_is_made_again(prepare, tmp_path, monkeypatch):
    """As after a kill between the two grids of a dataset that has changed."""
    first = prepare(MINUTE)
    label = next((tmp_path / "Balls" / "labelsTr").iterdir())
    label.write_bytes(label.read_bytes())

    def killed_after_the_first(spec, plan, folder, **options):
        if folder.name == COARSE_START:
            raise Killed
        return prepare_store(spec, plan, folder, **options)

    with monkeypatch.context() as patched:
        patched.setattr(preprocess_module, "prepare_store", killed_after_the_first)
        with pytest.raises(Killed):
            prepare(MINUTE)
    store = PreparedStore.open(first.folder)
    with pytest.raises(StoreError, match="was not prepared together"):
        store.open_coarse_start()
    assert prepare(MINUTE, reuse=True).open_coarse_start().source.dataset_digest == store.source.dataset_digest


def test_no_coarse_start_is_chosen_where_the_user_wants_none(prepare, caplog):
    none = PlanOptions(overrides=("coarse_start=none",))
    single = prepare(MINUTE, options=none)
    assert single.plan.coarse_start is None
    assert single.plan.target_spacing != FULL
    longer = prepare(MONTH, options=none)
    assert longer.plan.target_spacing == single.plan.target_spacing
    assert "prepare them again with --overwrite" in caplog.text
    with_start = prepare(MINUTE, overwrite=True)
    assert with_start.plan.coarse_start.target_spacing == single.plan.target_spacing
    with pytest.raises(OutputError, match="another plan"):
        prepare(MINUTE, options=none)


def test_the_share_of_a_start_that_the_time_chooses_may_be_set(prepare, caplog):
    share = PlanOptions(overrides=("coarse_start.share=0.25",))
    with pytest.raises(OptionError, match="has no coarse start"):
        prepare(None, options=share)
    plan = prepare(MINUTE, options=share).plan
    assert plan.coarse_start.share == 0.25
    assert plan.user_set == {"coarse_start.share": "--set coarse_start.share=0.25"}
    assert prepare(MINUTE, options=share).plan == prepare(MONTH, options=share).plan == plan
    assert "no effect" not in caplog.text
    assert prepare(MONTH, options=share, overwrite=True).plan.coarse_start is None
    assert "coarse_start.share=0.25 has no effect on the configuration 3d" in caplog.text
