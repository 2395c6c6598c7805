"""Predict files with a trained model, or with an ensemble of several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

from decathlete.core.files import temporary_folder
from decathlete.core.geometry import Triple
from decathlete.core.locks import reading
from decathlete.core.output_paths import check_output_folder, writable_folder
from decathlete.core.parallel import CaseExecutor
from decathlete.core.progress import CaseProgress
from decathlete.errors import CasesFailedError, OptionError
from decathlete.inference.batching.case_predictor import make_case_predictor
from decathlete.inference.dicom_inputs import choose_series
from decathlete.inference.options import PredictOptions
from decathlete.inference.output.output_kind import OutputKind
from decathlete.inference.predict_files import PredictedFile, predict_files
from decathlete.inference.prepared_inputs import is_store, raw_files, stored_cases
from decathlete.io.image_files import Failures
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
        kind: kind of the label maps: the input's own, NIfTI, DICOM SEG or RT structure set; and settings of the formats
            of images and label maps.
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
        links = LinkFolders(folder, source, stack)
        inputs_: Sequence[StoredCase] | dict[str, tuple[Path, ...]]
        failures: Failures = {}
        if is_store(source):
            stack.enter_context(reading(source))
            inputs_ = stored_cases(source, facts.preparation_digests)[:cases]
            kind.check_effect(raw_files(inputs_), are_prepared=True)
        else:
            found = find_inputs(source, n_channels=facts.n_channels, failures=failures)
            found = choose_series(
                found, facts.channels, source, rules=series, make_folder=links.path, failures=failures
            )
            inputs_ = dict(islice(found.items(), cases))
            kind.check_effect(inputs_)
            if cases is not None and len(inputs_) == cases:
                failures = {case_id: problem for case_id, problem in failures.items() if case_id < max(inputs_)}
        with links.named_by_sources():
            return predict_files(
                predictor,
                inputs_,
                folder,
                save_probabilities=save_probabilities,
                spacing=spacing,
                kind=kind,
                overwrite=overwrite,
                unusable=failures,
                progress=progress,
            )


class LinkFolders:
    """Places for the links to the slices of series that lie mixed with others, in a temporary folder of the output.

    Args:
        source: the input of the prediction.
    """

    def __init__(self, output: Path, source: Path, stack: ExitStack) -> None:
        self._output, self._source, self._stack = output, source, stack
        self._folder: Path | None = None

    def path(self, name: str) -> Path:
        """Return the path of a new folder."""
        if self._folder is None:
            self._folder = self._stack.enter_context(temporary_folder(writable_folder(self._output)))
        return self._folder / name

    @contextmanager
    def named_by_sources(self) -> Iterator[None]:
        """Let the messages of failed cases name the folders of the slices, not those of their links."""
        try:
            yield
        except CasesFailedError as problem:
            messages = {case_id: self._rename(message) for case_id, message in problem.failures.items()}
            raise CasesFailedError(messages, n_done=problem.n_done, doing="predict") from problem

    def _rename(self, message: str) -> str:
        folders = self._folder.iterdir() if self._folder is not None else ()
        for folder in sorted(folders, reverse=True):  # study_31 before study_3, which it starts with
            if folder.is_dir():  # links, or copies where the file system has none
                original = next(file.resolve().parent for file in folder.iterdir())
                shown = original.name if original == folder.resolve() else self._shown(original)
                message = message.replace(str(folder), str(shown))
        return message

    def _shown(self, folder: Path) -> Path:
        """Return a folder in the input as the user would write it."""
        root = self._source.resolve()
        return self._source / folder.relative_to(root) if folder.is_relative_to(root) else folder
