"""Model repositories of NVIDIA's Triton Inference Server."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import isnan, nan
from pathlib import Path

import torch
from torch import Tensor

from decathlete.core.extras import import_optional
from decathlete.core.files import remove_partials, replace_folder, write_text
from decathlete.core.locks import locked_output
from decathlete.core.schema import Schema
from decathlete.errors import DecathleteError, ModelError, OptionError, OutputError
from decathlete.export.exporters import EXPORTERS, CheckWindows, Exporter, ExportResult
from decathlete.export.parity import Compute, check_difference, difference, measure_rounding
from decathlete.export.programs import ProgramSource
from decathlete.export.triton_config import network_config, pipeline_config
from decathlete.export.triton_engine import FALLBACK_PRECISION, explain_precision
from decathlete.export.triton_options import TritonSettings
from decathlete.export.triton_pipeline import write_pipeline, write_warmup
from decathlete.export.triton_programs import check_format, other_window, write_program
from decathlete.export.triton_versions import CONFIG_FILE, keep_other_versions
from decathlete.inference.engines.torch import TorchEngine
from decathlete.models.bundle import ModelBundle
from decathlete.version import __version__

RECORD_FILE = "decathlete.json"
LOW_PRECISION_TOLERANCE = 0.05
"""Maximum difference of the logits of a program in fp16 or bf16, as a share of the model's greatest logit. Both have 8
to 11 bits of mantissa; a wrong program differs by 1 or so."""


class RepositoryRecord(Schema):
    """What ``decathlete.json`` says of one model of a repository.

    Attributes:
        decathlete: version that wrote it.
        kind: ``network`` or ``pipeline``.
        model: digest of the bundle.
        format: of a network; empty for a pipeline.
        difference: of a network's logits from the model's, as a share of the greatest; ``None`` for a pipeline.
    """

    decathlete: str
    kind: str
    model: str
    format: str
    precision: str
    difference: float | None


@dataclass(frozen=True, kw_only=True)
class TritonRepository(ExportResult):
    """Models in a repository of Triton Inference Server.

    Attributes:
        models: names of the models that were written.
        difference: of the network's logits from the model's, as a share of the greatest; NaN without a network, and for
            an int8 network, which was compared by the Dice of validation cases.
        windows_of: what the network was compared on, in words.
        note: in which precision the pipeline computes, if not in the requested one.
    """

    models: tuple[str, ...]
    difference: float
    windows_of: str
    note: str = ""

    @property
    def summary(self) -> str:
        """The folders of the models, how well the network agrees, a note, and the command that starts the server."""
        is_compared = not isnan(self.difference)
        compared = (
            f"; the network's logits differ from the model's by {self.difference:.1e} of the greatest, on "
            f"{self.windows_of}"
            if is_compared
            else ""
        )
        lines = [
            f"Triton model repository {self.path} with {' and '.join(self.models)}{compared}",
            self.note,
            f"start a server with: decathlete triton start {shlex.quote(str(self.path))}",
        ]
        return "\n".join(filter(None, lines))


@EXPORTERS.register("triton")
class TritonExporter(Exporter):
    """Write a model repository for Triton Inference Server: the network, and the pipeline from image to label map."""

    takes_several_plans = True  # the pipeline runs them all
    Settings = TritonSettings  # type: ignore[assignment]  # the command line and scripts make them, too

    def __init__(self, settings: TritonSettings) -> None:
        super().__init__(settings)
        self._options = settings

    @classmethod
    def check_available(cls) -> None:
        """Import the protocol buffers of Triton's client."""
        import_optional("tritonclient.grpc.model_config_pb2", title="Triton's client", extra="triton")

    def export(
        self, model: ModelBundle, output: Path, *, windows: Callable[[], CheckWindows], overwrite: bool
    ) -> TritonRepository:
        """Write ``NAME_network`` and ``NAME_pipeline`` into the repository; other models and versions in it stay."""
        return self._export(model, output, windows=windows, overwrite=overwrite, int8=None)

    def export_int8(
        self, model: ModelBundle, output: Path, *, windows: Callable[[], CheckWindows], overwrite: bool, program: Path
    ) -> TritonRepository:
        """Write a repository whose network is an int8 program that :func:`decathlete.export_int8` accepted.

        Args:
            program: its folder.
        """
        return self._export(model, output, windows=windows, overwrite=overwrite, int8=program)

    def _export(
        self,
        model: ModelBundle,
        output: Path,
        *,
        windows: Callable[[], CheckWindows],
        overwrite: bool,
        int8: Path | None,
    ) -> TritonRepository:
        options = self._options
        if options.with_network and int8 is None:
            check_format(options)
        _require_one_plan(model, options)
        precision, note = _choose_precision(model, options)
        base = options.name or model_base_name(model)
        names = [f"{base}_{kind}" for kind in ("network", "pipeline") if options.models in ("both", kind)]
        max_difference, origin = nan, ""
        version = options.version
        with (
            locked_output(output),
            repository_folders(output, names, version=version, overwrite=overwrite) as folders,
        ):
            for name, folder in zip(names, folders, strict=True):
                if name.endswith("_network"):
                    check = windows()
                    max_difference = self._write_network(model, name, folder, check, int8)
                    origin = f"{len(check.windows)} windows of {check.origin}"
                else:
                    self._write_pipeline(model, name, folder, precision)
                keep_other_versions(output / name, folder, version=version)
        return TritonRepository(
            path=output, models=tuple(names), difference=max_difference, windows_of=origin, note=note
        )

    def _write_network(
        self, model: ModelBundle, name: str, folder: Path, windows: CheckWindows, int8: Path | None
    ) -> float:
        options, source = self._options, ProgramSource.of(model, windows)
        version = folder / str(options.version)
        version.mkdir()
        if int8 is None:
            compute = write_program(source, options, version)
            max_difference: float | None = _check(source, compute, options)
        else:
            for file in ("model.xml", "model.bin"):
                shutil.copyfile(int8 / file, version / file)
            max_difference = None
        record = source.record
        config = network_config(options, name, window=record.window, n_outputs=record.output[0])
        self._finish(folder, config, options, kind="network", model=model, max_difference=max_difference)
        return nan if max_difference is None else max_difference

    def _write_pipeline(self, model: ModelBundle, name: str, folder: Path, precision: str) -> None:
        options, plan = self._options.revised(precision=precision), model.members[0].plan
        write_pipeline(model, folder / str(options.version), code=options.code)
        if options.warmup:
            shape_ZYX = (*(1,) * (3 - plan.dims), *plan.patch_size)
            write_warmup(folder, n_channels=len(plan.channels), shape_ZYX=shape_ZYX)
        config = pipeline_config(
            options, name, patch=plan.patch_size, n_channels=len(plan.channels), labels=plan.labels
        )
        self._finish(folder, config, options, kind="pipeline", model=model, max_difference=None)

    def _finish(
        self,
        folder: Path,
        config: str,
        options: TritonSettings,
        *,
        kind: str,
        model: ModelBundle,
        max_difference: float | None,
    ) -> None:
        write_text(folder / CONFIG_FILE, config)
        RepositoryRecord(
            decathlete=__version__,
            kind=kind,
            model=model.digest,
            format=options.format if kind == "network" else "",
            precision=options.precision,
            difference=max_difference,
        ).save(folder / RECORD_FILE)


