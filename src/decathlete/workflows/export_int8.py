"""Exports a model as an int8 program, calibrated on training cases and accepted by the Dice of held-out cases."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from torch import Tensor

from decathlete.core.files import temporary_folder
from decathlete.core.geometry import Triple
from decathlete.core.memory import translate_out_of_memory
from decathlete.core.output_paths import check_output_path
from decathlete.core.progress import CaseProgress
from decathlete.errors import ModelError
from decathlete.export.exporters import CheckWindows
from decathlete.export.exporters.openvino import save_openvino
from decathlete.export.int8 import import_nncf, quantize
from decathlete.export.parity import N_WINDOWS
from decathlete.export.programs import ExportedProgram, ProgramSource, program_folder, save_record
from decathlete.export.windows import calibration_windows
from decathlete.inference.engines import Engine
from decathlete.inference.engines.openvino import OpenVinoEngine
from decathlete.inference.exported_program import ProgramRecord, Quantisation
from decathlete.io.reading import require_named_files
from decathlete.models.bundle import ModelBundle
from decathlete.workflows.dice_of_engine import dice_of_engine
from decathlete.workflows.int8_cases import Int8Cases, choose_cases

MAX_DICE_LOSS = 0.002
"""Limit of the difference between the mean validation Dice of the fp32 program and that of the int8 program."""
_ROUNDS = 5
_FILE = str(OpenVinoEngine.program_file)


@dataclass(frozen=True, kw_only=True)
class Int8Program(ExportedProgram):
    """An accepted int8 program on disk.

    Attributes:
        difference: difference between the logits of the fp32 program that was quantised and those of the model.
        quantisation: record of calibration and validation.
        seconds_fp32: time of one window in fp32 on this machine, s, median of five.
        seconds_int8: time of one window in int8 on this machine, s, median of five.
    """

    quantisation: Quantisation
    seconds_fp32: float
    seconds_int8: float


def export_int8(
    model: str | Path,
    output: str | Path,
    *,
    dataset: str | Path | None = None,
    calibration: str | Path | None = None,
    spacing: Triple | None = None,
    image_formats: Mapping[str, Mapping[str, Any]] | None = None,
    overwrite: bool = False,
    progress: CaseProgress | None = None,
) -> Int8Program:
    """Export a model as an int8 OpenVINO program. :func:`decathlete.predict` accepts its folder as a model.

    The fp32 program is checked as by :func:`~decathlete.export_openvino`, then quantised with windows of training cases
    for calibration. Both programs predict the validation cases. The int8 program is written only if its mean Dice is
    less than :data:`MAX_DICE_LOSS` lower. If it is not, a second attempt keeps the first and last convolutions in fp32.

    Args:
        model: folder of a run or of a model.
        output: folder of the program.
        dataset: raw dataset, if it has moved; for a model without held-out cases, a dataset with labelled cases.
        calibration: dataset, image, folder of images or prepared cases; ``None``: the run's training cases.
        spacing: z, y, x in mm, for files in ``calibration`` and ``dataset`` that do not contain their spacing.
        image_formats: settings of image formats that change how these files are read, by the name of the format.
            Without the two, files in ``dataset`` are read as in the run's training.
        overwrite: replace an existing program at ``output``.
        progress: called after each validation case.

    Raises:
        OptionError: OpenVINO, onnx or NNCF is missing, no case was held out and ``dataset`` is not set, or ``spacing``
            or a setting of an image format has no effect.
        DatasetError: there are no cases for calibration or validation.
        CasesFailedError: some validation cases cannot be read.
        ModelError: there is no model, its fp32 program gives other logits, or int8 lowers the Dice too much; nothing is
            written.
        OutputError: ``output`` exists and is something else, or it cannot be written.
    """
    path = check_output_path(output)
    is_named = dataset is not None or calibration is not None
    require_named_files(spacing, image_formats, are_named=is_named, options="--calibration or --dataset")
    import_nncf()  # first: its extra installs OpenVINO, too
    OpenVinoEngine.check_available()
    bundle = ModelBundle.load(Path(model))
    with program_folder(path, overwrite=overwrite) as folder:
        cases = choose_cases(
            Path(model),
            bundle.record.plan,
            dataset=_to_path(dataset),
            calibration=_to_path(calibration),
            spacing=spacing,
            image_formats=image_formats,
        )
        return _write_program(bundle, cases, folder, path=path, progress=progress)


def _write_program(
    bundle: ModelBundle, cases: Int8Cases, folder: Path, *, path: Path, progress: CaseProgress | None
) -> Int8Program:
    """Write the program into ``folder``, which becomes ``path``.

    Raises:
        ModelError: the fp32 program gives other logits, or int8 lowers the Dice too much.
    """
    plan = bundle.record.plan
    with translate_out_of_memory(
        "the windows to calibrate on", remedy="close other programs, or use a computer with more memory"
    ):
        windows = calibration_windows(cases.calibrate, plan)
    compared = CheckWindows(windows=windows[:N_WINDOWS], origin="the calibration images")
    source = ProgramSource.of(bundle, compared)
    fp32 = source.onnx_program()
    engine_fp32 = OpenVinoEngine(fp32, window=source.record.window, precision="fp32")
    difference = source.check(engine_fp32, title="OpenVINO")
    dice = partial(dice_of_engine, plan=plan, cases=cases.validate, progress=progress)
    program, dice_fp32, dice_int8 = _quantize_best(fp32, windows, source.record, folder, dice)
    quantisation = Quantisation(
        calibrated_on=len(windows),
        validated_on=len(cases.validate),
        dice_fp32=dice_fp32,
        dice_int8=dice_int8,
        nncf=import_nncf().__version__,
    )
    _check_dice(quantisation, where=bundle.folder)
    record = source.record.revised(precision="int8", quantisation=quantisation)
    save_openvino(program, folder, record)
    save_record(folder, record)
    engine_int8 = OpenVinoEngine(folder / _FILE, window=record.window, precision="int8")
    seconds = measure_seconds((engine_fp32, engine_int8), windows[0])
    return Int8Program(
        path=path,
        record=record,
        difference=difference,
        checked_on=len(compared.windows),
        windows_of=compared.origin,
        quantisation=quantisation,
        seconds_fp32=seconds[0],
        seconds_int8=seconds[1],
    )


def _quantize_best(
    fp32: bytes, windows: Sequence[Tensor], record: ProgramRecord, folder: Path, dice: Callable[[Engine], float]
) -> tuple[Any, float, float]:
    """Return the first accepted int8 program, or else the better one; the Dice in fp32; and the Dice in int8.

    Args:
        fp32: the fp32 program.
        windows: calibration windows.
        record: record of the program.
        folder: folder for temporary files.
        dice: returns the mean validation Dice of an engine.
    """
    dice_fp32 = dice(OpenVinoEngine(fp32, window=record.window, precision="fp32"))
    best, dice_best = None, -inf
    for ends_in_fp32 in (False, True):
        program = quantize(fp32, windows, window=record.window, networks=record.networks, ends_in_fp32=ends_in_fp32)
        with temporary_folder(folder) as attempt:
            save_openvino(program, attempt, record)
            engine = OpenVinoEngine(attempt / _FILE, window=record.window, precision="int8")
            dice_int8 = dice(engine)
        if dice_int8 > dice_best:
            best, dice_best = program, dice_int8
        if dice_fp32 - dice_int8 < MAX_DICE_LOSS:
            break
    return best, dice_fp32, dice_best


def _check_dice(quantisation: Quantisation, *, where: Path) -> None:
    """Check that int8 does not lower the Dice too much.

    Raises:
        ModelError: it does.
    """
    loss = quantisation.dice_fp32 - quantisation.dice_int8
    if loss >= MAX_DICE_LOSS:
        raise ModelError(
            f"int8 lowers the mean Dice of {quantisation.validated_on} validation cases from "
            f"{quantisation.dice_fp32:.4f} to {quantisation.dice_int8:.4f}, by {loss:.4f}; it must be less than "
            f"{MAX_DICE_LOSS:g}; nothing was written",
            where=where,
            remedy="use other or more calibration images (--calibration), or export in fp32 without --int8",
            code="E-MODEL-ACCURACY",
        )


def measure_seconds(engines: Sequence[Engine], window: Tensor) -> list[float]:
    """Measure the time of one window, s, with each engine: medians of five, the engines in turn."""
    laps: list[list[float]] = [[] for _ in engines]
    for _ in range(_ROUNDS):
        for engine, seconds in zip(engines, laps, strict=True):
            start = time.perf_counter()
            engine(window)
            seconds.append(time.perf_counter() - start)
    return [median(seconds) for seconds in laps]


def _to_path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
