"""All cases of a dataset into a store: in parallel, skipping what is done, every failure reported at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from decathlete.core.files import remove_partials
from decathlete.core.locks import locked_output
from decathlete.core.parallel import Workers, map_cases, require_shared
from decathlete.core.progress import CaseProgress
from decathlete.dataset.given_splits import count_cases, name_some
from decathlete.dataset.killed_cases import cases_in_work, marked_in_work
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.dataset.splits import Splits
from decathlete.errors import CasesFailedError, ModelError
from decathlete.io.images import Image, read_channels, read_label
from decathlete.planning.fingerprint import Fingerprint
from decathlete.planning.plan import Plan
from decathlete.preprocessing.prepare import prepare
from decathlete.preprocessing.prepared import Restoration
from decathlete.preprocessing.previous_stage import add_previous_stage
from decathlete.preprocessing.requirements import limit_preparation
from decathlete.preprocessing.store import PreparedStore, RawImage
from decathlete.preprocessing.write import begin, case_digest, is_current, write_case

log = logging.getLogger(__name__)

Payload = Callable[[Case, Image, Restoration], RawImage]
"""Describes a raw image for a prediction, which does not read it again."""


def preprocess(
    spec: DatasetSpec,
    plan: Plan,
    folder: Path,
    *,
    fingerprint: Fingerprint,
    splits: Splits,
    describe_image: Payload | None = None,
    previous_stage: Mapping[str, Path] | None = None,
    workers: Workers = 2,
    overwrite: bool = False,
    progress: CaseProgress | None = None,
) -> PreparedStore:
    """Prepare every case into ``folder``; cases made before from the same files and plan are kept.

    If another process prepares cases there, wait until it has finished.

    Args:
        describe_image: describes each raw image, for cases that are prepared for prediction.
        previous_stage: of a cascade: case -> label map that its previous stage predicted.
        workers: cases at a time. They are threads: reading, matrix products and compression leave Python's lock. An
            executor prepares them in other processes.
        overwrite: replace data that another plan made.

    Raises:
        OutputError: ``folder`` cannot be written, or its disk has too little free space; or it holds something else and
            ``overwrite`` is not given, or another process reads what would be replaced.
        CasesFailedError: some cases could not be prepared; the others are done and kept.
        ModelError: the plan needs predictions of a previous stage, and some cases have none (``E-MODEL-STAGE``).
    """
    _require_predictions(spec, plan, previous_stage or {})
    with locked_output(folder, wait_for="prepared"):
        workers = limit_preparation(spec, plan, folder, fingerprint=fingerprint, workers=workers)
        begin(folder, spec, plan, fingerprint=fingerprint, splits=splits, overwrite=overwrite)
        require_shared(workers, reads=[spec.root], writes=[folder / "cases"])
        one = partial(
            _prepare_case,
            plan=plan,
            folder=folder,
            describe_image=describe_image,
            previous=previous_stage or {},
        )
        failures, kept = {}, 0
        with cases_in_work(folder, verb="prepared", remedy="use fewer --workers"):
            for done, outcome in enumerate(map_cases(one, {c.id: c for c in spec.cases}, workers=workers), start=1):
                if outcome.error is not None:
                    failures[outcome.case_id] = outcome.error
                kept += bool(outcome.value)
                if progress:
                    progress(done, len(spec.cases), outcome.case_id)
        if not isinstance(workers, int):
            remove_partials(folder / "cases")  # of worker processes that were killed
        if kept:
            log.info("%d of %d cases were prepared before and are kept", kept, len(spec.cases))
        if failures:
            raise CasesFailedError(failures, n_done=len(spec.cases) - len(failures), doing="prepare")
        return PreparedStore.open(folder)


def _require_predictions(spec: DatasetSpec, plan: Plan, predictions: Mapping[str, Path]) -> None:
    if plan.previous_stage is None:
        return
    if missing := [case.id for case in spec.cases if case.id not in predictions]:
        raise ModelError(
            f"{plan.previous_stage} has not predicted {count_cases(missing)}: {name_some(missing)}",
            where=spec.root,
            remedy=f"train every fold of {plan.previous_stage} with folds that hold out every case",
            code="E-MODEL-STAGE",
        )


def _prepare_case(
    case: Case, *, plan: Plan, folder: Path, describe_image: Payload | None, previous: Mapping[str, Path]
) -> bool:
    """Prepare and write one case; true if it was there already."""
    predicted = previous.get(case.id)
    digest = case_digest(case, plan, predicted)
    place = folder / "cases" / case.id
    if is_current(place, digest):
        return True
    with marked_in_work(folder, case.id):
        _write_prepared(case, place, plan=plan, digest=digest, describe_image=describe_image, predicted=predicted)
    return False


def _write_prepared(
    case: Case, place: Path, *, plan: Plan, digest: str, describe_image: Payload | None, predicted: Path | None
) -> None:
    label = (
        read_label(case.label, spacing=case.spacing, formats=case.formats, structures=case.structures)
        if case.label
        else None
    )
    image = read_channels(case.images, spacing=case.spacing, formats=case.formats, n_channels=len(plan.channels))
    prepared = prepare(image, plan, label=label, unannotated=case.unannotated, case_id=case.id)
    if predicted is not None:
        prepared = add_previous_stage(
            prepared, read_label(predicted, spacing=case.spacing, formats=case.formats).array_ZYX, plan
        )
    raw = describe_image(case, image, prepared.restoration) if describe_image is not None else None
    write_case(place, prepared, digest=digest, dims=plan.dims, raw=raw)
