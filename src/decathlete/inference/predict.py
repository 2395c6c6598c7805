"""Segment one image after another with models that stay loaded."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from decathlete.core.choices import EngineChoice, Layout
from decathlete.core.geometry import AxisTransform, Geometry, Triple
from decathlete.core.labels import LabelSet
from decathlete.core.memory import translate_out_of_memory
from decathlete.errors import OptionError
from decathlete.inference.engines.program_record import device_of_programs
from decathlete.inference.engines.selection import resolve_engine
from decathlete.inference.ensemble import PlanEnsemble, load_ensembles
from decathlete.inference.input_range import channel_means, input_range_warnings
from decathlete.inference.output.apply_postprocessing import build_steps, postprocess
from decathlete.inference.output.averaging import average
from decathlete.inference.output.probabilities import MakeStore, ProbabilityArray, ProbabilityFile, ProbabilityStore
from decathlete.inference.output.provenance import Settings, volumes_ml
from decathlete.inference.output.restore import Restorer
from decathlete.inference.sources import Source, as_image
from decathlete.inference.windows.grid import check_blend, check_overlap
from decathlete.inference.windows.memory import sums_limit
from decathlete.inference.windows.sweep import default_batch_size, sweep
from decathlete.io.images import Image
from decathlete.models.record import PostprocessingStep
from decathlete.preprocessing.prepare import prepare
from decathlete.preprocessing.prepared import PreparedCase

log = logging.getLogger(__name__)

READING_SHORT = "use a computer with more memory, or crop the image to what is to be segmented"
_COMPUTING_SHORT = (
    "choose a smaller --batch-size (1 at least), give --memory (sums that it does not hold wait on disk), or --device "
    "cpu if an accelerator's memory is full, or use a computer with more memory"
)

_Segmented = tuple[NDArray[np.integer[Any]], ProbabilityStore | None]


@dataclass(frozen=True, kw_only=True)
class PreparedInput:
    """An image that only waits for the networks.

    Attributes:
        cases: one for each plan of the predictor.
        warnings: where the image leaves what the models were trained on.
    """

    geometry: Geometry
    cases: tuple[PreparedCase, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A segmentation on the image's own grid.

    Attributes:
        label_ZYX: label values as in the training dataset's files.
        geometry: the image's grid.
        volumes_ml: class (or region) -> volume, mL.
        warnings: where the image leaves what the model was trained on; such a prediction is not to be trusted.
        seconds: from the prepared image to the finished label map; its share of what was computed together.
        probabilities: 0..1, of each class (background first) or region, if asked for.
    """

    label_ZYX: NDArray[np.integer[Any]]
    geometry: Geometry
    volumes_ml: dict[str, float]
    warnings: tuple[str, ...]
    seconds: float
    probabilities: ProbabilityStore | None = None

    @property
    def probabilities_KZYX(self) -> NDArray[np.float32] | None:
        """As an array, float32, where they are in memory."""
        return self.probabilities.array_KZYX if isinstance(self.probabilities, ProbabilityArray) else None


