"""An exported program says itself what it is: the JSON beside it, and inside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from decathlete.core.choices import EngineChoice, Layout
from decathlete.core.files import file_digest
from decathlete.core.schema import Schema
from decathlete.errors import ModelError, OptionError
from decathlete.inference.engines.program_engines import OnnxEngine, OpenVinoEngine, ProgramEngine
from decathlete.inference.output.provenance import NOTICE
from decathlete.models.onnx_graph import INPUT, OUTPUT
from decathlete.models.record import PostprocessingStep
from decathlete.planning.plan import Plan
from decathlete.version import __version__

ONNX_FILE, OPENVINO_FILE, RECORD_FILE = "model.onnx", "model.xml", "program.json"
RECORD_KEY = "decathlete"
"""Where the record stands in a program: ONNX's ``metadata_props``, OpenVINO's ``rt_info``."""
ENGINES: dict[str, type[ProgramEngine]] = {ONNX_FILE: OnnxEngine, OPENVINO_FILE: OpenVinoEngine}
_AGAIN = "export the model again with --overwrite"


class Quantisation(Schema):
    """How a program came to int8, and what it cost.

    Attributes:
        calibrated_on: windows of training images that the ranges of the activations were measured on.
        validated_on: cases that the model had not seen, scored on their own grids.
        dice_fp32, dice_int8: mean over these cases, by the program before and after.
        nncf: version of what quantised.
    """

    calibrated_on: int
    validated_on: int
    dice_fp32: float
    dice_int8: float
    nncf: str


class ProgramRecord(Schema):
    """What a program is: all that is needed to prepare its input and to read its output.

    Attributes:
        model: digest of the bundle that it was made from. networks: how many it averages the logits of.
        plan: how images are prepared, what the windows are, and what the outputs mean.
        mirror_axes: spatial axes that training mirrored, for test-time augmentation.
        window: shape of an input after the batch axis: channels, then the patch. output: the same of the logits.
        precision: of its convolutions.
        tolerance: logits of the fp32 program differed from the model's by at most this share of the greatest, or where
            float32 itself is less exact, by a few times its rounding.
        quantisation: of an int8 program.
        temperature, postprocessing: of the model; prediction applies them to the program's logits.
        sha256: of the files beside the record; empty in the record that lies inside a program.
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
    precision: Literal["fp32", "int8"] = "fp32"
    tolerance: float
    quantisation: Quantisation | None = None
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    postprocessing: tuple[PostprocessingStep, ...] = ()
    sha256: dict[str, str] = {}


class ExportedFolder:
    """An exported program on disk, to predict with.

    Args:
        folder: with ``program.json``.

    Attributes:
        digest: the identity of the program: of its record, which names its files' digests.

    Raises:
        ModelError: damaged, or its files are not those that ``program.json`` describes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = ProgramRecord.load(folder / RECORD_FILE, error=ModelError, remedy=_AGAIN)
        _check_files(folder, self.record)
        self.digest = file_digest(folder / RECORD_FILE)
        self.file = next(folder / name for name in ENGINES if name in self.record.sha256)

    @property
    def engine_name(self) -> str:
        """Of the runtime that computes it."""
        return ENGINES[self.file.name].name

    def load(self) -> ProgramEngine:
        """The engine, in the program's own precision.

        Raises:
            OptionError: the runtime is missing.
        """
        return ENGINES[self.file.name](self.file, window=self.record.window, precision=self.record.precision)


def is_program(folder: Path) -> bool:
    """Whether ``folder`` holds an exported program, not a model."""
    return (folder / RECORD_FILE).is_file()


def device_of_programs(
    folders: Sequence[Path], engine: EngineChoice, *, device: str, precision: str, layout: Layout
) -> str:
    """The device to predict on, ``device`` unless some of the models are exported programs: those are for the CPU.

    Raises:
        OptionError: an option that programs cannot follow.
    """
    programs = [folder for folder in folders if is_program(folder)]
    if not programs:
        return device
    if device not in ("auto", "cpu"):
        raise OptionError(
            f"an exported program computes on the CPU, not on {device}",
            remedy="leave out --device, or name the model that it was made from",
        )
    own = {ENGINES[name].name for folder in programs for name in ENGINES if (folder / name).is_file()}
    asked = {
        "--engine": engine not in ("auto", *own) or (engine != "auto" and len(own) > 1),
        "--precision": precision != "auto",
        "--layout": layout != "auto",
    }
    if len(programs) == len(folders) and any(asked.values()):
        raise OptionError(
            f"an exported program has its own {', '.join(name[2:] for name, is_asked in asked.items() if is_asked)}",
            where=programs[0],
            remedy=f"leave out {' and '.join(name for name, is_asked in asked.items() if is_asked)}, or name the model "
            "that it was made from",
        )
    return "cpu"


def _check_files(folder: Path, record: ProgramRecord) -> None:
    if not any(name in record.sha256 for name in ENGINES):
        raise ModelError(f"names no program ({' or '.join(ENGINES)})", where=folder / RECORD_FILE, remedy=_AGAIN)
    for name, digest in record.sha256.items():
        path = folder / Path(name).name  # never outside of the folder
        if not path.is_file():
            raise ModelError(f"has no {name}", where=folder, remedy=_AGAIN, code="E-MODEL-DAMAGED")
        if file_digest(path) != digest:
            raise ModelError(
                f"is not the file that {RECORD_FILE} describes", where=path, remedy=_AGAIN, code="E-MODEL-DAMAGED"
            )
