"""A trained model becomes an ONNX or an OpenVINO program that says itself what it is."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from decathlete.core.files import TEMPORARY_PREFIX, atomic_path, file_digest, remove, swapped_in, writable_folder
from decathlete.errors import OutputError
from decathlete.export.parity import TOLERANCE, check_windows, difference, refuse_difference
from decathlete.inference.engines import TorchEngine
from decathlete.inference.program_engines import OnnxEngine, OpenVinoEngine, ProgramEngine, imported
from decathlete.inference.program_record import (
    ONNX_FILE,
    OPENVINO_FILE,
    RECORD_FILE,
    RECORD_KEY,
    ProgramRecord,
)
from decathlete.networks.bundle import ModelBundle
from decathlete.networks.onnx_graph import onnx_program


@dataclass(frozen=True, kw_only=True)
class ExportedProgram:
    """A program on disk.

    Attributes:
        path: the ONNX file, or the folder.
        difference: of its logits from the model's, as a share of the greatest.
        checked_on: how many windows.
    """

    path: Path
    record: ProgramRecord
    difference: float
    checked_on: int


def export_onnx(
    model: str | Path, output: str | Path, *, inputs: str | Path | None = None, overwrite: bool = False
) -> ExportedProgram:
    """Make an ONNX program of a model, and check with ONNX Runtime that it gives the model's logits.

    Args:
        model: a run's folder or a model folder.
        output: a file (``NAME.onnx``), or a folder for ``model.onnx`` and ``program.json``. The file alone tells
            everything, too: in its metadata.
        inputs: an image, a folder of images or prepared cases to check on; ``None``: smooth noise.
        overwrite: replace the program that is at ``output``.

    Raises:
        ModelError: no model there, or the program gives other logits; nothing is written then.
        OptionError: onnx or onnxruntime is missing.
        OutputError: something else is at ``output``, or it cannot be written.
    """
    for package in ("onnx", "onnxruntime"):
        imported(package)
    source = ProgramSource.load(Path(model), inputs)

    def write(path: Path) -> float:
        path.write_bytes(source.program())
        return source.checked(OnnxEngine, path, title="ONNX")

    path = Path(output)
    if path.suffix == ".onnx":
        _refuse(path, path.is_file(), overwrite=overwrite)
        writable_folder(path.parent)
        with atomic_path(path) as partial:
            found = write(partial)
        return source.exported(path, found)
    with program_folder(path, overwrite=overwrite) as folder:
        found = write(folder / ONNX_FILE)
        finish(folder, source.record)
    return source.exported(path, found)


def export_openvino(
    model: str | Path, output: str | Path, *, inputs: str | Path | None = None, overwrite: bool = False
) -> ExportedProgram:
    """Make an OpenVINO program (``model.xml``, ``model.bin``, ``program.json``) of a model, and check its logits.

    Args and errors: as of :func:`export_onnx`; ``output`` is a folder. Weights stay float32.
    """
    openvino = imported("openvino")
    imported("onnx")
    source = ProgramSource.load(Path(model), inputs)
    with program_folder(Path(output), overwrite=overwrite) as folder:
        save_openvino(openvino.Core().read_model(source.program()), folder, source.record)
        found = source.checked(OpenVinoEngine, folder / OPENVINO_FILE, title="OpenVINO")
    return source.exported(Path(output), found)


@dataclass(frozen=True, kw_only=True)
class ProgramSource:
    """The model, and what its program is checked on."""

    bundle: ModelBundle
    record: ProgramRecord
    windows: Sequence[Tensor]

    @classmethod
    def load(cls, model: Path, inputs: str | Path | None) -> ProgramSource:
        """The model at ``model``, to be checked on ``inputs``; ``None``: on smooth noise."""
        bundle = ModelBundle.load(model)
        return cls.of(bundle, check_windows(bundle.record.plan, None if inputs is None else Path(inputs)))

    @classmethod
    def of(cls, bundle: ModelBundle, windows: Sequence[Tensor]) -> ProgramSource:
        """The model, to be checked on ``windows``."""
        known = bundle.record
        record = ProgramRecord(
            model=bundle.digest,
            weights=known.weights,
            networks=known.networks,
            plan=known.plan,
            mirror_axes=known.mirror_axes,
            window=(known.plan.network.in_channels, *known.plan.patch_size),
            output=(known.plan.network.out_channels, *known.plan.patch_size),
            tolerance=TOLERANCE,
        )
        return cls(bundle=bundle, record=record, windows=windows)

    def program(self) -> bytes:
        """In ONNX form, with the record."""
        plan = self.record.plan
        networks = [self.bundle.build(i) for i in range(self.record.networks)]
        metadata = {RECORD_KEY: self.record.model_dump_json()}
        return onnx_program(networks, plan.network, plan.patch_size, metadata=metadata)

    def checked(self, engine: type[ProgramEngine], path: Path | bytes, *, title: str) -> float:
        """How far the program at ``path``, as it was written, is from the model.

        Raises:
            ModelError: too far.
        """
        networks = [self.bundle.build(i) for i in range(self.record.networks)]
        program = engine(path, window=self.record.window, precision="fp32")
        reference = [TorchEngine(network, device="cpu", precision="fp32") for network in networks]
        found = difference(program, reference, self.windows)
        refuse_difference(found, title=title, where=self.bundle.folder)
        return found

    def exported(self, path: Path, found: float) -> ExportedProgram:
        """What has been written to ``path``."""
        return ExportedProgram(path=path, record=self.record, difference=found, checked_on=len(self.windows))


@contextmanager
def program_folder(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a new folder that becomes ``folder`` at the end, unless something goes wrong.

    Raises:
        OutputError: something is in the way, before any work is done.
    """
    _refuse(folder, (folder / RECORD_FILE).is_file(), overwrite=overwrite)
    writable_folder(folder.parent)
    for leftover in folder.parent.glob(f"{TEMPORARY_PREFIX}*-{glob.escape(folder.name)}"):  # of a killed export
        remove(leftover)
    with swapped_in(folder) as partial:
        yield partial


def save_openvino(program: Any, folder: Path, record: ProgramRecord) -> None:
    """Write an ``openvino.Model`` and what it is, which it says itself, too."""
    program.set_rt_info(record.model_dump_json(), RECORD_KEY)
    imported("openvino").save_model(program, folder / OPENVINO_FILE, compress_to_fp16=False)
    finish(folder, record)


def finish(folder: Path, record: ProgramRecord) -> None:
    """Write the record of the program that is in ``folder``, with the digests of its files."""
    files = sorted(path for path in folder.iterdir() if path.name != RECORD_FILE)
    record.revised(sha256={path.name: file_digest(path) for path in files}).save(folder / RECORD_FILE)


def _refuse(path: Path, is_ours: bool, *, overwrite: bool) -> None:
    """Raise an OutputError where something is in the way; what is no program of ours is never replaced."""
    if path.exists() and not is_ours:
        raise OutputError("exists and is not an exported program", where=path, remedy="choose another --output")
    if path.exists() and not overwrite:
        raise OutputError("already exists", where=path, remedy="give --overwrite, or choose another --output")
