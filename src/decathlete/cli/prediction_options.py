"""Options of sliding-window prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from decathlete.cli import options as o
from decathlete.core.choices import Layout, PrecisionChoice

if TYPE_CHECKING:
    from decathlete.inference.options import PredictOptions


@dataclass(frozen=True, kw_only=True)
class SlidingWindowArguments:
    """Options of sliding-window prediction for every command that predicts."""

    tta: o.Tta = False
    overlap: o.Overlap = 0.5
    blend: o.Blend = "gaussian"

    def to_predict_options(
        self, *, device: str, precision: PrecisionChoice, layout: Layout = "auto", engine: str = "auto"
    ) -> PredictOptions:
        """Return the options as :class:`PredictOptions`."""
        from decathlete.core.sliding_window import SlidingWindow
        from decathlete.inference.options import PredictOptions

        window = SlidingWindow(**vars(self))
        return PredictOptions(window=window, device=device, precision=precision, layout=layout, engine=engine)


@dataclass(frozen=True, kw_only=True)
class PredictionArguments(SlidingWindowArguments):
    """Adds batch size and memory limit, for commands that do not train (there ``--batch-size`` is the training's)."""

    batch_size: o.WindowBatchSize = None
    memory_gb: o.MemoryLimit = None


@dataclass(frozen=True, kw_only=True)
class DeviceArguments:
    """Options of the device that predicts, for commands that do not train."""

    precision: o.Precision = "auto"
    layout: o.Layout = "auto"
    engine: o.Engine = "auto"
    device: o.Device = "auto"

    def to_predict_options(self, windows: SlidingWindowArguments) -> PredictOptions:
        """Return these options and those of sliding windows as :class:`PredictOptions`."""
        return windows.to_predict_options(**vars(self))
