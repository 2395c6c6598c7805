"""Predict files with a trained model, or with an ensemble of several."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from decathlete.core.files import temporary_folder
from decathlete.core.geometry import Triple
from decathlete.core.locks import reading
from decathlete.core.output_paths import check_output_folder, writable_folder
from decathlete.core.parallel import CaseExecutor
from decathlete.core.progress import CaseProgress
from decathlete.errors import OptionError
from decathlete.inference.batching.case_predictor import make_case_predictor
from decathlete.inference.dicom_inputs import choose_series
from decathlete.inference.options import PredictOptions
from decathlete.inference.output.output_kind import OutputKind
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
    spacing: Triple | None = None,
    kind: OutputKind = OutputKind(),
    series: Sequence[str] = (),
    overwrite: bool = False,
    executor: CaseExecutor | None = None,
    progress: CaseProgress | None = None,
) -> list[PredictedFile]:
    """Segment images: write label maps on the grids of the images, each with a JSON of volumes and provenance.

    To keep models in memory for images that arrive one by one, see :meth:`decathlete.Predictor.load`.

    Args:
        models: folder of a run, a model or an exported program; several make an ensemble.
        inputs: an image, a DICOM folder, a folder of images, or a tree of mixed DICOM files; or cases that were
            prepared for the models (:func:`decathlete.prepare_for_model`).
        cases: greatest number of cases to predict, the first by name.
        spacing: z, y, x in mm, for images whose files do not contain their spacing.
        kind: kind of the label maps: the input's own, NIfTI, DICOM SEG or RT structure set.
        series: rules that choose DICOM series, such as ``modality:CT`` or ``PET=modality:PT`` for one of several
            channels; empty: by the names of the channels.
        overwrite: replace predictions of other inputs or settings; those of the same inputs and settings are kept.
        executor: predicts the cases elsewhere (:func:`decathlete.connect_cluster`); ``None``: in this process.

    Raises:
        OptionError: an option is out of range.
        ModelError: a model is missing or damaged, or the models do not fit together.
        OutputError: ``output`` cannot be written, contains other results, or another process works in it.
        CasesFailedError: at the end, if some images could not be predicted.
    """
    if cases is not None and cases < 1:
        raise OptionError(f"--cases must be at least 1, it is {cases}", remedy="use --cases 1 or more")
    folder, source = check_output_folder(output), Path(inputs)
    predictor = make_case_predictor(models, options, executor)
    facts = predictor.facts
    with ExitStack() as stack:
        inputs_: Sequence[StoredCase] | dict[str, tuple[Path, ...]]
        if is_store(source):
            stack.enter_context(reading(source))
            inputs_ = stored_cases(source, facts.preparation_digests)[:cases]
        else:
            links = _LinkFolders(folder, stack)
            found = find_inputs(source, n_channels=facts.n_channels)
            found = choose_series(found, facts.channels, source, rules=series, make_folder=links.path)
            inputs_ = dict(islice(found.items(), cases))
        return predict_files(
            predictor,
            inputs_,
            folder,
            save_probabilities=save_probabilities,
            spacing=spacing,
            kind=kind,
            overwrite=overwrite,
            progress=progress,
        )


class _LinkFolders:
    """Places for the links to the slices of series that lie mixed with others, in a temporary folder of the output."""

    def __init__(self, output: Path, stack: ExitStack) -> None:
        self._output, self._stack = output, stack
        self._folder: Path | None = None

    def path(self, name: str) -> Path:
        """Return the path of a new folder."""
        if self._folder is None:
            self._folder = self._stack.enter_context(temporary_folder(writable_folder(self._output)))
        return self._folder / name
