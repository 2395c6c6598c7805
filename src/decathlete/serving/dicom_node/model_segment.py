"""Segments the series of a DICOM node with a model of the service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from decathlete.inference.output.dicom import require_dicom_packages, write_dicom_result
from decathlete.serving.dicom_node.choice import SeriesChoice
from decathlete.serving.dicom_node.node import DicomNode
from decathlete.serving.dicom_node.settings import DicomNodeSettings
from decathlete.serving.model_cache import ModelCache


@contextmanager
def running_node(settings: DicomNodeSettings | None, models: ModelCache) -> Iterator[DicomNode | None]:
    """Run a DICOM node beside a service, with its first model; ``None``: run none.

    Raises:
        OptionError: a rule of ``settings.series`` is not valid, or the port cannot be used.
        MissingPackageError: the extra ``[dicom]`` is not installed.
    """
    if settings is None:
        yield None
        return
    node = make_node(settings, models, next(iter(models.infos)))
    try:
        node.start()
        yield node
    finally:
        node.stop()


def make_node(settings: DicomNodeSettings, models: ModelCache, name: str) -> DicomNode:
    """Return a node that segments with one model of a service.

    Raises:
        OptionError: a rule of ``settings.series`` is not valid.
        MissingPackageError: the extra ``[dicom]`` is not installed.
    """
    require_dicom_packages("dicom-seg", alternative=None)
    choice = SeriesChoice.of_model(models.info(name).channels, settings.series)
    with models.use(name) as predictor:
        digests = tuple(use.digest for use in predictor.settings.models)
    return DicomNode(settings, _ModelSegment(models, name), choice=choice, digests=digests)


class _ModelSegment:
    """Segments one image and writes a SEG object that refers to the series of its first channel."""

    def __init__(self, models: ModelCache, name: str) -> None:
        self._models, self._name = models, name

    def __call__(self, sources: Sequence[Path], output: Path) -> Sequence[Path]:
        with self._models.use(self._name) as predictor:
            prediction = predictor.predict(sources)
            labels, settings = predictor.labels, predictor.settings
        path = output / f"{len(list(output.iterdir()))}.seg.dcm"
        write_dicom_result(
            path,
            "dicom-seg",
            prediction.label_ZYX,
            labels=labels,
            source=sources[0],
            settings=settings,
            codes=self._models.info(self._name).structure_codes,
        )
        return (path,)
