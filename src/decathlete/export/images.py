"""Prepared images by case, each read on demand: from a store, from files, or from a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Triple
from decathlete.dataset.spec import Case
from decathlete.errors import StoreError
from decathlete.inference.prepared_inputs import is_store
from decathlete.io.format_settings import FormatSettings
from decathlete.io.images import find_inputs, read_channels
from decathlete.planning.plan import Plan
from decathlete.preprocessing.prepare import prepare
from decathlete.preprocessing.store import PreparedStore
from decathlete.preprocessing.write import preparation_digest

Images = Mapping[str, Callable[[], NDArray[np.float32]]]
"""Case -> function that reads its prepared image CZYX."""


def images_of(plan: Plan, source: Path) -> Images:
    """Return the images in ``source``: an image, a folder of images, or cases that were prepared by the plan.

    Raises:
        ImageError: there are no images.
        StoreError: the store is damaged, was prepared by another plan, or is empty.
    """
    if is_store(source):
        images = stored_images(plan, source)
        if not images:
            raise StoreError(
                "contains no case",
                where=source,
                remedy="name other images, or prepare cases first",
                code="E-STORE-MISSING",
            )
        return images
    return {case_id: partial(_read, case_id, files, plan) for case_id, files in _files(plan, source).items()}


def stored_images(plan: Plan, folder: Path, case_ids: Iterable[str] | None = None) -> Images:
    """Return some cases of a store; ``None``: all.

    Raises:
        StoreError: the store is damaged, lacks a case, or was prepared by another plan.
    """
    store = PreparedStore.open(folder)
    if preparation_digest(store.plan) != preparation_digest(plan):
        raise StoreError(
            "was prepared with another plan than the model's",
            where=folder,
            remedy="name cases that were prepared by the model's plan, or the images themselves",
            code="E-STORE-PLAN",
        )
    chosen = store.case_ids if case_ids is None else case_ids
    return {case_id: store.case(case_id).read_image for case_id in chosen}


def case_images(plan: Plan, cases: Iterable[Case]) -> Images:
    """Return cases of a raw dataset."""
    return {case.id: partial(_read, case.id, case.images, plan, case.spacing, case.formats) for case in cases}


def _files(plan: Plan, source: Path) -> Mapping[str, Sequence[Path]]:
    return find_inputs(source, n_channels=len(plan.channels))


def _read(
    case_id: str,
    files: Sequence[Path],
    plan: Plan,
    spacing: Triple | None = None,
    formats: FormatSettings = (),
) -> NDArray[np.float32]:
    image = read_channels(files, spacing=spacing, formats=formats, n_channels=len(plan.channels))
    image_CZYX = prepare(image, plan, case_id=case_id).image_CZYX
    # The first stage of a cascade is not run here: as if it had found nothing.
    nothing_SZYX = np.zeros((plan.n_previous, *image_CZYX.shape[1:]), np.float32)
    return np.concatenate([image_CZYX, nothing_SZYX]) if plan.n_previous else image_CZYX
