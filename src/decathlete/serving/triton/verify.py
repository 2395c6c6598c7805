"""Verify that a Triton Inference Server computes what a model computes here, on real cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from decathlete.core.geometry import Triple
from decathlete.core.progress import CaseProgress
from decathlete.core.schema import Schema
from decathlete.dataset.spec import Case
from decathlete.errors import OptionError
from decathlete.export.exporters.triton import model_base_name
from decathlete.export.triton_engine import engine_of
from decathlete.inference.options import PredictOptions
from decathlete.inference.predict import Predictor
from decathlete.io.reading import Reading, require_named_files
from decathlete.models.bundle import ModelBundle
from decathlete.serving.triton.cases import find_cases, require_sendable
from decathlete.serving.triton.client import TritonClient
from decathlete.serving.triton.comparison import CaseComparison, Comparison
from decathlete.serving.triton.protocol import ClientOptions

Models = Literal["both", "network", "pipeline"]
SendAs = Literal["volume", "file"]


class Thresholds(Schema):
    """Limits of the differences between server and model.

    Attributes:
        logits: greatest difference of logits, as a share of the greatest logit.
        changed: share of voxels, over all cases, whose label may differ.
        margin: greatest difference between the probabilities of the two best classes in such voxels.
        dice: least Dice of a structure in a case.
    """

    logits: float = 1e-4
    changed: float = 1e-5
    margin: float = 1e-4
    dice: float = 0.999


class ModelVerification(Schema):
    """The comparison of one model over one protocol."""

    model: str
    protocol: str
    sent_as: str
    cases: tuple[CaseComparison, ...]

    @property
    def logit_difference(self) -> float | None:
        """Maximum over the cases."""
        return max((c.logit_difference for c in self.cases if c.logit_difference is not None), default=None)

    @property
    def changed_share(self) -> float:
        """Share of voxels with another label."""
        return sum(c.n_changed for c in self.cases) / sum(c.n_voxels for c in self.cases)

    def problems(self, limits: Thresholds) -> list[str]:
        """Return what exceeds the thresholds, a clause each."""
        found = [
            f"{case.case_id}: {name} {value:.3g} ({relation} {limit:g} is allowed)"
            for case in self.cases
            for name, value, relation, limit, is_wrong in _judge(case, limits)
            if is_wrong
        ]
        found += [f"{case.case_id}: other {', '.join(case.differing)}" for case in self.cases if case.differing]
        if not self.changed_share <= limits.changed:
            found.append(f"{self.changed_share:.3g} of all voxels differ (at most {limits.changed:g} is allowed)")
        return [f"{self.model} over {self.protocol}: {problem}" for problem in found]


class VerificationReport(Schema):
    """What ``decathlete triton verify`` found.

    Attributes:
        problems: what exceeds the thresholds; empty: the server computes what the model computes.
    """

    thresholds: Thresholds
    models: tuple[ModelVerification, ...]
    problems: tuple[str, ...]

    @property
    def table(self) -> str:
        """One line for each model and protocol."""
        rows = [("model", "protocol", "cases", "logit difference", "voxels changed", "greatest margin", "least Dice")]
        for found in self.models:
            dice = [value for case in found.cases for value in case.dice.values()]
            logits = "-" if found.logit_difference is None else f"{found.logit_difference:.2e}"
            rows.append(
                (
                    found.model,
                    f"{found.protocol}, {found.sent_as}",
                    str(len(found.cases)),
                    logits,
                    f"{sum(c.n_changed for c in found.cases)} of {sum(c.n_voxels for c in found.cases)}",
                    f"{max(c.margin for c in found.cases):.2e}",
                    f"{min(dice):.5f}" if dice else "-",
                )
            )
        return format_table(rows)


@dataclass(frozen=True, kw_only=True)
class TritonVerifyOptions:
    """How a server is verified.

    Attributes:
        name: of the models, without ``_network`` and ``_pipeline``; empty: the dataset's.
        models: which of the two.
        send_as: how images are sent to the pipeline.
        clients: one for each protocol.
        thresholds: limits of the differences.
        cases: number of cases; ``None``: all.
        engine: of the model here, for the pipeline; ``None``: that of the pipeline's configuration.
        dump: folder for inputs and outputs.
    """

    name: str = ""
    models: Models = "both"
    send_as: SendAs = "volume"
    clients: tuple[ClientOptions, ...] = (
        ClientOptions(protocol="http", address="127.0.0.1:8000"),
        ClientOptions(protocol="grpc", address="127.0.0.1:8001"),
    )
    thresholds: Thresholds = Thresholds()
    cases: int | None = 20
    engine: str | None = None
    dump: Path | None = None

    def __post_init__(self) -> None:
        if self.models == "network" and (self.engine is not None or self.send_as != "volume"):
            raise OptionError(
                "--engine and --send have no effect on the network model",
                remedy="remove them, or verify the pipeline (--models pipeline or both)",
                code="E-OPTION-CONFLICT",
            )


def triton_verify(
    model: str | Path,
    *,
    inputs: str | Path | None = None,
    spacing: Triple | None = None,
    image_formats: Mapping[str, Mapping[str, Any]] | None = None,
    options: TritonVerifyOptions = TritonVerifyOptions(),
    progress: CaseProgress | None = None,
) -> VerificationReport:
    """Send real cases to a server and compare its answers with those of the model here.

    Args:
        model: a run's folder or a model folder, from which the repository was exported.
        inputs: an image or a folder of images; ``None``: the held-out cases of the run, read as in its training.
        spacing: z, y, x in mm, for images in ``inputs`` whose files do not contain their spacing.
        image_formats: settings of image formats that change how these images are read, by the name of the format.
        progress: called after each case.

    Raises:
        TritonError: the server does not answer, has no such model, or rejects a request.
        ModelError: there is no model. ImageError, DatasetError: there are no images.
        OptionError: ``spacing`` or a setting of an image format has no effect, or a file cannot be sent as it is.
    """
    require_named_files(spacing, image_formats, are_named=inputs is not None, options="--input")
    folder = Path(model)
    bundle = ModelBundle.load(folder)
    n_channels = len(bundle.members[0].plan.channels)
    cases = find_cases(
        folder,
        None if inputs is None else Path(inputs),
        n_channels=n_channels,
        limit=options.cases,
        reading=Reading().revised(spacing, image_formats),
    )
    if options.send_as == "file":
        for case in cases:
            require_sendable(case)
    base = options.name or model_base_name(bundle)
    found = list(_verify_all(folder, base, cases, options, progress))
    problems = [problem for each in found for problem in each.problems(options.thresholds)]
    return VerificationReport(thresholds=options.thresholds, models=tuple(found), problems=tuple(problems))


def _verify_all(
    folder: Path, base: str, cases: Sequence[Case], options: TritonVerifyOptions, progress: CaseProgress | None
) -> Iterator[ModelVerification]:
    kinds = ("network", "pipeline") if options.models == "both" else (options.models,)
    total, done = len(cases) * len(kinds) * len(options.clients), 0
    for kind in kinds:
        predictor: Predictor | None = None
        for client_options in options.clients:
            with TritonClient.connect(client_options) as client:
                name = f"{base}_{kind}"
                predictor = predictor or _load(folder, kind, client, name, options)
                comparison = Comparison(client=client, model=name, predictor=predictor, dump=options.dump)
                results = []
                for compared in _compare(comparison, kind, cases, options):
                    results.append(compared)
                    done += 1
                    if progress is not None:
                        progress(done, total, compared.case_id)
            sent_as = "windows" if kind == "network" else options.send_as
            yield ModelVerification(model=name, protocol=client_options.protocol, sent_as=sent_as, cases=tuple(results))


def _compare(
    comparison: Comparison, kind: str, cases: Sequence[Case], options: TritonVerifyOptions
) -> Iterator[CaseComparison]:
    if kind == "network":
        return comparison.networks(cases)
    return comparison.pipelines(cases, as_files=options.send_as == "file")


def _load(folder: Path, kind: str, client: TritonClient, name: str, options: TritonVerifyOptions) -> Predictor:
    """Load the model here: a network in fp32 with PyTorch, a pipeline as its configuration says."""
    if kind == "network":
        return Predictor.load(folder, options=PredictOptions(engine="torch", precision="fp32", device="cpu"))
    parameters = client.parameters(name)
    if options.engine is None and ":" in parameters.get("engine", ""):
        raise OptionError(
            f"the engine of the pipeline is {parameters['engine']}; a module that a server names is not imported here",
            remedy="name the engine with --engine",
        )
    engine = options.engine or engine_of(parameters)
    return Predictor.load(folder, options=PredictOptions(engine=engine, precision="fp32", device="cpu"))


def _judge(case: CaseComparison, limits: Thresholds) -> Iterator[tuple[str, float, str, float, bool]]:
    """Yield what has a threshold: name, value, relation, limit and whether it is exceeded; NaN exceeds all."""
    if case.logit_difference is not None:
        value = case.logit_difference
        yield "logit difference", value, "at most", limits.logits, not value <= limits.logits
    yield "margin of changed voxels", case.margin, "at most", limits.margin, not case.margin <= limits.margin
    for structure, value in case.dice.items():
        yield f"Dice of {structure}", value, "at least", limits.dice, not value >= limits.dice


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a text table with aligned columns.

    >>> print(format_table([("model", "cases"), ("a", "20")]))
    model  cases
    a      20
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
