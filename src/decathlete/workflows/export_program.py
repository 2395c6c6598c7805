"""Exports a model as an ONNX or OpenVINO program, and compares both on cases of the model's run."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from decathlete.errors import DecathleteError
from decathlete.export.parity import N_WINDOWS, check_windows
from decathlete.export.programs import (
    ExportedProgram,
    ProgramSource,
    onnx_file,
    program_folder,
    save_openvino,
    save_record,
)
from decathlete.export.windows import first_middles
from decathlete.inference.engines.program_engines import OnnxEngine, OpenVinoEngine, imported, openvino_core
from decathlete.inference.engines.program_record import ONNX_FILE, OPENVINO_FILE
from decathlete.models.bundle import ModelBundle
from decathlete.planning.plan import Plan
from decathlete.training.reporting.records import RunRecord
from decathlete.workflows.run_images import load_run_images
from decathlete.workflows.validate import find_run_folder

NOISE = "smooth noise, because no case of the model's run was found (choose images with --input)"


def export_onnx(
    model: str | Path, output: str | Path, *, inputs: str | Path | None = None, overwrite: bool = False
) -> ExportedProgram:
    """Export a model as an ONNX program. ONNX Runtime checks that the program gives the model's logits.

    Args:
        model: folder of a run or of a model.
        output: file ``NAME.onnx``, or folder for ``model.onnx`` and ``program.json``. The metadata of the ONNX file
            contain the same record as ``program.json``.
        inputs: image, folder of images or prepared cases for the check; ``None``: held-out cases of the run, else its
            training cases, else smooth noise.
        overwrite: replace an existing program at ``output``.

    Raises:
        ModelError: there is no model, or the program gives other logits; nothing is written.
        OptionError: onnx or onnxruntime is missing.
        ImageError: an image in ``inputs`` cannot be used.
        StoreError: prepared cases in ``inputs`` cannot be used.
        OutputError: ``output`` exists and is something else, or it cannot be written.
    """
    for package in ("onnx", "onnxruntime"):
        imported(package)
    source = _load_source(Path(model), inputs)

    def write(path: Path) -> float:
        path.write_bytes(source.program())
        return source.checked(OnnxEngine, path, title="ONNX")

    path = Path(output)
    if path.suffix == ".onnx":
        with onnx_file(path, overwrite=overwrite) as partial:
            difference = write(partial)
        return source.exported(path, difference)
    with program_folder(path, overwrite=overwrite) as folder:
        difference = write(folder / ONNX_FILE)
        save_record(folder, source.record)
    return source.exported(path, difference)


def export_openvino(
    model: str | Path, output: str | Path, *, inputs: str | Path | None = None, overwrite: bool = False
) -> ExportedProgram:
    """Export a model as an OpenVINO program (``model.xml``, ``model.bin``, ``program.json``), and check its logits.

    Weights stay float32.

    Args:
        model: folder of a run or of a model.
        output: folder of the program.
        inputs: as in :func:`export_onnx`.
        overwrite: replace an existing program at ``output``.

    Raises:
        DecathleteError: as in :func:`export_onnx`, for the packages onnx and openvino.
    """
    imported("openvino")
    imported("onnx")
    source = _load_source(Path(model), inputs)
    with program_folder(Path(output), overwrite=overwrite) as folder:
        save_openvino(openvino_core().read_model(source.program()), folder, source.record)
        difference = source.checked(OpenVinoEngine, folder / OPENVINO_FILE, title="OpenVINO")
    return source.exported(Path(output), difference)


def _load_source(model: Path, inputs: str | Path | None) -> ProgramSource:
    bundle = ModelBundle.load(model)
    plan = bundle.record.plan
    if inputs is not None:
        return ProgramSource.of(bundle, check_windows(plan, Path(inputs)), "the images of --input")
    windows, windows_of = load_comparison_windows(model, plan)
    return ProgramSource.of(bundle, windows, windows_of)


def load_comparison_windows(model: Path, plan: Plan) -> tuple[list[Tensor], str]:
    """Load windows for the comparison of a program, each (1, channel, *patch), and describe their source.

    They are the central windows of the first held-out cases of the model's run, or else of its first training cases.
    If there is no run, or its cases cannot be read, they are smooth noise.
    """
    run = find_run_folder(model)
    try:
        record = None if run is None else RunRecord.load(run / "run.json")
        if record is not None:
            case_ids = (record.val or record.train)[:N_WINDOWS]
            if windows := first_middles(load_run_images(record, case_ids, plan), plan, N_WINDOWS):
                return windows, "cases that the run held out" if record.val else "the run's training cases"
    except DecathleteError:
        pass  # the data are missing or damaged; the check uses noise, and the message says so
    return check_windows(plan), NOISE
