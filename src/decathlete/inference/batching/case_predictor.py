"""Predict many cases with the same models: in this process, or in the worker processes of an executor."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from decathlete.core.labels import LabelSet
from decathlete.core.parallel import CaseExecutor, Outcome, TaskNeeds, Workers
from decathlete.errors import ClusterError, DecathleteError
from decathlete.inference.batching.cases import predict_cases
from decathlete.inference.batching.pipeline import run_pipeline
from decathlete.inference.batching.shared_batches import CaseRequest, CaseResult, Payload
from decathlete.inference.options import PredictOptions
from decathlete.inference.output.provenance import RecordedSettings
from decathlete.inference.predict import Predictor
from decathlete.preprocessing.write import preparation_digest

Item = TypeVar("Item")
Written = TypeVar("Written")
Read = Callable[[Predictor, Item], CaseRequest[Payload]]
Write = Callable[[Predictor, CaseResult[Payload]], Written]

CASES_IN_MEMORY = 3
"""Cases of one worker process: one is read and one is written while another is computed."""


@dataclass(frozen=True, kw_only=True)
class PredictorFacts:
    """What the caller of a prediction needs to know of its models.

    Attributes:
        n_channels: channels of an input image.
        channels: their names.
        preparation_digests: of the plan of each ensemble, see
            :func:`~decathlete.preprocessing.write.preparation_digest`.
    """

    settings: RecordedSettings
    n_channels: int
    channels: tuple[str, ...]
    labels: LabelSet
    preparation_digests: tuple[str, ...]

    @classmethod
    def of(cls, predictor: Predictor) -> PredictorFacts:
        """Return the facts of a loaded predictor."""
        return cls(
            settings=predictor.settings,
            n_channels=predictor.n_channels,
            channels=predictor.ensembles[0].plan.channels,
            labels=predictor.labels,
            preparation_digests=tuple(preparation_digest(e.plan) for e in predictor.ensembles),
        )


class CasePredictor(Protocol):
    """Predicts many cases with the same models."""

    @property
    def facts(self) -> PredictorFacts:
        """The facts about the models that the caller needs."""
        ...

    def require_shared(self, *, reads: Sequence[Path] = (), writes: Sequence[Path] = ()) -> None:
        """Check that the processes that predict see these files: :func:`~decathlete.core.parallel.require_shared`."""
        ...

    def run(
        self, items: Mapping[str, Item], *, read: Read[Item, Payload], write: Write[Payload, Written]
    ) -> Iterator[Outcome[Written]]:
        """Read, compute and write every case; yield the outcomes in the order in which they finish.

        Args:
            items: by case id.
            read: reads and prepares one case.
            write: receives the payload of the request and the prediction.
        """
        ...


def make_case_predictor(
    models: Path | str | Sequence[Path | str],
    options: PredictOptions,
    workers: Workers | None = None,
    *,
    fold: int | None = None,
) -> CasePredictor:
    """Load models in this process, or have the worker processes of an executor load them.

    Args:
        workers: an executor; ``None`` or a number: predict in this process.
        fold: use only the networks of this fold; ``None``: all.

    Raises:
        ModelError: a model is missing or damaged, or they do not belong together.
        OptionError: an option that is unknown, out of range, or not for this machine.
    """
    if workers is None or isinstance(workers, int):
        return LocalCasePredictor(Predictor.load(models, options=options, fold=fold))
    folders = [models] if isinstance(models, (str, Path)) else models
    return RemoteCasePredictor([Path(folder) for folder in folders], options, workers, fold=fold)


class LocalCasePredictor:
    """Predicts in this process: the next case is read and the last one written while one is computed.

    Attributes:
        predictor: the loaded models.
        one_at_a_time: finish each case before the next is read, so that only one is in memory.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.one_at_a_time = predictor.window.memory_gb is not None
        self.facts = PredictorFacts.of(predictor)

    def require_shared(self, *, reads: Sequence[Path] = (), writes: Sequence[Path] = ()) -> None:
        """Do nothing: this process sees its files."""

    def run(
        self, items: Mapping[str, Item], *, read: Read[Item, Payload], write: Write[Payload, Written]
    ) -> Iterator[Outcome[Written]]:
        """See :meth:`CasePredictor.run`."""
        return run_pipeline(
            items,
            read=partial(read, self.predictor),
            compute=partial(predict_cases, self.predictor),
            write=partial(write, self.predictor),
            one_at_a_time=self.one_at_a_time,
        )


