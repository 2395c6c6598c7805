"""Export a model as a program: write it, compare it with the model, and store a record beside and inside it."""

from __future__ import annotations

import shlex
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from decathlete.core.documents import read_json
from decathlete.core.files import file_digest, replace_folder
from decathlete.core.locks import locked_output
from decathlete.errors import DecathleteError, OutputError
from decathlete.export.exporters import CheckWindows, Exporter, ExportResult
from decathlete.export.parity import TOLERANCE, check_difference, check_windows, difference, measure_rounding
from decathlete.inference.engines import ENGINES, Engine
from decathlete.inference.engines.torch import TorchEngine
from decathlete.inference.exported_program import PREVIOUS_STAGE_FOLDER, RECORD_FILE, RECORD_KEY, ProgramRecord
from decathlete.models.bundle import BundleMember, ModelBundle
from decathlete.models.record import common_plan
from decathlete.networks.onnx_program import onnx_program

if TYPE_CHECKING:
    from torch import nn

USE_MODEL = "use the model's folder, which needs no export"
"""What to do where a model has no program."""


@dataclass(frozen=True, kw_only=True)
class ExportedProgram(ExportResult):
    """A program on disk.

    Attributes:
        difference: of its logits from the model's, as a share of the greatest.
        checked_on: number of windows.
        windows_of: what they were cut from, in words.
    """

    record: ProgramRecord
    difference: float
    checked_on: int
    windows_of: str

    @property
    def summary(self) -> str:
        """The path of the program, and how well it agrees with the model."""
        return (
            f"program in {self.path}; logits differ from the model's by {self.difference:.1e} of the greatest, on "
            f"{self.checked_on} windows of {self.windows_of}"
        )

    def describe_joint_use(self, parts: Sequence[ExportResult]) -> str:
        """Return the options of ``predict``."""
        together = " ".join(f"--model {shlex.quote(str(part.path))}" for part in parts)
        return f"a program for each plan; use all for a prediction: {together}"


@dataclass(frozen=True, kw_only=True)
class ProgramSource:
    """Networks of one plan, the record of their program, and the windows that the program is checked on."""

    members: Sequence[BundleMember]
    record: ProgramRecord
    windows: CheckWindows

    @classmethod
    def of(cls, bundle: ModelBundle, windows: CheckWindows, *, previous_stage: str | None = None) -> ProgramSource:
        """Return the source of a program of ``bundle``.

        Args:
            previous_stage: of a cascade: digest of the program of its first stage.

        Raises:
            ModelError: its outputs have different plans.
        """
        return cls(
            members=bundle.outputs,
            record=_program_record(bundle, bundle.outputs).revised(previous_stage=previous_stage),
            windows=windows,
        )

    @classmethod
    def of_previous_stage(cls, bundle: ModelBundle) -> ProgramSource:
        """Return the source of the program of a cascade's first stage.

        Raises:
            ModelError: its outputs have different first stages.
        """
        stages = {m.record.name: m for output in bundle.outputs if (m := bundle.previous_stage_of(output))}
        members = tuple(stages.values())
        record = _program_record(bundle, members)
        return cls(
            members=members,
            record=record.revised(postprocessing=(), temperature=1.0),
            windows=CheckWindows(windows=check_windows(record.plan), origin="smooth noise"),
        )

    def networks(self) -> list[nn.Module]:
        """Build the networks, in order."""
        return [network for member in self.members for network in member.build_all()]

    def onnx_program(self, *, alternative: str = USE_MODEL) -> bytes:
        """Return the model in ONNX form, with the record inside.

        Args:
            alternative: what to do if there is no such program, in the imperative.

        Raises:
            MissingPackageError: a package that writes programs is missing.
            ModelError: an ONNX program cannot represent the networks.
        """
        networks = self.networks()
        return onnx_program(
            networks,
            window=self.record.window,
            n_outputs=self.record.output[0],
            metadata={RECORD_KEY: self.record.model_dump_json()},
            alternative=alternative,
        )

    def check(self, program: Engine, *, title: str) -> float:
        """Return the greatest difference of the logits of a program from the model's.

        Raises:
            ModelError: it is too large.
        """
        networks = self.networks()
        reference = [TorchEngine(network, device="cpu", precision="fp32") for network in networks]
        windows = self.windows.windows
        max_difference = difference(program, reference, windows)
        check_difference(
            max_difference,
            rounding=lambda: measure_rounding(networks, windows),
            title=title,
            where=self.members[0].folder,
        )
        return max_difference

    def result(self, path: Path, max_difference: float) -> ExportedProgram:
        """Return the description of the program at ``path``."""
        return ExportedProgram(
            path=path,
            record=self.record,
            difference=max_difference,
            checked_on=len(self.windows.windows),
            windows_of=self.windows.origin,
        )


