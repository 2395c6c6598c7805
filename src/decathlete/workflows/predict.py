"""Predict files with a trained model, or with an ensemble of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from decathlete.errors import OptionError
from decathlete.inference.options import PredictOptions
from decathlete.inference.predict import Predictor
from decathlete.inference.predict_files import PredictedFile, predict_files
from decathlete.inference.prepared_inputs import is_store, stored_cases
from decathlete.io.images import find_inputs
from decathlete.preprocessing.store import StoredCase


def predict(
    models: str | Path | Sequence[str | Path],
    inputs: str | Path,
    output: str | Path,
    *,
    options: PredictOptions = PredictOptions(),
    cases: int | None = None,
    save_probabilities: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int, str | None], None] | None = None,
) -> list[PredictedFile]:
    """Segment images into ``output``: label maps on the images' own grids, each with a JSON of volumes and provenance.

    To keep models loaded for images that come one by one, see :meth:`decathlete.Predictor.load`.

    Args:
        models: a run's folder, a model folder or that of an exported program; several make an ensemble.
        inputs: an image, a DICOM folder, or a folder of images; or cases that were prepared for the models
            (:func:`decathlete.prepare_for_model`).
        cases: predict so many, at most: the first by name.
        overwrite: replace what other inputs or settings made; predictions made from the same are kept anyway.

    Raises:
        OptionError: an option out of range.
        ModelError: a model is missing or damaged, or they do not go together.
        OutputError: ``output`` cannot be written, or something else is in the way.
        CasesFailed: at the end, if some images could not be predicted.
    """
    if cases is not None and cases < 1:
        raise OptionError(f"{cases} cases leave nothing to predict", remedy="give --cases 1 or more")
    predictor = Predictor.load(models, options=options)
    return predict_files(
        predictor,
        _first(Path(inputs), predictor, cases),
        Path(output),
        save_probabilities=save_probabilities,
        overwrite=overwrite,
        progress=progress,
    )


def _first(inputs: Path, predictor: Predictor, n: int | None) -> Mapping[str, Sequence[Path]] | Sequence[StoredCase]:
    """The first ``n`` cases of a folder, or all."""
    if is_store(inputs):
        return stored_cases(inputs, predictor)[:n]
    return dict(islice(find_inputs(inputs, n_channels=predictor.n_channels).items(), n))
