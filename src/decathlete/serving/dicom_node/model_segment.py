"""Segments the series of a DICOM node with a model of the service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from decathlete.errors import OptionError
from decathlete.inference.output.dicom import require_dicom_packages, write_dicom_result
from decathlete.io.series_rules import default_rules
from decathlete.serving.dicom_node.node import DicomNode
from decathlete.serving.dicom_node.settings import DicomNodeSettings
from decathlete.serving.model_cache import ModelCache


@contextmanager
def running_node(settings: DicomNodeSettings | None, models: ModelCache) -> Iterator[DicomNode | None]:
    """Run a DICOM node beside a service, with its first model; ``None``: run none.

    Raises:
        OptionError: the model has several channels, or the port cannot be used.
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
        OptionError: the model has several channels.
        MissingPackageError: the extra ``[dicom]`` is not installed.
    """
    require_dicom_packages("dicom-seg")
    info = models.info(name)
    if len(info.channels) != 1:
        raise OptionError(
            f"the model {name} needs {len(info.channels)} channels ({', '.join(info.channels)}), and a DICOM node "
            "segments series one by one",
            remedy="name a model of one channel first, or use decathlete predict --series",
        )
    with models.use(name) as predictor:
        digests = tuple(use.digest for use in predictor.settings.models)
    (rule,) = default_rules(info.channels)
    modalities = (rule.modality,) if rule.modality else settings.modalities
    segment = _ModelSegment(models, name)
    return DicomNode(replace(settings, modalities=modalities), segment, rule=rule, digests=digests)


class _ModelSegment:
    """Segments one series and writes a SEG object."""

    def __init__(self, models: ModelCache, name: str) -> None:
        self._models, self._name = models, name

    def __call__(self, source: Path, output: Path) -> Sequence[Path]:
        with self._models.use(self._name) as predictor:
            prediction = predictor.predict(source)
            labels, settings = predictor.labels, predictor.settings
        path = output / f"{len(list(output.iterdir()))}.seg.dcm"
        write_dicom_result(path, "dicom-seg", prediction.label_ZYX, labels=labels, source=source, settings=settings)
        return (path,)
