"""A trained model becomes an ONNX or an OpenVINO program that says itself what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from decathlete.core.files import atomic_path, swapped_in, writable_folder
from decathlete.core.schema import Schema
from decathlete.errors import OutputError
from decathlete.export.parity import TOLERANCE, check_windows, difference, refuse_difference
from decathlete.inference.engines import TorchEngine
from decathlete.inference.program_engines import OnnxEngine, OpenVinoEngine, ProgramEngine, imported
from decathlete.inference.provenance import NOTICE
from decathlete.networks.bundle import ModelBundle
from decathlete.networks.onnx_graph import INPUT, OUTPUT, onnx_program
from decathlete.planning.plan import Plan
from decathlete.version import __version__

ONNX_FILE, OPENVINO_FILE, RECORD_FILE = "model.onnx", "model.xml", "program.json"
RECORD_KEY = "decathlete"
"""Where the record stands in a program: ONNX's ``metadata_props``, OpenVINO's ``rt_info``."""


class ProgramRecord(Schema):
    """What a program is: all that is needed to prepare its input and to read its output.

    Attributes:
        model: digest of the bundle that it was made from. networks: how many it averages the logits of.
        plan: how images are prepared, what the windows are, and what the outputs mean.
        mirror_axes: spatial axes that training mirrored, for test-time augmentation.
        window: shape of an input after the batch axis: channels, then the patch. output: the same of the logits.
        tolerance: logits differed from the model's by at most this share of the greatest when it was made.
    """

    version: Literal[1] = 1
    notice: str = NOTICE
    decathlete: str = __version__
    model: str
    weights: str
    networks: int
    plan: Plan
    mirror_axes: tuple[int, ...]
    input_name: str = INPUT
    output_name: str = OUTPUT
    window: tuple[int, ...]
    output: tuple[int, ...]
    tolerance: float = TOLERANCE


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
    source = _Source.load(Path(model), inputs)

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
    return _into_folder(source, path, lambda folder: write(folder / ONNX_FILE), overwrite=overwrite)


def export_openvino(
    model: str | Path, output: str | Path, *, inputs: str | Path | None = None, overwrite: bool = False
) -> ExportedProgram:
    """Make an OpenVINO program (``model.xml``, ``model.bin``, ``program.json``) of a model, and check its logits.

    Args and errors: as of :func:`export_onnx`; ``output`` is a folder. Weights stay float32.
    """
    openvino = imported("openvino")
    imported("onnx")
    source = _Source.load(Path(model), inputs)

    def write(folder: Path) -> float:
        program = openvino.Core().read_model(source.program())
        program.set_rt_info(source.record.model_dump_json(), RECORD_KEY)
        openvino.save_model(program, folder / OPENVINO_FILE, compress_to_fp16=False)
        return source.checked(OpenVinoEngine, folder / OPENVINO_FILE, title="OpenVINO")

    return _into_folder(source, Path(output), write, overwrite=overwrite)


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The model, and what its program is checked on."""

    bundle: ModelBundle
    record: ProgramRecord
    windows: Sequence[Tensor]

    @classmethod
    def load(cls, model: Path, inputs: str | Path | None) -> _Source:
        bundle = ModelBundle.load(model)
        known = bundle.record
        record = ProgramRecord(
            model=bundle.digest,
            weights=known.weights,
            networks=known.networks,
            plan=known.plan,
            mirror_axes=known.mirror_axes,
            window=(known.plan.network.in_channels, *known.plan.patch_size),
            output=(known.plan.network.out_channels, *known.plan.patch_size),
        )
        windows = check_windows(known.plan, None if inputs is None else Path(inputs))
        return cls(bundle=bundle, record=record, windows=windows)

    def program(self) -> bytes:
        """In ONNX form, with the record."""
        plan = self.record.plan
        networks = [self.bundle.build(i) for i in range(self.record.networks)]
        metadata = {RECORD_KEY: self.record.model_dump_json()}
        return onnx_program(networks, plan.network, plan.patch_size, metadata=metadata)

    def checked(self, engine: type[ProgramEngine], path: Path, *, title: str) -> float:
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
        return ExportedProgram(path=path, record=self.record, difference=found, checked_on=len(self.windows))


def _into_folder(source: _Source, folder: Path, write: Callable[[Path], float], *, overwrite: bool) -> ExportedProgram:
    _refuse(folder, (folder / RECORD_FILE).is_file(), overwrite=overwrite)
    writable_folder(folder.parent)
    with swapped_in(folder) as partial:
        found = write(partial)
        source.record.save(partial / RECORD_FILE)
    return source.exported(folder, found)


def _refuse(path: Path, is_ours: bool, *, overwrite: bool) -> None:
    """Raise an OutputError where something is in the way; what is no program of ours is never replaced."""
    if path.exists() and not is_ours:
        raise OutputError("exists and is not an exported program", where=path, remedy="choose another --output")
    if path.exists() and not overwrite:
        raise OutputError("already exists", where=path, remedy="give --overwrite, or choose another --output")
