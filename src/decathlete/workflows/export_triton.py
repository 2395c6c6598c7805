"""Export a trained model to a repository of Triton Inference Server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from decathlete.core.geometry import Triple
from decathlete.core.output_paths import check_output_path
from decathlete.core.progress import CaseProgress
from decathlete.core.scratch import scratch_folder
from decathlete.errors import OptionError
from decathlete.export.exporters.triton import TritonExporter, TritonRepository
from decathlete.export.triton_options import TritonSettings
from decathlete.models.bundle import ModelBundle
from decathlete.workflows.export_int8 import export_int8
from decathlete.workflows.export_model import comparison_windows, export_model


def export_triton(
    model: str | Path,
    output: str | Path,
    *,
    settings: TritonSettings | None = None,
    inputs: str | Path | None = None,
    dataset: str | Path | None = None,
    calibration: str | Path | None = None,
    spacing: Triple | None = None,
    image_formats: Mapping[str, Mapping[str, Any]] | None = None,
    overwrite: bool = False,
    progress: CaseProgress | None = None,
) -> TritonRepository:
    """Write a model repository: ``NAME_network`` (windows to logits) and ``NAME_pipeline`` (image to label map).

    Args:
        model: a run's folder or a model folder.
        output: folder of the repository; models of other names in it stay.
        settings: format, precision and configuration.
        inputs: images to compare the network on, as of :func:`~decathlete.export_model`.
        dataset: validation data of int8, as of :func:`~decathlete.export_int8`.
        calibration: of int8, as of :func:`~decathlete.export_int8`.
        spacing, image_formats: how the files in ``inputs``, ``dataset`` and ``calibration`` are read, as of
            :func:`~decathlete.export_model` and :func:`~decathlete.export_int8`.
        overwrite: replace models of the same name.
        progress: called after each validation case of int8.

    Raises:
        OptionError: a package is missing, the format cannot be written on this machine, or an option has no effect.
        ModelError: the format cannot represent the model, or the program computes other logits.
        OutputError: something else is at ``output``, or it cannot be written.
    """
    settings = settings or TritonSettings()
    if settings.precision == "int8":
        if inputs is not None:
            raise OptionError(
                "--input has no effect with --precision int8, which is compared by the Dice of validation cases",
                remedy="leave it out",
                code="E-OPTION-CONFLICT",
            )
        return _export_int8(
            model,
            output,
            settings,
            overwrite=overwrite,
            dataset=dataset,
            calibration=calibration,
            spacing=spacing,
            image_formats=image_formats,
            progress=progress,
        )
    if settings.models == "pipeline" and inputs is not None:
        raise OptionError(
            "--input has no effect without the network: a pipeline runs the model itself",
            remedy="leave it out",
            code="E-OPTION-CONFLICT",
        )
    ineffective = {"--dataset": dataset, "--calibration": calibration}
    for option, value in ineffective.items():
        if value is not None:
            raise OptionError(
                f"{option} has no effect without --precision int8", remedy="leave it out", code="E-OPTION-CONFLICT"
            )
    result = export_model(
        settings,
        model,
        output,
        inputs=inputs,
        spacing=spacing,
        image_formats=image_formats,
        overwrite=overwrite,
    )
    return cast(TritonRepository, result)


def _export_int8(
    model: str | Path, output: str | Path, settings: TritonSettings, *, overwrite: bool, **options: Any
) -> TritonRepository:
    """Quantise first: the program must keep the Dice of validation cases.

    Args:
        options: of :func:`~decathlete.export_int8`.
    """
    path = check_output_path(output)
    TritonExporter.check_available()
    bundle = ModelBundle.load(Path(model))
    with scratch_folder() as scratch:
        program = scratch / "int8"
        export_int8(model, program, **options)
        return TritonExporter(settings).export_int8(
            bundle,
            path,
            windows=lambda: comparison_windows(Path(model), bundle.record.plan, None),
            overwrite=overwrite,
            program=program,
        )
