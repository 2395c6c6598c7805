"""Prepared images by case, each read on demand: from a store, from files, or from a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decathlete.dataset.spec import Case
from decathlete.errors import StoreError
from decathlete.inference.prepared_inputs import is_store
from decathlete.io.images import find_inputs, read_channels
from decathlete.io.reading import Reading
from decathlete.planning.plan import Plan
from decathlete.preprocessing.prepare import prepare
from decathlete.preprocessing.store import PreparedStore
from decathlete.preprocessing.write import preparation_digest

Images = Mapping[str, Callable[[], NDArray[np.float32]]]
"""Case -> function that reads its prepared image CZYX."""


def images_of(plan: Plan, source: Path, reading: Reading = Reading()) -> Images:
    """Return the images in ``source``: an image, a folder of images, or cases that were prepared by the plan.

    Raises:
        ImageError: there are no images.
        StoreError: the store is damaged, was prepared by another plan, or is empty.
        OptionError: a setting of ``reading`` has no effect.
    """
    if is_store(source):
        reading.check_unused(source)
        images = stored_images(plan, source)
        if not images:
            raise StoreError(
                "contains no case",
                where=source,
                remedy="name other images, or prepare cases first",
                code="E-STORE-MISSING",
            )
        return images
    return case_images(plan, find_image_cases(source, n_channels=len(plan.channels), reading=reading))


def find_image_cases(source: Path, *, n_channels: int, reading: Reading) -> list[Case]:
    """Return the images in ``source``, an image or a folder of images, as cases without a label map.

    Raises:
        ImageError: there are no images.
        OptionError: a setting of ``reading`` has no effect.
    """
    found = find_inputs(source, n_channels=n_channels)
    reading.check(path for files in found.values() for path in files)
    return [
        Case(id=case_id, images=tuple(files), spacing=reading.spacing, formats=reading.formats)
        for case_id, files in found.items()
    ]


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
    return {case.id: partial(_read, case, plan) for case in cases}


def _read(case: Case, plan: Plan) -> NDArray[np.float32]:
    image = read_channels(case.images, spacing=case.spacing, formats=case.formats, n_channels=len(plan.channels))
    image_CZYX = prepare(image, plan, case_id=case.id).image_CZYX
    # The first stage of a cascade is not run here: as if it had found nothing.
    nothing_SZYX = np.zeros((plan.n_previous, *image_CZYX.shape[1:]), np.float32)
    return np.concatenate([image_CZYX, nothing_SZYX]) if plan.n_previous else image_CZYX
