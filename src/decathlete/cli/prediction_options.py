"""Options of prediction: sliding windows, device and engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decathlete.cli import options as o
from decathlete.cli.component_settings import choose_engine
from decathlete.core.choices import Blend as BlendName
from decathlete.core.choices import Layout, PrecisionChoice

if TYPE_CHECKING:
    from decathlete.inference.options import EngineChoice, PredictOptions


PREDICTION = "Prediction"
"""Section of ``--help``."""


def overlap_option(section: str) -> Any:
    """Return the option for the overlap of sliding windows, in a section of ``--help``."""
    return typer.Option(
        metavar="SHARE",
        min=0.0,
        max=0.95,
        rich_help_panel=section,
        help="Overlap of neighbouring windows, share of the patch.",
    )


def blend_option(section: str) -> Any:
    """Return the option for the weights of overlapping windows, in a section of ``--help``."""
    return typer.Option(
        rich_help_panel=section, help="Weights of overlapping windows: gaussian (most in the centre) or constant."
    )


Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        rich_help_panel=o.MACHINE,
        help="Inference engine: auto, {names:decathlete.inference.engines:ENGINES}, or module:Class. auto: openvino on "
        "a CPU where it is installed, else torch.",
    ),
]

Tta = Annotated[
    bool,
    typer.Option(
        "--tta/--no-tta",
        rich_help_panel=PREDICTION,
        help="Test-time augmentation: average over the flips that training used (short trainings: "
        "none); up to 8 times slower.",
    ),
]
Overlap = Annotated[float, overlap_option(PREDICTION)]
Blend = Annotated[BlendName, blend_option(PREDICTION)]
MemoryLimit = Annotated[
    float | None,
    typer.Option(
        "--memory",
        metavar="GB",
        min=0.5,
        show_default="2 GB for sums of logits",
        rich_help_panel=PREDICTION,
        help="Memory limit of a prediction on a CPU; sums beyond it are kept on disk, in the output folder.",
    ),
]
WindowBatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        metavar="N",
        min=1,
        show_default="the plan's; few on a CPU",
        rich_help_panel=PREDICTION,
        help="Windows (2D: slices) per batch, of several images if these are small; fewer need less memory.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class SlidingWindowArguments:
    """Options of sliding-window prediction for every command that predicts."""

    tta: Tta = False
    overlap: Overlap = 0.5
    blend: Blend = "gaussian"

    def to_predict_options(
        self, *, device: str, precision: PrecisionChoice, layout: Layout = "auto", engine: EngineChoice = "auto"
    ) -> PredictOptions:
        """Return the options as :class:`PredictOptions`."""
        from decathlete.core.sliding_window import SlidingWindow
        from decathlete.inference.options import PredictOptions

        window = SlidingWindow(**vars(self))
        return PredictOptions(window=window, device=device, precision=precision, layout=layout, engine=engine)


@dataclass(frozen=True, kw_only=True)
class PredictionArguments(SlidingWindowArguments):
    """Adds batch size and memory limit, for commands that do not train (there ``--batch-size`` is the training's)."""

    batch_size: WindowBatchSize = None
    memory_gb: MemoryLimit = None


@dataclass(frozen=True, kw_only=True)
class DeviceArguments:
    """Options of the device that predicts, for commands that do not train."""

    precision: o.Precision = "auto"
    layout: o.Layout = "auto"
    engine: Engine = "auto"
    device: o.Device = "auto"

    def to_predict_options(
        self, windows: SlidingWindowArguments, *, engine_settings: Sequence[str] = ()
    ) -> PredictOptions:
        """Return these options and those of sliding windows as :class:`PredictOptions`.

        Args:
            engine_settings: assignments ``engine.SETTING=VALUE``.
        """
        return windows.to_predict_options(
            device=self.device,
            precision=self.precision,
            layout=self.layout,
            engine=choose_engine(self.engine, engine_settings),
        )
