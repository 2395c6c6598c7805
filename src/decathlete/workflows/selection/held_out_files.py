"""The predictions beside a selected model: those of its held-out cases, and none of an earlier model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from decathlete.core.files import remove
from decathlete.core.locks import locked_folder
from decathlete.dataset.spec import Case
from decathlete.errors import DecathleteError, ModelError
from decathlete.inference.options import PredictOptions
from decathlete.inference.output.apply_postprocessing import build_steps, postprocess
from decathlete.inference.output.files import Job, make_jobs, read_finished, write_outputs
from decathlete.inference.output.output_kind import OutputKind
from decathlete.inference.output.provenance import PredictionRecord, RecordedSettings, volumes_ml, voxel_counts
from decathlete.inference.predict import Predictor
from decathlete.inference.prediction import Prediction
from decathlete.io.format_lookup import files_of
from decathlete.io.format_settings import changed_settings
from decathlete.io.images import read_label, write_label
from decathlete.models.bundle import ModelBundle


def write_held_out_files(
    bundle: ModelBundle,
    cases: Mapping[int, Sequence[Case]],
    predictions: Mapping[str, Path],
    folder: Path,
    *,
    options: PredictOptions,
) -> None:
    """Post-process the predictions of a candidate and write them as those of the selected model.

    A fold's networks of the model are those that made the predictions, so that nothing is predicted again.

    Args:
        cases: held-out cases of each fold of the model.
        predictions: case id -> label map by the candidate's models; its record is beside it.
        folder: receives label maps and records.

    Raises:
        OutputError: the folder cannot be written.
        ModelError: a record is missing or damaged.
    """
    with locked_folder(folder):
        for fold, held_out in cases.items():
            settings = Predictor.load(bundle.folder, options=options, fold=fold).settings
            jobs = make_jobs({case.id: case.images for case in held_out}, folder, save_probabilities=False)
            for case in held_out:
                _write(bundle, case, jobs[case.id], predictions[case.id], settings)


def remove_predictions_of_others(folder: Path, bundle: ModelBundle) -> None:
    """Remove the predictions in ``folder`` that another model made: they would be mistaken for those of this model."""
    for path in sorted(folder.glob("*.json")):
        try:
            record = PredictionRecord.load(path)
        except DecathleteError:  # not the record of a prediction
            continue
        if {model.digest for model in record.settings.models} != {bundle.digest}:
            written = [folder / Path(name).name for name in (record.label, record.probabilities) if name is not None]
            for file in (file for output in written if output.is_file() for file in files_of(output)):
                remove(file)
            remove(path)


def _write(bundle: ModelBundle, case: Case, job: Job, path: Path, settings: RecordedSettings) -> None:
    kind = OutputKind(image_formats=changed_settings(case.formats))
    settings = kind.recorded(settings if case.spacing is None else settings.revised(spacing=case.spacing))
    if read_finished(job, settings) is not None:
        return
    record = PredictionRecord.load(path.with_name(f"{case.id}.json"), error=ModelError)
    predicted = read_label(path, spacing=case.spacing, formats=case.formats)
    labels = bundle.record.labels
    label_ZYX = postprocess(
        predicted.array_ZYX, predicted.geometry, labels, build_steps(bundle.record.postprocessing, labels)
    )
    voxels = voxel_counts(label_ZYX, labels)
    prediction = Prediction(
        label_ZYX=label_ZYX,
        geometry=predicted.geometry,
        volumes_ml=volumes_ml(voxels, predicted.geometry),
        voxels=voxels,
        warnings=record.warnings,
        seconds=record.seconds,
    )
    write_outputs(
        job,
        prediction,
        digest=record.inputs_digest,
        settings=settings,
        device=record.device,
        write=partial(write_label, settings=case.formats),
    )
