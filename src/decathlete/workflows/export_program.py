"""A trained model becomes an ONNX or an OpenVINO program, compared with the model on cases of its run."""

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
from decathlete.workflows.run_images import run_images
from decathlete.workflows.validate import run_of

NOISE = "smooth noise, since no case that belongs to the model was found (name images to compare on with --input)"


def export_onnx(
    model: str | Path, output: str | Path, *, inputs: str | Path | None = None, overwrite: bool = False
) -> ExportedProgram:
    """Make an ONNX program of a model, and check with ONNX Runtime that it gives the model's logits.

    Args:
        model: a run's folder or a model folder.
        output: a file (``NAME.onnx``), or a folder for ``model.onnx`` and ``program.json``. The file alone tells
            everything, too: in its metadata.
        inputs: an image, a folder of images or prepared cases to check on; ``None``: cases that the run held out, or
            else its training cases, prepared or raw; smooth noise where none of them are found.
        overwrite: replace the program that is at ``output``.

    Raises:
        ModelError: no model there, or the program gives other logits; nothing is written then.
        OptionError: onnx or onnxruntime is missing.
        ImageError, StoreError: ``inputs`` cannot be used.
        OutputError: something else is at ``output``, or it cannot be written.
    """
    for package in ("onnx", "onnxruntime"):
        imported(package)
    source = _source(Path(model), inputs)

    def write(path: Path) -> float:
        path.write_bytes(source.program())
        return source.checked(OnnxEngine, path, title="ONNX")

    path = Path(output)
    if path.suffix == ".onnx":
        with onnx_file(path, overwrite=overwrite) as partial:
            found = write(partial)
        return source.exported(path, found)
    with program_folder(path, overwrite=overwrite) as folder:
        found = write(folder / ONNX_FILE)
        save_record(folder, source.record)
    return source.exported(path, found)


def export_openvino(
    model: str | Path, output: str | Path, *, inputs: str | Path | None = None, overwrite: bool = False
) -> ExportedProgram:
    """Make an OpenVINO program (``model.xml``, ``model.bin``, ``program.json``) of a model, and check its logits.

    Args and errors: as of :func:`export_onnx`; ``output`` is a folder. Weights stay float32.
    """
    imported("openvino")
    imported("onnx")
    source = _source(Path(model), inputs)
    with program_folder(Path(output), overwrite=overwrite) as folder:
        save_openvino(openvino_core().read_model(source.program()), folder, source.record)
        found = source.checked(OpenVinoEngine, folder / OPENVINO_FILE, title="OpenVINO")
    return source.exported(Path(output), found)


def _source(model: Path, inputs: str | Path | None) -> ProgramSource:
    bundle = ModelBundle.load(model)
    plan = bundle.record.plan
    if inputs is not None:
        return ProgramSource.of(bundle, check_windows(plan, Path(inputs)), "what --input names")
    windows, windows_of = windows_of_run(model, plan)
    return ProgramSource.of(bundle, windows, windows_of)


def windows_of_run(model: Path, plan: Plan) -> tuple[list[Tensor], str]:
    """Windows to compare a program on, each (1, channel, *patch), and in words what they are of.

    The middle ones of the first cases that the model's run held out, or else was trained on; smooth noise where there
    is no run or none of its cases can be read.
    """
    run = run_of(model)
    try:
        record = None if run is None else RunRecord.load(run / "run.json")
        if record is not None:
            case_ids = (record.val or record.train)[:N_WINDOWS]
            if windows := first_middles(run_images(record, case_ids, plan), plan, N_WINDOWS):
                return windows, "cases that the run held out" if record.val else "the run's training cases"
    except DecathleteError:
        pass  # what lay there is gone or damaged; the program can be checked all the same, and it is said on what
    return check_windows(plan), NOISE
