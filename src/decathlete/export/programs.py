"""A program of a trained model: made, compared with the model, and written so that it says itself what it is."""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from decathlete.core.files import TEMPORARY_PREFIX, atomic_path, file_digest, remove, replace_folder, writable_folder
from decathlete.errors import OutputError
from decathlete.export.parity import TOLERANCE, difference, own_rounding, refuse_difference
from decathlete.inference.engines.program_engines import ProgramEngine, imported
from decathlete.inference.engines.program_record import OPENVINO_FILE, RECORD_FILE, RECORD_KEY, ProgramRecord
from decathlete.inference.engines.torch_engine import TorchEngine
from decathlete.models.bundle import ModelBundle
from decathlete.models.onnx_graph import onnx_program


@dataclass(frozen=True, kw_only=True)
class ExportedProgram:
    """A program on disk.

    Attributes:
        path: the ONNX file, or the folder.
        difference: of its logits from the model's, as a share of the greatest.
        checked_on: how many windows. windows_of: what they were cut from, in words.
    """

    path: Path
    record: ProgramRecord
    difference: float
    checked_on: int
    windows_of: str


@dataclass(frozen=True, kw_only=True)
class ProgramSource:
    """The model, and the windows that its program is checked on; ``windows_of`` says whence these are."""

    bundle: ModelBundle
    record: ProgramRecord
    windows: Sequence[Tensor]
    windows_of: str

    @classmethod
    def of(cls, bundle: ModelBundle, windows: Sequence[Tensor], windows_of: str) -> ProgramSource:
        """The model, to be checked on ``windows``."""
        known = bundle.record
        record = ProgramRecord(
            model=bundle.digest,
            weights=known.weights,
            networks=known.n_networks,
            plan=known.plan,
            mirror_axes=known.mirror_axes,
            window=(known.plan.network.in_channels, *known.plan.patch_size),
            output=(known.plan.network.out_channels, *known.plan.patch_size),
            tolerance=TOLERANCE,
            temperature=known.temperature,
            postprocessing=known.postprocessing,
        )
        return cls(bundle=bundle, record=record, windows=windows, windows_of=windows_of)

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
        refuse_difference(
            found, rounding=lambda: own_rounding(networks, self.windows), title=title, where=self.bundle.folder
        )
        return found

    def exported(self, path: Path, found: float) -> ExportedProgram:
        """What has been written to ``path``."""
        return ExportedProgram(
            path=path,
            record=self.record,
            difference=found,
            checked_on=len(self.windows),
            windows_of=self.windows_of,
        )


@contextmanager
def program_folder(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a new folder that becomes ``folder`` at the end, unless something goes wrong.

    Raises:
        OutputError: something is in the way, before any work is done.
    """
    _refuse(folder, _is_program_folder, overwrite=overwrite)
    writable_folder(folder.parent)
    for leftover in folder.parent.glob(f"{TEMPORARY_PREFIX}*-{glob.escape(folder.name)}"):  # of a killed export
        remove(leftover)
    with replace_folder(folder) as partial:
        yield partial


@contextmanager
def onnx_file(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """The same for a program in a single file.

    Raises:
        OutputError: something is in the way, before any work is done.
    """
    _refuse(path, _is_program_file, overwrite=overwrite)
    writable_folder(path.parent)
    with atomic_path(path) as partial:
        yield partial


def save_openvino(program: Any, folder: Path, record: ProgramRecord) -> None:
    """Write an ``openvino.Model`` and what it is, which it says itself, too."""
    program.set_rt_info(record.model_dump_json(), RECORD_KEY)
    imported("openvino").save_model(program, folder / OPENVINO_FILE, compress_to_fp16=False)
    save_record(folder, record)


def save_record(folder: Path, record: ProgramRecord) -> None:
    """Write the record of the program that is in ``folder``, with the digests of its files."""
    files = sorted(path for path in folder.iterdir() if path.name != RECORD_FILE)
    record.revised(sha256={path.name: file_digest(path) for path in files}).save(folder / RECORD_FILE)


def _refuse(path: Path, is_ours: Callable[[Path], bool], *, overwrite: bool) -> None:
    """Raise an OutputError where something is in the way; what is no program of ours is never replaced."""
    if not path.exists():
        return
    if not is_ours(path):
        raise OutputError(
            "exists and is not an exported program, or not one alone",
            where=path,
            remedy="choose another --output",
            code="E-OUTPUT-EXISTS",
        )
    if not overwrite:
        raise OutputError(
            "already exists", where=path, remedy="give --overwrite, or choose another --output", code="E-OUTPUT-EXISTS"
        )


def _is_program_folder(folder: Path) -> bool:
    """Whether ``folder`` holds a program that we made, of whatever version, and nothing else."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        names = {RECORD_FILE, *record["sha256"]}
        return "decathlete" in record and all(path.name in names for path in folder.iterdir())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _is_program_file(path: Path) -> bool:
    """Whether ``path`` is an ONNX program that we made: its metadata have a record."""
    if not path.is_file():
        return False
    onnx = imported("onnx")
    try:
        metadata = onnx.load(str(path), load_external_data=False).metadata_props
    except Exception:  # whatever protobuf raises of a file that is none of its own
        return False
    return any(entry.key == RECORD_KEY for entry in metadata)