class RemoteCasePredictor:
    """Predicts in the worker processes of an executor, each of which loads the models once.

    Args:
        models: folders of runs, model bundles or exported programs.
        options: how to predict; each worker must resolve ``auto`` to the same engine and precision.
        fold: use only the networks of this fold; ``None``: all.

    Raises:
        DecathleteError: a worker cannot load the models; the error is that of :meth:`Predictor.load`.
    """

    def __init__(
        self, models: Sequence[Path], options: PredictOptions, executor: CaseExecutor, *, fold: int | None = None
    ) -> None:
        self._request = _PredictorRequest(models=tuple(models), options=options, fold=fold)
        self._executor = executor
        self._needs = TaskNeeds(
            at_once=1 if options.window.memory_gb is not None else CASES_IN_MEMORY, device=options.device
        )
        executor.require_shared(reads=models)
        (outcome,) = executor.map(_read_facts, {"the models": self._request}, needs=self._needs)
        if outcome.value is None:
            raise _error_of(outcome)
        self.facts = outcome.value

    def require_shared(self, *, reads: Sequence[Path] = (), writes: Sequence[Path] = ()) -> None:
        """See :meth:`CasePredictor.require_shared`."""
        self._executor.require_shared(reads=reads, writes=writes)

    def run(
        self, items: Mapping[str, Item], *, read: Read[Item, Payload], write: Write[Payload, Written]
    ) -> Iterator[Outcome[Written]]:
        """See :meth:`CasePredictor.run`."""
        predict = partial(_predict_case, request=self._request, settings=self.facts.settings, read=read, write=write)
        try:
            yield from self._executor.map(predict, items, needs=self._needs)
        finally:
            self._executor.call_everywhere(_release)


@dataclass(frozen=True, kw_only=True)
class _PredictorRequest:
    """The models that a worker process loads for one command, and keeps until the next one.

    Attributes:
        token: differs for each command, since the model in a folder may change between two of them.
    """

    models: tuple[Path, ...]
    options: PredictOptions
    fold: int | None = None
    token: str = field(default_factory=lambda: uuid.uuid4().hex)


_loading = threading.Lock()
_computing = threading.Lock()
_loaded: dict[str, Predictor] = {}


def _load(request: _PredictorRequest) -> Predictor:
    """Return the predictor of a request; a worker process holds one at a time."""
    with _loading:
        if request.token not in _loaded:
            _loaded.clear()
            _loaded[request.token] = Predictor.load(request.models, options=request.options, fold=request.fold)
        return _loaded[request.token]


def _release() -> None:
    """Free the memory of the models; the worker process stays."""
    with _loading:
        _loaded.clear()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def _read_facts(request: _PredictorRequest) -> PredictorFacts:
    return PredictorFacts.of(_load(request))


def _predict_case(
    item: Item,
    *,
    request: _PredictorRequest,
    settings: RecordedSettings,
    read: Read[Item, Payload],
    write: Write[Payload, Written],
) -> Written:
    """Predict one case in a worker process; cases of other threads are read and written meanwhile.

    Raises:
        DecathleteError: the case failed.
    """
    predictor = _load(request)
    if predictor.settings != settings:
        raise ClusterError(
            f"the workers predict differently: {_name(predictor.settings)} here, {_name(settings)} elsewhere",
            remedy="choose --engine, --device and --precision, or start equal workers",
        )
    case: Outcome[CaseRequest[Payload]] = Outcome(case_id="", value=read(predictor, item))
    with _computing:
        (outcome,) = [outcome for finished in predict_cases(predictor, [case]) for outcome in finished]
    if outcome.value is None:
        raise _error_of(outcome)
    return write(predictor, outcome.value)


def _name(settings: RecordedSettings) -> str:
    return ", ".join(sorted({f"{use.engine} {use.precision}" for use in settings.models}))


def _error_of(outcome: Outcome[Written]) -> DecathleteError:
    return outcome.cause or DecathleteError(outcome.error or "failed")
