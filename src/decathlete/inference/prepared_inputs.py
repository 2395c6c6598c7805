"""Cases that were prepared before, by the plan of the models that predict them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from decathlete.core.memory import translate_out_of_memory
from decathlete.errors import StoreError
from decathlete.inference.predict import IMAGE_TOO_LARGE, Predictor
from decathlete.inference.prediction import PreparedInput
from decathlete.preprocessing.prepared import PreparedCase
from decathlete.preprocessing.store import PreparedStore, StoredCase
from decathlete.preprocessing.write import preparation_digest


def is_store(folder: Path) -> bool:
    """Return whether ``folder`` holds prepared cases, not images."""
    return (folder / "source.json").is_file() and (folder / "plan.json").is_file()


def stored_cases(folder: Path, preparation_digests: Sequence[str]) -> Sequence[StoredCase]:
    """Return the cases in ``folder``, which were prepared as every model needs them.

    Args:
        preparation_digests: of the plans of the models, see
            :func:`~decathlete.preprocessing.write.preparation_digest`.

    Raises:
        StoreError: the store is damaged, was prepared for training, or by the plan of another model.
    """
    store = PreparedStore.open(folder)
    cases = [store.case(case_id) for case_id in store.case_ids]
    if any(case.record.raw is None for case in cases):
        raise StoreError(
            "was prepared for training",
            where=folder,
            remedy="predict the images themselves, or prepare them with `decathlete preprocess --mode test`",
        )
    if any(digest != preparation_digest(store.plan) for digest in preparation_digests):
        raise StoreError(
            "was prepared with another plan than the model's",
            where=folder,
            remedy="prepare the images with `decathlete preprocess --mode test --model` of this model",
            code="E-STORE-PLAN",
        )
    return cases


def raw_files(cases: Sequence[StoredCase]) -> dict[str, tuple[Path, ...]]:
    """Return the names of the files that cases were prepared from."""
    return {case.case_id: tuple(map(Path, case.record.raw.files)) for case in cases if case.record.raw is not None}


def read_stored(case: StoredCase, predictor: Predictor) -> PreparedInput:
    """Read a stored case; the result is what :meth:`Predictor.prepare` makes of the raw image, bit for bit."""
    raw = case.record.raw
    assert raw is not None  # for the type checker: see ``stored_cases``
    with translate_out_of_memory("the prepared image", remedy=IMAGE_TOO_LARGE):
        image_CZYX = case.read_image()
    prepared = PreparedCase(
        case_id=case.case_id,
        image_CZYX=image_CZYX,
        label_ZYX=None,
        foreground={},
        restoration=case.restoration,
    )
    n_plans = len(predictor.ensembles)
    return predictor.check_range([prepared] * n_plans, [raw.channel_means] * n_plans)