def model_base_name(model: ModelBundle) -> str:
    """Return the name of a model in repositories, before ``_network`` or ``_pipeline``: its dataset's."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", model.members[0].plan.dataset)


@contextmanager
def repository_folders(repository: Path, names: list[str], *, version: int, overwrite: bool) -> Iterator[list[Path]]:
    """Yield new folders that become those of models in a repository at the end, unless an error occurs.

    A new repository appears whole; in an existing one, each model does. The caller holds the lock of ``repository``.

    Args:
        version: number of the version that is written.
        overwrite: a version of this number may be replaced.

    Raises:
        OutputError: ``repository`` holds something else than models, or a version exists and may not be replaced.
    """
    remove_partials(repository)
    others = [path.name for path in sorted(repository.iterdir()) if not _is_model(path)] if repository.is_dir() else []
    if others or (repository.exists() and not repository.is_dir()):
        raise OutputError(
            f"is not a model repository of Triton{f': it contains {others[0]}' if others else ''}",
            where=repository,
            remedy="choose another --output",
            code="E-OUTPUT-EXISTS",
        )
    for name in names:
        _check_replaceable(repository / name, version=version, overwrite=overwrite)
    with ExitStack() as stack:
        is_new = not repository.exists()
        place = stack.enter_context(replace_folder(repository)) if is_new else repository
        yield [stack.enter_context(replace_folder(place / name)) for name in names]


def _is_model(folder: Path) -> bool:
    return folder.name.startswith(".") or (folder / CONFIG_FILE).is_file()


def _check_replaceable(folder: Path, *, version: int, overwrite: bool) -> None:
    if not folder.exists():
        return
    try:
        RepositoryRecord.load(folder / RECORD_FILE)
    except DecathleteError:
        raise OutputError(
            "is a model that Decathlete did not write",
            where=folder,
            remedy="choose another --output or --name",
            code="E-OUTPUT-EXISTS",
        ) from None
    if not overwrite and (folder / str(version)).exists():
        raise OutputError(
            "already exists",
            where=folder / str(version),
            remedy="use --overwrite, or choose another --version, --output or --name",
            code="E-OUTPUT-EXISTS",
        )


def _require_one_plan(model: ModelBundle, options: TritonSettings) -> None:
    n_plans = len({member.plan.digest for member in model.members})
    if options.with_network and n_plans > 1:
        kind = "is a cascade of" if model.record.is_cascade else "has members of"
        raise ModelError(
            f"{kind} {n_plans} plans, which one network cannot represent",
            where=model.folder,
            remedy="export the pipeline alone (--models pipeline)",
            code="E-MODEL-SEVERAL-PLANS",
        )


def _choose_precision(model: ModelBundle, options: TritonSettings) -> tuple[str, str]:
    """Return the precision of the pipeline, and a note if it is not the requested one on every device.

    The requested precision is that of the network. A pipeline that could not be loaded would keep the server from
    starting, so that the network would not be served either.

    Raises:
        OptionError: only the pipeline is exported, and it cannot compute in the requested precision.
    """
    if not options.with_pipeline:
        return options.precision, ""
    explain = partial(
        explain_precision,
        options.precision,
        engine=options.engine,
        plans=[member.plan for member in model.members],
    )
    always = explain(on_cpu=options.instance_kind == "cpu")
    if always and not options.with_network:
        raise OptionError(
            f"the pipeline cannot compute in {options.precision}: {always}",
            remedy="choose another --precision, for example fp32",
            code="E-OPTION-CONFLICT",
        )
    if always:
        return FALLBACK_PRECISION, f"the pipeline computes in {FALLBACK_PRECISION}: {always}"
    on_cpu = "" if options.instance_kind == "gpu" else explain(on_cpu=True)
    return options.precision, on_cpu and f"on a CPU, the pipeline computes in {FALLBACK_PRECISION}: {on_cpu}"


def _check(source: ProgramSource, compute: Compute, options: TritonSettings) -> float:
    """Return the difference of a program from its model, also on larger windows if it accepts them.

    Raises:
        ModelError: it is too large.
    """
    windows = list(source.windows.windows)
    if options.dynamic_shapes:
        windows.append(_larger(windows[0], source))
    networks = source.networks()
    reference = [TorchEngine(network, device="cpu", precision="fp32") for network in networks]
    max_difference = difference(compute, reference, windows)
    if options.precision != "fp32":
        _check_low_precision(max_difference, source)
    else:
        check_difference(
            max_difference,
            rounding=lambda: measure_rounding(networks, windows),
            title=options.format,
            where=source.members[0].folder,
        )
    return max_difference


def _check_low_precision(max_difference: float, source: ProgramSource) -> None:
    if not max_difference <= LOW_PRECISION_TOLERANCE:
        raise ModelError(
            f"its logits in low precision differ by {max_difference:.2g} of the greatest, and "
            f"{LOW_PRECISION_TOLERANCE} is allowed; nothing was written",
            where=source.members[0].folder,
            remedy="choose --precision fp32",
            code="E-MODEL-ACCURACY",
        )


def _larger(window: Tensor, source: ProgramSource) -> Tensor:
    """Return a window one step of the network's strides larger along each axis, by reflection."""
    shape = other_window(source.record.window, getattr(source.record.plan.network, "strides", ((1,) * 3,)))
    for axis, size in enumerate(shape[1:], start=2):
        places = torch.arange(size) % (2 * window.shape[axis])
        places = torch.where(places < window.shape[axis], places, 2 * window.shape[axis] - 1 - places)
        window = window.index_select(axis, places)
    return window
