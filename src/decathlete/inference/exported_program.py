"""Exported programs as models to predict with: the record beside and inside each, and the engine that computes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from decathlete.core.files import access_error, file_digest
from decathlete.core.placeholder_files import placeholder_error
from decathlete.core.registry import ComponentSettings
from decathlete.core.schema import Schema
from decathlete.errors import ModelError, OptionError
from decathlete.inference.engines import ENGINES, Engine
from decathlete.inference.options import AUTO, PredictOptions
from decathlete.inference.output.provenance import NOTICE
from decathlete.models.record import PostprocessingStep
from decathlete.networks.devices import resolve_device
from decathlete.networks.onnx_program import INPUT, OUTPUT
from decathlete.planning.plan import Plan
from decathlete.version import __version__

RECORD_FILE = "program.json"
PREVIOUS_STAGE_FOLDER = "previous_stage"
"""Folder of the program of a cascade's first stage, beside that of the second."""
RECORD_KEY = "decathlete"
"""Name of the record inside a program: in ONNX's ``metadata_props``, in OpenVINO's ``rt_info``."""
_EXPORT_AGAIN = "export the model again with --overwrite"
_DELETE = "delete the folder of the program, and export the model again"
"""What to do without a readable record: nothing else says that the folder may be replaced."""


class Quantisation(Schema):
    """How a program was quantised to int8, and what it cost.

    Attributes:
        calibrated_on: number of windows of training images that the ranges of activations were measured on.
        validated_on: number of cases that the model had not seen, scored on their own grids.
        dice_fp32: mean Dice of these cases before quantisation.
        dice_int8: the same afterwards.
        nncf: version of NNCF, which quantised.
    """

    calibrated_on: int
    validated_on: int
    dice_fp32: float
    dice_int8: float
    nncf: str


class ProgramRecord(Schema):
    """What is needed to prepare a program's input and to interpret its output.

    Attributes:
        model: digest of the bundle that it was made from.
        networks: how many it averages the logits of.
        plan: how images are prepared, what the windows are, and what the outputs mean.
        mirror_axes: spatial axes that training mirrored, for test-time augmentation.
        temperature: of the model; prediction divides the program's logits by it.
        postprocessing: of the model; prediction applies these steps.
        window: shape of an input after the batch axis: channels, then the patch.
        output: the same of the logits.
        precision: of its convolutions.
        tolerance: greatest difference of the fp32 program's logits from the model's, as a share of the greatest; or,
            where float32 itself is less exact, a few times its rounding.
        quantisation: of an int8 program.
        previous_stage: of a cascade: digest of the record of the first stage's program, in the folder
            ``previous_stage``.
        sha256: of the files beside the record; empty in the record inside a program.
    """

    version: Literal[1] = 1
    notice: str = NOTICE
    decathlete: str = __version__
    model: str
    weights: str
    networks: int
    plan: Plan
    mirror_axes: tuple[int, ...]
    temperature: float = Field(default=1.0, ge=1e-6, le=1e6, allow_inf_nan=False)
    postprocessing: tuple[PostprocessingStep, ...] = ()
    input_name: str = INPUT
    output_name: str = OUTPUT
    window: tuple[int, ...]
    output: tuple[int, ...]
    precision: Literal["fp32", "int8"] = "fp32"
    tolerance: float
    quantisation: Quantisation | None = None
    previous_stage: str | None = None
    sha256: dict[str, str] = {}