class ProgramExporter(Exporter):
    """Writes a folder with a program, which is read back and compared with the model before the folder appears."""

    title: ClassVar[str]
    """Name of the form, for people."""
    engine: ClassVar[str]
    """Registered name of the engine that computes the program."""

    @classmethod
    def check_available(cls) -> None:
        """Check the packages of the engine."""
        ENGINES.resolve(cls.engine).cls.check_available()

    def export(
        self, model: ModelBundle, output: Path, *, windows: Callable[[], CheckWindows], overwrite: bool
    ) -> ExportedProgram:
        """Write a folder with the program and ``program.json``."""
        with program_folder(output, overwrite=overwrite) as folder:
            previous = self._export_previous(model, folder) if model.record.is_cascade else None
            source = ProgramSource.of(model, windows(), previous_stage=previous)
            max_difference = self._export_source(source, folder)
        return source.result(output, max_difference)

    def _export_source(self, source: ProgramSource, folder: Path) -> float:
        self.write(source, folder)
        save_record(folder, source.record)
        return self.check(source, folder)

    def _export_previous(self, model: ModelBundle, folder: Path) -> str:
        """Write the program of a cascade's first stage into a folder of its own; return its digest."""
        inside = folder / PREVIOUS_STAGE_FOLDER
        inside.mkdir()
        self._export_source(ProgramSource.of_previous_stage(model), inside)
        return file_digest(inside / RECORD_FILE)

    @abstractmethod
    def write(self, source: ProgramSource, folder: Path) -> None:
        """Write the program into ``folder``; its main file is the engine's ``program_file``."""

    def check(self, source: ProgramSource, folder: Path) -> float:
        """Return the difference of the program in ``folder`` from the model.

        Raises:
            ModelError: it is too large.
        """
        cls = ENGINES.resolve(self.engine).cls
        file = folder / str(cls.program_file)
        program = cls.from_program(cls.Settings(), file, window=source.record.window, precision="fp32")
        return source.check(program, title=self.title)


def _program_record(bundle: ModelBundle, members: Sequence[BundleMember]) -> ProgramRecord:
    """Return the record of a program of members with one plan.

    Raises:
        ModelError: they have different plans.
    """
    plan, model = common_plan([member.record for member in members]), bundle.record
    return ProgramRecord(
        model=bundle.digest,
        weights=model.weights,
        networks=sum(len(member.record.networks) for member in members),
        plan=plan,
        mirror_axes=tuple(sorted(set.intersection(*(set(member.record.mirror_axes) for member in members)))),
        window=(plan.n_inputs, *plan.patch_size),
        output=(plan.labels.n_outputs, *plan.patch_size),
        tolerance=TOLERANCE,
        temperature=model.temperature,
        postprocessing=model.postprocessing,
    )


@contextmanager
def program_folder(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a new folder that becomes ``folder`` at the end, unless an error occurs.

    Raises:
        OutputError: ``folder`` exists and may not be replaced, or another process writes it; before any work is done.
    """
    with locked_output(folder):
        check_replaceable(folder, _is_program_folder, overwrite=overwrite)
        with replace_folder(folder) as partial:
            yield partial


def save_record(folder: Path, record: ProgramRecord) -> None:
    """Write the record of the program in ``folder``, with the digests of its files."""
    files = sorted(path for path in folder.iterdir() if path.name != RECORD_FILE and path.is_file())
    record.revised(sha256={path.name: file_digest(path) for path in files}).save(folder / RECORD_FILE)


def check_replaceable(path: Path, is_exported: Callable[[Path], bool], *, overwrite: bool) -> None:
    """Raise an OutputError if ``path`` exists and may not be replaced.

    Args:
        is_exported: whether a path contains only an exported program; anything else is never replaced.
        overwrite: replace an exported program.
    """
    if not path.exists():
        return
    if not is_exported(path):
        raise OutputError(
            "exists and is not an exported program, or not one alone",
            where=path,
            remedy="choose another --output, or delete it if it is a damaged export",
            code="E-OUTPUT-EXISTS",
        )
    if not overwrite:
        raise OutputError(
            "already exists", where=path, remedy="use --overwrite, or choose another --output", code="E-OUTPUT-EXISTS"
        )


def _is_program_folder(folder: Path) -> bool:
    """Return whether ``folder`` holds an exported program, of whatever version, and nothing else."""
    try:
        record: dict[str, Any] = read_json(folder / RECORD_FILE)
        names = {RECORD_FILE, *record["sha256"]}
        if record.get("previous_stage") and _is_program_folder(folder / PREVIOUS_STAGE_FOLDER):
            names.add(PREVIOUS_STAGE_FOLDER)
        return "decathlete" in record and all(path.name in names for path in folder.iterdir())
    except (DecathleteError, OSError, KeyError, TypeError):
        return False