class Predictor:
    """Models of one dataset, loaded once for many images. Make one with :meth:`load`.

    Args:
        ensembles: models by plan; their logits are averaged within a plan, their probabilities between plans.
        tta: average over all flips along the axes that training mirrored.
        overlap: part of the patch that neighbouring windows share at least, 0 to below 1.
        blend: ``gaussian`` trusts the centre of a window more, ``constant`` all of it alike.
        batch_size: windows (2D: slices) computed together, of several images if they are small; ``None``: the plan's
            batch on accelerators; on CPUs few, by their size.
        memory_bytes: that the process may fill on a CPU; where it is short, sums of logits wait on disk. ``None``: sums
            may fill 2 GB.
        postprocessing: steps that change the finished label map, in order.

    Raises:
        OptionError: an option out of range.
        ModelError: a step of post-processing that is unknown or has wrong settings.
    """

    def __init__(
        self,
        ensembles: Sequence[PlanEnsemble],
        *,
        device: torch.device,
        tta: bool = False,
        overlap: float = 0.5,
        blend: str = "gaussian",
        batch_size: int | None = None,
        memory_bytes: int | None = None,
        postprocessing: Sequence[PostprocessingStep] = (),
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise OptionError(f"batch size {batch_size} is out of range", remedy="choose 1 or more")
        if memory_bytes is not None and device.type != "cpu":
            raise OptionError(
                f"a limit of memory is for predictions on a CPU, this one is on {device}",
                remedy="leave --memory out, or give --device cpu",
            )
        self.ensembles = tuple(ensembles)
        self.device = device
        self.batch_size = batch_size
        self.memory_bytes = memory_bytes
        self.postprocessing = build_steps(postprocessing, self.labels) if postprocessing else ()
        self.settings = Settings(
            models=tuple(model for ensemble in ensembles for model in ensemble.models),
            tta=tta,
            overlap=check_overlap(overlap),
            blend=check_blend(blend),
        )
        if tta and not any(ensemble.mirror_axes for ensemble in ensembles):
            log.warning("the model was trained without mirroring: test-time augmentation has nothing to flip")

    @classmethod
    def load(
        cls,
        models: Path | str | Sequence[Path | str],
        *,
        device: str = "auto",
        precision: str = "auto",
        layout: Layout = "auto",
        engine: EngineChoice = "auto",
        tta: bool = False,
        overlap: float = 0.5,
        blend: str = "gaussian",
        batch_size: int | None = None,
        memory_bytes: int | None = None,
    ) -> Self:
        """Load a model, or several as an ensemble, each a run's folder, a bundle's or an exported program's.

        Args:
            layout: how feature maps lie in memory; speed depends on it, results only by rounding.
            engine: what computes the networks; ``auto``: OpenVINO on a CPU where it is installed, else torch.
                Exported programs are computed by their own runtime, in their own precision.

        Raises:
            ModelError: a model is missing or damaged, or they do not go together.
            OptionError: an option that is unknown, out of range, or not for this machine.
        """
        folders = [Path(models)] if isinstance(models, (str, Path)) else [Path(folder) for folder in models]
        if not folders:
            raise OptionError("no model is named", remedy="name the folder of a run or a model")
        device = device_of_programs(folders, engine, device=device, precision=precision, layout=layout)
        runtime, chosen = resolve_engine(engine, device=device, precision=precision, layout=layout)
        ensembles = load_ensembles(
            folders, device=chosen, precision=precision, layout=layout, engine=runtime, or_torch=engine == "auto"
        )
        return cls(
            ensembles,
            device=chosen,
            tta=tta,
            overlap=overlap,
            blend=blend,
            batch_size=batch_size,
            memory_bytes=memory_bytes,
            postprocessing=ensembles[0].postprocessing,
        )

    @property
    def n_channels(self) -> int:
        """Channels of an input image."""
        return len(self.ensembles[0].plan.channels)

    @property
    def labels(self) -> LabelSet:
        """What is segmented."""
        return self.ensembles[0].plan.labels

    def predict(
        self,
        source: Source,
        *,
        spacing: Triple | None = None,
        geometry: Geometry | None = None,
        probabilities: bool = False,
    ) -> Prediction:
        """Segment one image.

        Args:
            source: a file (or a DICOM folder), one file per channel, or an array: (z, y, x), (channel, z, y, x), or
                (y, x) for a single slice.
            spacing: of an array's axes z, y, x, mm.
            geometry: of an array, instead of ``spacing``: its whole grid.
            probabilities: keep them too (n_outputs * volume float32 numbers).

        Raises:
            ImageError: a file cannot be read, or holds NaN.
            ModelError: another number of channels than the model takes.
            OptionError: an array without its spacing, or a file with one.
            InsufficientMemoryError: out of memory for the image or its prediction.
        """
        with translate_out_of_memory("the image", remedy=READING_SHORT):
            image = as_image(source, spacing=spacing, geometry=geometry)
        return self.compute(self.prepare(image), probabilities=ProbabilityArray if probabilities else None)

    def prepare(self, image: Image, case_id: str = "") -> PreparedInput:
        """All that comes before the networks; safe to call in another thread while :meth:`compute` runs."""
        plans = [ensemble.plan for ensemble in self.ensembles]
        with translate_out_of_memory("the image, resampled for the network", remedy=READING_SHORT):
            cases = tuple(prepare(image, plan, case_id=case_id) for plan in plans)
        return self.ready(cases, [channel_means(image, case.restoration) for case in cases])

    def ready(self, cases: Sequence[PreparedCase], means: Sequence[Sequence[float]]) -> PreparedInput:
        """An image that was prepared for each plan of the predictor, with the mean intensities that it had."""
        plans = [ensemble.plan for ensemble in self.ensembles]
        found = [input_range_warnings(m, c.restoration, plan) for m, c, plan in zip(means, cases, plans, strict=True)]
        return PreparedInput(
            geometry=cases[0].restoration.geometry,
            cases=tuple(cases),
            warnings=tuple(dict.fromkeys(warning for warnings in found for warning in warnings)),
        )

    def compute(
        self, ready: PreparedInput, *, probabilities: MakeStore | None = None, scratch: Path | None = None
    ) -> Prediction:
        """The networks, and the way back to the image's own grid.

        Args:
            probabilities: makes what takes them; ``None``: they are not asked for.
            scratch: folder for what waits on disk while memory is short; ``None``: the system's for temporary files.

        Raises:
            InsufficientMemoryError: out of memory for the prediction.
            OutputError: the disk does not hold what has to wait there.
        """
        began = time.perf_counter()
        with translate_compute_error():
            several = len(self.ensembles) > 1
            label_ZYX, store = (self._averaged if several else self._single)(ready, probabilities, scratch)
        with ExitStack() as on_failure:
            if store is not None:
                on_failure.callback(store.discard)
            found = self.prediction(ready, label_ZYX, store, seconds=time.perf_counter() - began)
            on_failure.pop_all()
        return found

    def prediction(
        self,
        ready: PreparedInput,
        label_ZYX: NDArray[np.integer[Any]],
        store: ProbabilityStore | None,
        *,
        seconds: float,
    ) -> Prediction:
        """Post-process a label map and measure it; ``seconds`` were spent on it up to here.

        Raises:
            InsufficientMemoryError: memory does not hold the steps of post-processing.
        """
        began = time.perf_counter()
        if self.postprocessing:
            with translate_compute_error():
                label_ZYX = postprocess(label_ZYX, ready.geometry, self.labels, self.postprocessing)
        return Prediction(
            label_ZYX=label_ZYX,
            geometry=ready.geometry,
            volumes_ml=volumes_ml(label_ZYX, ready.geometry, self.labels),
            warnings=ready.warnings,
            seconds=round(seconds + time.perf_counter() - began, 3),
            probabilities=store,
        )

    @property
    def _plan_weights(self) -> Sequence[float]:
        """Weight of each plan in the mean of probabilities; empty: all count equally."""
        weights = [ensemble.weight for ensemble in self.ensembles]
        return weights if len(set(weights)) > 1 else ()

    def batch_of(self, ensemble: PlanEnsemble) -> int:
        """Windows computed together."""
        return self.batch_size or default_batch_size(ensemble.plan, self.device)

    def flips(self, ensemble: PlanEnsemble) -> Sequence[int]:
        """Axes that windows are flipped along."""
        return ensemble.mirror_axes if self.settings.tta else ()

    def _single(self, ready: PreparedInput, make: MakeStore | None, scratch: Path | None) -> _Segmented:
        case = ready.cases[0]
        with ExitStack() as on_failure:
            store = self._store(make, ready.geometry, case.restoration.axes, on_failure)
            label_ZYX = self._restored(self.ensembles[0], case, store, scratch)
            on_failure.pop_all()
        return label_ZYX, store

    def _averaged(self, ready: PreparedInput, make: MakeStore | None, scratch: Path | None) -> _Segmented:
        """Plans by turns, the probabilities of each wait on disk: memory never holds those of all classes."""
        folder = scratch or Path(tempfile.gettempdir())
        with ExitStack() as on_failure, ExitStack() as always:
            store = self._store(make, ready.geometry, AxisTransform(), on_failure)
            parts = []
            for ensemble, case in zip(self.ensembles, ready.cases, strict=True):
                part = ProbabilityFile(folder, self.labels.n_outputs, ready.geometry, case.restoration.axes)
                always.callback(part.discard)
                self._restored(ensemble, case, part, scratch)
                parts.append(part)
            label_ZYX = average(parts, self.labels, ready.geometry.shape_ZYX, store, weights=self._plan_weights)
            on_failure.pop_all()
        return label_ZYX, store

    def _store(
        self, make: MakeStore | None, geometry: Geometry, axes: AxisTransform, on_failure: ExitStack
    ) -> ProbabilityStore | None:
        if make is None:
            return None
        store = make(self.labels.n_outputs, geometry, axes)
        on_failure.callback(store.discard)
        return store

    @torch.inference_mode()
    def _restored(
        self, ensemble: PlanEnsemble, case: PreparedCase, store: ProbabilityStore | None, scratch: Path | None
    ) -> NDArray[np.integer[Any]]:
        restorer = Restorer(case.restoration, self.labels, probabilities=store, temperature=ensemble.temperature)
        slabs = sweep(
            ensemble.engines,
            case.image_CZYX,
            plan=ensemble.plan,
            overlap=self.settings.overlap,
            blend=self.settings.blend,
            mirror_axes=self.flips(ensemble),
            batch_size=self.batch_of(ensemble),
            memory_bytes=sums_limit(
                self.memory_bytes,
                ensemble.plan,
                case.restoration,
                batch_size=self.batch_of(ensemble),
                n_engines=len(ensemble.engines),
                kept_windows=sum(engine.kept_windows for engine in ensemble.engines),
                tta=self.settings.tta,
                device=self.device,
            ),
            scratch=scratch,
        )
        for slab_KZYX in slabs:
            restorer.add(slab_KZYX)
        return restorer.finish()


def translate_compute_error() -> AbstractContextManager[None]:
    """Memory that runs out within is told as the prediction's."""
    return translate_out_of_memory("the prediction of this case", remedy=_COMPUTING_SHORT)
