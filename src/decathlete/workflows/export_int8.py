"""Export a model as an int8 program, calibrated on training cases, if held-out cases score as well as before."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from decathlete.core.files import TEMPORARY_PREFIX
from decathlete.core.memory import translate_out_of_memory
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
from decathlete.models.bundle import ModelBundle
from decathlete.workflows.dice_of_engine import dice_of_engine
from decathlete.workflows.int8_cases import Int8Cases, choose_cases

MOST_FALL = 0.002
"""An int8 program is accepted if its mean validation Dice is lower than that of fp32 by less than this."""
_ROUNDS = 5
_FILE = str(OpenVinoEngine.program_file)


@dataclass(frozen=True, kw_only=True)
class Int8Program(ExportedProgram):
    """An accepted int8 program on disk.

    Attributes:
        difference: of the logits of the fp32 program, before quantisation, from the model's.
        quantisation: the cases that it was calibrated and accepted on, and their Dice.
        seconds_fp32: of one window on this machine, median of five.
        seconds_int8: the same, of the int8 program.
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
    overwrite: bool = False,
    progress: CaseProgress | None = None,
) -> Int8Program:
    """Export an int8 OpenVINO program; :func:`decathlete.predict` predicts with its folder as with a model.

    The fp32 program is checked as by :func:`~decathlete.export_openvino`, then quantised after training, calibrated on
    windows of training cases. Both programs predict the validation cases, and the int8 one is written only if its mean
    Dice is less than :data:`MOST_FALL` lower. Where it is not, the first and last convolutions stay in fp32 in a second
    attempt.

    Args:
        model: a run's folder or a model folder.
        output: a folder.
        dataset: the raw dataset, if it has moved; or, where the model held no cases out, one with labelled cases.
        calibration: a dataset, an image, a folder of images or prepared cases instead of the run's training cases.
        overwrite: replace the program that is at ``output``.

    Raises:
        OptionError: OpenVINO, onnx or NNCF is missing; or no case was held out, and no ``dataset`` is named.
        DatasetError: there are no cases to calibrate or to decide on.
        CasesFailedError: some validation cases cannot be read.
        ModelError: no model there; other logits of its fp32 program; or int8 costs too much. Nothing is
            written then.
        OutputError: something else is at ``output``, or it cannot be written.
    """
    OpenVinoEngine.check_available()
    import_nncf()
    bundle = ModelBundle.load(Path(model))
    plan = bundle.record.plan
    with program_folder(Path(output), overwrite=overwrite) as folder:
        cases = choose_cases(Path(model), plan, dataset=_path(dataset), calibration=_path(calibration))
        with translate_out_of_memory(
            "the windows to calibrate on", remedy="close other programs, or use a larger computer"
        ):
            windows = calibration_windows(cases.calibrate, plan)
        compared = CheckWindows(windows=windows[:N_WINDOWS], origin="the images that calibrate")
        source = ProgramSource.of(bundle, compared)
        fp32 = source.onnx_program()
        engine_fp32 = OpenVinoEngine(fp32, window=source.record.window, precision="fp32")
        difference = source.check(engine_fp32, title="OpenVINO")
        dice = partial(dice_of_engine, plan=plan, cases=cases.validate, progress=progress)
        program, dice_fp32, dice_int8 = _quantize_best(fp32, windows, source.record, folder, dice)
        quantisation = _cost(windows, cases, dice_fp32, dice_int8)
        _check_dice(quantisation, where=bundle.folder)
        record = source.record.revised(precision="int8", quantisation=quantisation)
        save_openvino(program, folder, record)
        save_record(folder, record)
        engine_int8 = OpenVinoEngine(folder / _FILE, window=record.window, precision="int8")
        seconds = seconds_of((engine_fp32, engine_int8), windows[0])
    return Int8Program(
        path=Path(output),
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
    """Return the first int8 program that is accepted, or else the better one; the Dice of fp32, and its own.

    Args:
        folder: for temporary files: programs are scored as they are read from disk.
    """
    dice_fp32 = dice(OpenVinoEngine(fp32, window=record.window, precision="fp32"))
    best, dice_best = None, -inf
    for ends_in_fp32 in (False, True):
        program = quantize(fp32, windows, window=record.window, networks=record.networks, ends_in_fp32=ends_in_fp32)
        with TemporaryDirectory(dir=folder, prefix=TEMPORARY_PREFIX) as attempt:
            save_openvino(program, Path(attempt), record)
            engine = OpenVinoEngine(Path(attempt) / _FILE, window=record.window, precision="int8")
            dice_int8 = dice(engine)
        if dice_int8 > dice_best:
            best, dice_best = program, dice_int8
        if dice_fp32 - dice_int8 < MOST_FALL:
            break
    return best, dice_fp32, dice_best


def _cost(windows: Sequence[Tensor], cases: Int8Cases, dice_fp32: float, dice_int8: float) -> Quantisation:
    return Quantisation(
        calibrated_on=len(windows),
        validated_on=len(cases.validate),
        dice_fp32=dice_fp32,
        dice_int8=dice_int8,
        nncf=import_nncf().__version__,
    )


def _check_dice(cost: Quantisation, *, where: Path) -> None:
    """Raise a ModelError if int8 lowers the Dice too much."""
    fall = cost.dice_fp32 - cost.dice_int8
    if fall >= MOST_FALL:
        raise ModelError(
            f"in int8 the mean Dice of {cost.validated_on} validation cases falls from {cost.dice_fp32:.4f} to "
            f"{cost.dice_int8:.4f}, by {fall:.4f}, and less than {MOST_FALL:g} is allowed; nothing was written",
            where=where,
            remedy="calibrate on other or more images (--calibration), or export it in fp32: leave out --int8",
            code="E-MODEL-ACCURACY",
        )


def seconds_of(engines: Sequence[Engine], window: Tensor) -> list[float]:
    """Return the seconds of one window for each engine: medians of five, the engines in alternation."""
    laps: list[list[float]] = [[] for _ in engines]
    for _ in range(_ROUNDS):
        for engine, seconds in zip(engines, laps, strict=True):
            began = time.perf_counter()
            engine(window)
            seconds.append(time.perf_counter() - began)
    return [median(seconds) for seconds in laps]


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)
