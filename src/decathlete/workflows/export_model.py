"""Export a trained model with a registered exporter, compared with the model on cases of its run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from decathlete.core.geometry import Triple
from decathlete.core.output_paths import check_output_path
from decathlete.core.registry import ComponentSettings
from decathlete.core.schema import describe
from decathlete.core.sizes import require_disk_space
from decathlete.errors import DecathleteError, OptionError, problems_found
from decathlete.export.exporters import EXPORTERS, CheckWindows, ExportResult
from decathlete.export.parity import N_WINDOWS, check_windows
from decathlete.export.programs import ExportedProgram
from decathlete.export.windows import first_middles
from decathlete.io.reading import Reading, require_named_files
from decathlete.models.bundle import ModelBundle
from decathlete.planning.plan import Plan
from decathlete.workflows.export_plans import export_each_plan
from decathlete.workflows.run_images import load_run_images, load_run_record

NOISE = "smooth noise, since no case that belongs to the model was found (name images to compare on with --input)"
_REMEDY = "free disk space, or choose an output on another disk"


def export_model(
    exporter: str | ComponentSettings,
    model: str | Path,
    output: str | Path,
    *,
    inputs: str | Path | None = None,
    spacing: Triple | None = None,
    image_formats: Mapping[str, Mapping[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> ExportResult:
    """Write a trained model for another program.

    A model of several plans, such as a selected pair of configurations, becomes a folder with an export of each plan;
    ``decathlete predict`` averages programs if all are named.

    Args:
        exporter: name of a registered exporter (``decathlete components exporter`` lists them), ``module:Class``, or
            the exporter's settings.
        model: a run's folder or a model folder.
        output: file or folder to write.
        inputs: an image, a folder of images or prepared cases to compare on; ``None``: cases that the run held out, or
            else its training cases, prepared or raw; smooth noise where none of them exist.
        spacing: z, y, x in mm, for images in ``inputs`` whose files do not contain their spacing.
        image_formats: settings of image formats that change how these images are read, by the name of the format.
        settings: of an exporter that is given by its name.
        overwrite: replace an earlier export at ``output``.

    Raises:
        OptionError: an unknown exporter or setting, a package is missing, or ``spacing`` or a setting of an image
            format has no effect.
        ModelError: no model there, or what was written computes other logits; nothing is written then.
        ImageError, StoreError: ``inputs`` cannot be used.
        OutputError: something else is at ``output``, or it cannot be written.
    """
    path = check_output_path(output)
    require_named_files(spacing, image_formats, are_named=inputs is not None, options="--input")
    chosen = _settings(exporter, settings or {})
    component = EXPORTERS.resolve(chosen.component)
    component.cls.check_available()
    bundle = ModelBundle.load(Path(model))
    require_disk_space(path.parent, bundle.n_weights_bytes, needed_for="for the exported weights", remedy=_REMEDY)
    reading = Reading().revised(spacing, image_formats)
    n_plans = len({member.plan.digest for member in bundle.outputs})
    if n_plans > 1 and not component.cls.takes_several_plans:
        return export_each_plan(
            component.cls(chosen),
            bundle,
            path,
            windows=lambda part: comparison_windows(part.folder, part.record.output_plan, inputs, reading),
            overwrite=overwrite,
        )
    return component.cls(chosen).export(
        bundle,
        path,
        windows=lambda: comparison_windows(Path(model), bundle.record.output_plan, inputs, reading),
        overwrite=overwrite,
    )


def export_onnx(
    model: str | Path,
    output: str | Path,
    *,
    inputs: str | Path | None = None,
    spacing: Triple | None = None,
    image_formats: Mapping[str, Mapping[str, Any]] | None = None,
    overwrite: bool = False,
) -> ExportedProgram:
    """Write an ONNX program, and check with ONNX Runtime that it computes the model's logits.

    Args and errors: as of :func:`export_model`; the model has one plan. ``output`` is a file (``NAME.onnx``), or
    a folder for ``model.onnx`` and ``program.json``; the file by itself contains the same record, in its metadata.
    """
    return _export_program(
        "onnx", model, output, inputs=inputs, spacing=spacing, image_formats=image_formats, overwrite=overwrite
    )


def export_openvino(
    model: str | Path,
    output: str | Path,
    *,
    inputs: str | Path | None = None,
    spacing: Triple | None = None,
    image_formats: Mapping[str, Mapping[str, Any]] | None = None,
    overwrite: bool = False,
) -> ExportedProgram:
    """Write an OpenVINO program (``model.xml``, ``model.bin``, ``program.json``), and check its logits.

    Args and errors: as of :func:`export_model`; the model has one plan, ``output`` is a folder. Weights stay float32.
    """
    return _export_program(
        "openvino", model, output, inputs=inputs, spacing=spacing, image_formats=image_formats, overwrite=overwrite
    )


def _export_program(exporter: str, model: str | Path, output: str | Path, **options: Any) -> ExportedProgram:
    """Export a model of one plan.

    Raises:
        ModelError: it has several plans; and as of :func:`export_model`.
    """
    _ = ModelBundle.load(Path(model)).record.output_plan
    return cast(ExportedProgram, export_model(exporter, model, output, **options))


def _settings(exporter: str | ComponentSettings, values: Mapping[str, Any]) -> ComponentSettings:
    if isinstance(exporter, ComponentSettings):
        return exporter
    component = EXPORTERS.load(exporter)
    try:
        return component.settings.model_validate(dict(values))
    except ValidationError as problem:
        raise problems_found(
            describe(problem), where=f"exporter {component.name}", remedy="fix these settings", kind=OptionError
        ) from None


def comparison_windows(
    model: Path, plan: Plan, inputs: str | Path | None, reading: Reading = Reading()
) -> CheckWindows:
    """Return the windows of ``inputs``, read by ``reading``, or else those of :func:`load_comparison_windows`."""
    if inputs is not None:
        return CheckWindows(windows=check_windows(plan, Path(inputs), reading), origin="what --input names")
    return load_comparison_windows(model, plan)


def load_comparison_windows(model: Path, plan: Plan) -> CheckWindows:
    """Return windows to compare a program on.

    These are the middle windows of the first cases that the model's run held out, or else was trained on; smooth noise
    where there is no run or none of its cases can be read.
    """
    try:
        record = load_run_record(model)
        if record is not None:
            case_ids = (record.val or record.train)[:N_WINDOWS]
            if windows := first_middles(load_run_images(record, case_ids, plan), plan, N_WINDOWS):
                origin = "cases that the run held out" if record.val else "the run's training cases"
                return CheckWindows(windows=windows, origin=origin)
    except DecathleteError:
        pass  # the run's cases were removed or damaged: noise serves as well, and the result says so
    return CheckWindows(windows=check_windows(plan), origin=NOISE)
