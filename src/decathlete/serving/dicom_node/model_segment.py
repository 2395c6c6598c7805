"""Segments the series of a DICOM node with a model of the service."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from decathlete.core.files import temporary_folder
from decathlete.core.memory import translate_out_of_memory
from decathlete.errors import ServiceError
from decathlete.inference.output.dicom import DicomOptions, require_dicom_packages, write_dicom_result
from decathlete.inference.predict import IMAGE_TOO_LARGE, Predictor
from decathlete.inference.prediction import Prediction
from decathlete.io.format_settings import changed_settings
from decathlete.io.images import read_channels
from decathlete.io.reading import Reading
from decathlete.serving.dicom_node.choice import SeriesChoice
from decathlete.serving.dicom_node.failures import NodeStoppedError
from decathlete.serving.dicom_node.node import DicomNode
from decathlete.serving.dicom_node.settings import DicomNodeSettings
from decathlete.serving.inputs import require_size
from decathlete.serving.model_cache import ModelCache


@contextmanager
def running_node(
    settings: DicomNodeSettings | None,
    models: ModelCache,
    *,
    stopping: threading.Event,
    reading: Reading = Reading(),
) -> Iterator[DicomNode | None]:
    """Run a DICOM node beside a service, with its first model; ``None``: run none.

    Args:
        reading: how series are read, as the uploads of the service.
        stopping: of the service; ends a computation of the node, too.

    Raises:
        OptionError: a rule of ``settings.series`` is not valid, or the port cannot be used.
        MissingPackageError: the extra ``[dicom]`` is not installed.
    """
    if settings is None:
        yield None
        return
    node = make_node(settings, models, next(iter(models.infos)), stopping=stopping, reading=reading)
    try:
        node.start()
        yield node
    finally:
        node.stop()


def make_node(
    settings: DicomNodeSettings,
    models: ModelCache,
    name: str,
    *,
    stopping: threading.Event | None = None,
    reading: Reading = Reading(),
) -> DicomNode:
    """Return a node that segments with one model of a service.

    Args:
        stopping: ends a computation; ``None``: an event of its own, which :meth:`DicomNode.stop` sets.
        reading: how series are read.

    Raises:
        OptionError: a rule of ``settings.series`` is not valid.
        MissingPackageError: the extra ``[dicom]`` is not installed.
    """
    require_dicom_packages("dicom-seg", alternative=None)
    choice = SeriesChoice.of_model(models.info(name).channels, settings.series)
    with models.use(name) as predictor:
        digests = tuple(use.digest for use in predictor.settings.models)
    stopping = stopping or threading.Event()
    segment = _ModelSegment(models, name, stopping=stopping, settings=settings, reading=reading)
    return DicomNode(
        settings, segment, choice=choice, digests=digests, stopping=stopping, wait_for_model=segment.wait_for_model
    )


class _ModelSegment:
    """Segments one image and writes a SEG object that refers to the series of its first channel.

    Args:
        stopping: ends a computation.
        settings: with the limits of size and time.
        reading: how series are read.
    """

    def __init__(
        self,
        models: ModelCache,
        name: str,
        *,
        stopping: threading.Event,
        settings: DicomNodeSettings,
        reading: Reading,
    ) -> None:
        self._models, self._name = models, name
        self._stopping, self._settings, self._reading = stopping, settings, reading

    def __call__(self, sources: Sequence[Path], output: Path) -> Sequence[Path]:
        with self.wait_for_model() as predictor, temporary_folder(output.parent) as scratch:
            prediction = self._predict(sources, predictor, scratch)
            labels, codes = predictor.labels, predictor.structure_codes
            settings = predictor.settings.revised(
                spacing=self._reading.spacing, image_formats=changed_settings(self._reading.formats)
            )
        path = output / f"{len(list(output.iterdir()))}.seg.dcm"
        write_dicom_result(
            path,
            "dicom-seg",
            prediction.label_ZYX,
            labels=labels,
            source=sources[0],
            settings=settings,
            options=DicomOptions(codes=self._models.codes),
            codes=codes,
        )
        return (path,)

    def wait_for_model(self) -> AbstractContextManager[Predictor]:
        """Provide the model when nothing else uses it; a thread that has it already does not wait.

        Raises:
            NodeStoppedError: the node ends before.
        """
        return self._models.use(self._name, check=self._check_wanted)

    def _check_wanted(self) -> None:
        if self._stopping.is_set():
            raise NodeStoppedError

    def _predict(self, sources: Sequence[Path], predictor: Predictor, scratch: Path) -> Prediction:
        end = time.monotonic() + self._settings.job_seconds
        reading = self._reading
        require_size(sources, limit_bytes=self._settings.image_bytes, reading=reading)
        with translate_out_of_memory("the image", remedy=IMAGE_TOO_LARGE):
            image = read_channels(sources, spacing=reading.spacing, formats=reading.formats)
            prepared = predictor.prepare(image)

        def check(_share: float) -> None:
            self._check_wanted()
            if time.monotonic() > end:
                raise ServiceError(
                    f"the computation took longer than {self._settings.job_seconds:g} s",
                    remedy="start the service with a larger --max-time",
                    code="E-SERVICE-TIME",
                )

        check(0.0)
        return predictor.compute(prepared, scratch=scratch, progress=check)
