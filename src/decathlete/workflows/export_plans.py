"""Export a model of several plans: a folder with an export of each plan, which appears whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from decathlete.core.files import list_files, replace_folder
from decathlete.core.locks import locked_output
from decathlete.core.schema import Schema
from decathlete.core.scratch import scratch_folder
from decathlete.errors import DecathleteError, OptionError
from decathlete.export.exporters import CheckWindows, Exporter, ExportResult
from decathlete.export.programs import check_replaceable
from decathlete.models.bundle import ModelBundle
from decathlete.models.combine import split_by_plan
from decathlete.version import __version__

RECORD_FILE = "exported_plans.json"


class ExportedPlansRecord(Schema):
    """What ``exported_plans.json`` says of the folder: only a folder with these files and no others is replaced.

    Attributes:
        decathlete: version that wrote it.
        exporter: its name.
        model: digest of the bundle.
        files: all other files in the folder.
    """

    decathlete: str
    exporter: str
    model: str
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ExportedPlans(ExportResult):
    """The exports of a model of several plans.

    Attributes:
        parts: the export of each plan, in a subfolder.
    """

    parts: tuple[ExportResult, ...]

    @property
    def summary(self) -> str:
        """The places of the exports, and how to use them together."""
        return "\n".join([*(part.summary for part in self.parts), self.parts[0].describe_joint_use(self.parts)])


def export_each_plan(
    exporter: Exporter,
    bundle: ModelBundle,
    path: Path,
    *,
    windows: Callable[[ModelBundle], CheckWindows],
    overwrite: bool,
) -> ExportedPlans:
    """Export a model of each plan into a subfolder of ``path``, named by its configuration.

    Args:
        windows: returns windows to compare the export of a model of one plan on.
        overwrite: replace an earlier export of several plans.

    Raises:
        OptionError: ``path`` is the name of a single program.
        ModelError: the other program cannot represent one of the plans; nothing is written then.
        OutputError: something else is at ``path``, or it cannot be written.
    """
    if path.suffix == ".onnx":
        raise OptionError(
            f"--output {path.name}: the model has several plans, and a program has one",
            remedy="name a folder, without .onnx; it gets a program for each plan",
        )
    with locked_output(path):
        check_replaceable(path, _is_exported, overwrite=overwrite)
        with replace_folder(path) as unfinished, scratch_folder() as scratch:
            parts = [
                _export_part(exporter, part, unfinished, path, windows, where=f"{bundle.folder} ({part.folder.name})")
                for part in split_by_plan(bundle, scratch)
            ]
            record = ExportedPlansRecord(
                decathlete=__version__,
                exporter=exporter.settings.component,
                model=bundle.digest,
                files=tuple(list_files(unfinished)),
            )
            record.save(unfinished / RECORD_FILE)
    notes = dict.fromkeys(note for part in parts for note in part.notes)
    return ExportedPlans(path=path, notes=tuple(notes), parts=tuple(parts))


def _export_part(
    exporter: Exporter,
    model: ModelBundle,
    folder: Path,
    target: Path,
    windows: Callable[[ModelBundle], CheckWindows],
    *,
    where: str,
) -> ExportResult:
    """Export a model of one plan into ``folder``, which becomes ``target``.

    Args:
        where: names the model in errors, in place of the temporary folder that it lies in.
    """
    try:
        result = exporter.export(model, folder / model.folder.name, windows=partial(windows, model), overwrite=False)
    except DecathleteError as problem:
        if isinstance(problem.where, Path) and problem.where.is_relative_to(model.folder):
            problem.where = where
        raise
    return replace(result, path=target / result.path.resolve().relative_to(folder.resolve()))


def _is_exported(folder: Path) -> bool:
    """Return whether ``folder`` holds an export of several plans, and nothing else."""
    try:
        record = ExportedPlansRecord.load(folder / RECORD_FILE)
    except DecathleteError:
        return False
    return set(list_files(folder)) <= {RECORD_FILE, *record.files}