class ExportedFolder:
    """An exported program on disk, to predict with.

    Args:
        folder: with ``program.json``.

    Attributes:
        digest: identity of the program: of its record, which contains the digests of its files.
        engine: class of the engine that computes it.
        file: main file of the program.
        previous: folder of the program of a cascade's first stage; ``None`` if it is no cascade.

    Raises:
        ModelError: the program is damaged, its files are not those that ``program.json`` describes, or no engine here
            computes them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = ProgramRecord.load(folder / RECORD_FILE, error=ModelError, remedy=_DELETE)
        self.engine = self._find_engine()
        self.file = folder / str(self.engine.program_file)
        self._check_files()
        self.previous = self._find_previous()
        self.digest = file_digest(folder / RECORD_FILE)

    def load(self, *, precision: str | None = None, settings: ComponentSettings | None = None) -> Engine:
        """Return the engine that computes the program, in the program's own precision.

        Args:
            settings: of the engine; ``None``: its defaults.

        Raises:
            MissingPackageError: a package of the engine is missing, or does not load.
        """
        return self.engine.from_program(
            settings or self.engine.Settings(),
            self.file,
            window=self.record.window,
            precision=precision or self.record.precision,
        )

    def _find_previous(self) -> Path | None:
        expected = self.record.previous_stage
        if (expected is None) != (self.record.plan.previous_stage is None):
            raise ModelError("is one of the two programs of a cascade", where=self.folder, remedy=_EXPORT_AGAIN)
        if expected is None:
            return None
        path = self.folder / PREVIOUS_STAGE_FOLDER / RECORD_FILE
        if not path.is_file() or file_digest(path) != expected:
            raise ModelError("is not the first stage of this cascade", where=path.parent, remedy=_EXPORT_AGAIN)
        return path.parent

    def _find_engine(self) -> type[Engine]:
        engines = _engines_by_file()
        for name in self.record.sha256:
            if name in engines:
                return engines[name]
        raise ModelError(
            f"describes no program that an engine here computes ({' or '.join(engines)})",
            where=self.folder / RECORD_FILE,
            remedy=f"install the package that has its engine, or {_EXPORT_AGAIN}",
        )

    def _check_files(self) -> None:
        for name, digest in self.record.sha256.items():
            path = self.folder / Path(name).name  # never outside of the folder
            if not path.is_file():
                raise ModelError(f"has no {name}", where=self.folder, remedy=_EXPORT_AGAIN)
            try:
                found = file_digest(path)
            except OSError as problem:
                raise access_error(problem, path, kind=ModelError) from None
            if found != digest:
                raise placeholder_error(path, ModelError) or ModelError(
                    f"is not the file that {RECORD_FILE} describes", where=path, remedy=_EXPORT_AGAIN
                )


def is_program(folder: Path) -> bool:
    """Return whether ``folder`` holds an exported program, not a model bundle."""
    return (folder / RECORD_FILE).is_file()


def options_for_programs(folders: Sequence[Path], options: PredictOptions) -> PredictOptions:
    """Return ``options`` with the device of the exported programs among ``folders``, if there are any.

    Raises:
        OptionError: an option that programs cannot follow.
    """
    programs = [folder for folder in folders if is_program(folder)]
    if not programs:
        return options
    engines = {cls.Settings.component: cls for folder in programs for cls in _engines_in(folder)}
    if len(programs) == len(folders):
        _check_options(options, set(engines), where=programs[0])
    return options.updated(device=_device(options.device, list(engines.values())))


def _device(device: str, engines: Sequence[type[Engine]]) -> str:
    for cls in engines:
        if device == AUTO:
            device = str(resolve_device(cls.devices[0]))
        if resolve_device(device).type not in cls.devices:
            raise OptionError(
                f"an exported program of the engine {cls.Settings.component} computes on {' or '.join(cls.devices)}, "
                f"not on {device}",
                remedy="leave out --device, or name the model that it was made from",
            )
    return device


def _check_options(options: PredictOptions, engines: set[str], *, where: Path) -> None:
    """Raise an OptionError for options that only models in a bundle follow."""
    name = options.engine if isinstance(options.engine, str) else options.engine.component
    given = {
        "--engine": name != AUTO and {name} != engines,
        "--precision": options.precision != AUTO,
        "--layout": options.layout != AUTO,
    }
    flags = [flag for flag, is_given in given.items() if is_given]
    if flags:
        raise OptionError(
            f"an exported program has its own {', '.join(flag[2:] for flag in flags)}",
            where=where,
            remedy=f"leave out {' and '.join(flags)}, or name the model that it was made from",
        )


def _engines_by_file() -> dict[str, type[Engine]]:
    return {component.cls.program_file: component.cls for component in ENGINES if component.cls.program_file}


def _engines_in(folder: Path) -> Iterator[type[Engine]]:
    return (cls for file, cls in _engines_by_file().items() if (folder / file).is_file())
