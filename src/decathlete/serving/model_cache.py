"""The models of a service: each is loaded once, and the least recently used ones are unloaded to save memory."""

from __future__ import annotations

import gc
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from decathlete.core.labels import LabelSet
from decathlete.core.sizes import format_bytes
from decathlete.core.structure_codes import StructureCode
from decathlete.errors import ModelError, OptionError, ServiceError
from decathlete.inference.options import PredictOptions
from decathlete.inference.predict import Predictor
from decathlete.models.bundle import RUN_MODEL
from decathlete.models.record import RECORD_FILE
from decathlete.serving.settings import ModelSource
from decathlete.workflows.report_charts import make_class_colours

LoadPredictor = Callable[[Path, PredictOptions], Predictor]

_WAIT_S = 0.2

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LabelInfo:
    """One structure that a model segments: its name, its value in label maps, and a colour (``#rrggbb``)."""

    name: str
    value: int
    color: str


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What a service says about a model.

    Attributes:
        name: in the API.
        description: one sentence.
        labels: structures with their values in label maps.
        channels: names of the channels of an image, in order.
        digest: identity of the model.
        dimension: 2 (slices) or 3; 3 if the model has members of both.
        n_bytes: size of its files, by which ``--model-memory`` counts.
    """

    name: str
    description: str
    labels: tuple[LabelInfo, ...]
    channels: tuple[str, ...]
    digest: str
    dimension: int
    n_bytes: int


def load_predictor(folder: Path, options: PredictOptions) -> Predictor:
    """Load a model as ``decathlete predict`` does."""
    return Predictor.load(folder, options=options)


class ModelCache:
    """Loads the models of a service when they are needed.

    Every model is loaded once at the start, so that a damaged one is found before the service listens.

    Args:
        sources: the models.
        options: how they predict.
        codes: structure -> its code in DICOM objects, which precedes that of a model.
        limit_bytes: memory for loaded models; ``None``: unlimited.
        load: loads one of them.

    Attributes:
        infos: name -> description, in the order of ``sources``.
        codes: as above.
        n_loads: how many times a model was loaded, for the metrics.

    Raises:
        ModelError: a model is missing or damaged.
        OptionError: two models have one name, or one alone is larger than ``limit_bytes``.
    """

    def __init__(
        self,
        sources: Sequence[ModelSource],
        options: PredictOptions,
        *,
        codes: Mapping[str, StructureCode] = MappingProxyType({}),
        limit_bytes: int | None = None,
        load: LoadPredictor = load_predictor,
    ) -> None:
        self._options, self._limit, self._load, self.codes = options, limit_bytes, load, codes
        self._using = threading.RLock()  # held while a model computes
        self._table = threading.Lock()  # held for moments, so that metrics never wait for a computation
        self._loaded: OrderedDict[str, Predictor] = OrderedDict()  # least recently used first
        self._folders: dict[str, Path] = {}
        self.infos: dict[str, ModelInfo] = {}
        self.n_loads = 0
        for source in sources:
            self._add(source)
        _warn_of_unknown_structures(codes, self.infos.values())

    @property
    def loaded_bytes(self) -> int:
        """Size of the models that are loaded."""
        return sum(self.infos[name].n_bytes for name in self.loaded_names)

    @property
    def loaded_names(self) -> list[str]:
        """Names of the models that are loaded, the least recently used first."""
        with self._table:
            return list(self._loaded)

    def info(self, name: str) -> ModelInfo:
        """Describe a model.

        Raises:
            ServiceError: the service does not offer it.
        """
        if name not in self.infos:
            raise ServiceError(
                f"there is no model {name!r}",
                remedy=f"use one of {', '.join(self.infos)}",
                code="E-SERVICE-MODEL",
            )
        return self.infos[name]

    @contextmanager
    def use(self, name: str, *, check: Callable[[], None] = lambda: None) -> Iterator[Predictor]:
        """Provide a loaded model; no other thread uses or unloads a model meanwhile.

        Args:
            check: called often while another thread uses a model; an exception that it raises ends the wait.

        Raises:
            ServiceError: the service does not offer it.
            ModelError: its files are missing, damaged or were replaced.
        """
        info = self.info(name)
        while not self._using.acquire(timeout=_WAIT_S):
            check()
        try:
            if name not in self._loaded:
                self._reload(info)
            with self._table:
                self._loaded.move_to_end(name)
            yield self._loaded[name]
        finally:
            self._using.release()

    def _reload(self, info: ModelInfo) -> None:
        self._make_room(info.n_bytes)
        predictor = self._load_counted(self._folders[info.name])
        if _digest(predictor) != info.digest:
            raise ModelError(
                "was replaced while the service was running",
                where=info.name,
                remedy="restart the service to use the new model",
            )
        self._keep(info.name, predictor)

    def _add(self, source: ModelSource) -> None:
        n_bytes = stored_bytes(source.folder)
        if self._limit is not None and n_bytes > self._limit:
            raise OptionError(
                f"the model needs {format_bytes(n_bytes)}, and --model-memory is {format_bytes(self._limit)}",
                remedy="allow more memory for models",
            )
        self._make_room(n_bytes)
        predictor = self._load_counted(source.folder)
        info = describe_model(predictor, name=source.name, n_bytes=n_bytes)
        if info.name in self.infos:
            raise OptionError(f"two models are called {info.name!r}", remedy="give each its own name: --model NAME=DIR")
        self.infos[info.name], self._folders[info.name] = info, source.folder
        self._keep(info.name, predictor)

    def _keep(self, name: str, predictor: Predictor) -> None:
        with self._table:
            self._loaded[name] = predictor

    def _load_counted(self, folder: Path) -> Predictor:
        self.n_loads += 1
        return self._load(folder, self._options)

    def _make_room(self, n_bytes: int) -> None:
        """Unload models until ``n_bytes`` more fit."""
        while self._limit is not None and self._loaded and self.loaded_bytes + n_bytes > self._limit:
            with self._table:
                name = self._loaded.popitem(last=False)[0]  # no reference to the model: its memory is freed now
            log.info("unloaded the model %s", name)
            gc.collect()
            if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                torch.cuda.empty_cache()


def describe_model(predictor: Predictor, *, name: str | None, n_bytes: int) -> ModelInfo:
    """Describe a loaded model; without a name it is called like the dataset that it was trained on."""
    plan, labels = predictor.ensembles[0].plan, predictor.labels
    return ModelInfo(
        name=name or re.sub(r"[^A-Za-z0-9._-]+", "_", plan.dataset).strip("._-") or "model",
        description=f"Segments {', '.join(s.name for s in labels.structures)}; trained on {plan.dataset}.",
        labels=describe_labels(labels),
        channels=plan.channels,
        digest=_digest(predictor),
        dimension=max(ensemble.plan.dims for ensemble in predictor.ensembles),
        n_bytes=n_bytes,
    )


def describe_labels(labels: LabelSet) -> tuple[LabelInfo, ...]:
    """Describe the structures of a label set, each with a colour of its own."""
    colours = make_class_colours(len(labels.structures))
    return tuple(
        LabelInfo(name=structure.name, value=value, color=colour)
        for structure, value, colour in zip(labels.structures, labels.structure_values, colours, strict=True)
    )


def _warn_of_unknown_structures(codes: Mapping[str, StructureCode], infos: Iterable[ModelInfo]) -> None:
    names = dict.fromkeys(label.name for info in infos for label in info.labels)
    if unknown := [name for name in codes if name not in names]:
        log.warning("--dicom-codes: no model segments %s; structures: %s", ", ".join(unknown), ", ".join(names))


def stored_bytes(folder: Path) -> int:
    """Return the size of the files of a model: of a run, those of its final model."""
    inside = folder / RUN_MODEL
    model = inside if (inside / RECORD_FILE).is_file() else folder
    return sum(path.stat().st_size for path in model.rglob("*") if path.is_file())


def _digest(predictor: Predictor) -> str:
    return predictor.settings.models[0].digest
