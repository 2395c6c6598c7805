"""Segment one image after another with models that stay loaded."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry, Triple
from decathlete.core.header_transforms import describe_disagreement
from decathlete.core.labels import LabelSet
from decathlete.core.memory import translate_out_of_memory
from decathlete.core.sliding_window import SlidingWindow
from decathlete.core.structure_codes import StructureCode
from decathlete.errors import OptionError
from decathlete.inference.compute import LabelMapComputer, translate_compute_error
from decathlete.inference.engine_selection import EngineBuilder
from decathlete.inference.ensemble import PlanEnsemble, load_ensembles
from decathlete.inference.exported_program import options_for_programs
from decathlete.inference.input_range import channel_means, copied_channel_warnings, input_range_warnings
from decathlete.inference.options import PredictFields, PredictOptions
from decathlete.inference.output.apply_postprocessing import build_steps, postprocess
from decathlete.inference.output.probabilities import MakeStore, ProbabilityArray, ProbabilityStore
from decathlete.inference.output.provenance import RecordedSettings, volumes_ml, voxel_counts
from decathlete.inference.prediction import Prediction, PreparedInput, PreviousInput
from decathlete.inference.sources import Source, as_image
from decathlete.inference.windows.sweep import ReportShare, windows_per_batch
from decathlete.io.images import Image
from decathlete.models.record import PostprocessingStep
from decathlete.preprocessing.prepare import prepare
from decathlete.preprocessing.prepared import PreparedCase

log = logging.getLogger(__name__)

IMAGE_TOO_LARGE = "use a computer with more memory, or crop the image to the region of interest"
"""What to do where memory is too small for an image."""


class Predictor:
    """Models of one dataset, loaded once for many images. Make one with :meth:`load`.

    Args:
        ensembles: models by plan; logits are averaged within a plan, probabilities over plans.
        device: of the networks.
        window: how the networks are moved over an image.
        postprocessing: steps that change the finished label map, in order.

    Raises:
        OptionError: ``window.memory_gb`` with an accelerator.
        ModelError: a step of post-processing that is unknown or has wrong settings.
    """

    def __init__(
        self,
        ensembles: Sequence[PlanEnsemble],
        *,
        device: torch.device,
        window: SlidingWindow = SlidingWindow(),
        postprocessing: Sequence[PostprocessingStep] = (),
    ) -> None:
        if window.memory_gb is not None and device.type != "cpu":
            raise OptionError(
                f"--memory is for predictions on a CPU, and this one is on {device}",
                remedy="leave --memory out, or choose --device cpu",
            )
        self.ensembles = tuple(ensembles)
        self.device = device
        self.window = window
        self.postprocessing = build_steps(postprocessing, self.labels) if postprocessing else ()
        self.settings = RecordedSettings.of([use for ensemble in ensembles for use in ensemble.models], window)
        if window.tta and not any(ensemble.mirror_axes for ensemble in ensembles):
            log.warning("--tta has no effect: the model was trained without mirroring")

    @classmethod
    def load(
        cls,
        models: Path | str | Sequence[Path | str],
        *,
        options: PredictOptions = PredictOptions(),
        fold: int | None = None,
        **changes: Unpack[PredictFields],
    ) -> Self:
        """Load a model, or several as an ensemble::

            predictor = Predictor.load("results/MY_DATASET/3d/fold_0", tta=True)

        Args:
            models: folders of runs, model bundles or exported programs. Exported programs are computed by their own
                engine, in their own precision.
            options: how to predict.
            fold: use only the networks of this fold, which did not see its held-out cases; ``None``: all networks.
            changes: fields of ``options`` or of its window, given by themselves: ``device``, ``engine``, ``precision``,
                ``layout``, ``tta``, ``overlap``, ``blend``, ``batch_size``, ``memory_gb``.

        Raises:
            ModelError: a model is missing or damaged, or they do not belong together.
            OptionError: an option that is unknown, out of range, or not for this machine.
        """
        folders = [Path(models)] if isinstance(models, (str, Path)) else [Path(folder) for folder in models]
        if not folders:
            raise OptionError("no model is named", remedy="name the folder of a run or a model")
        options = options_for_programs(folders, options.updated(**changes))
        builder = EngineBuilder(options)
        ensembles = load_ensembles(folders, builder, fold=fold)
        return cls(ensembles, device=builder.device, window=options.window, postprocessing=ensembles[0].postprocessing)

    @property
    def n_channels(self) -> int:
        """Channels of an input image."""
        return len(self.ensembles[0].plan.channels)

    @property
    def labels(self) -> LabelSet:
        """The classes or regions that are segmented."""
        return self.ensembles[0].plan.labels

    @property
    def structure_codes(self) -> dict[str, StructureCode]:
        """Codes of structures in DICOM objects, where the dataset declared them."""
        return {
            name: code for ensemble in reversed(self.ensembles) for name, code in ensemble.plan.structure_codes.items()
        }

    def predict(
        self,
        source: Source,
        *,
        spacing: Triple | None = None,
        geometry: Geometry | None = None,
        image_formats: Mapping[str, Mapping[str, Any]] | None = None,
        probabilities: bool = False,
    ) -> Prediction:
        """Segment one image.

        Args:
            source: a file (or a DICOM folder), one file per channel, or an array: (z, y, x), (channel, z, y, x), or
                (y, x) for a single slice.
            spacing: z, y, x in mm, of an array, or of files that do not contain their spacing.
            geometry: of an array, instead of ``spacing``: its whole grid.
            image_formats: settings of image formats that change how files are read, by the name of the format.
            probabilities: return them, too (n_outputs * volume float32 numbers).

        Raises:
            ImageError: a file cannot be read, or contains NaN.
            ModelError: the number of channels is not the model's.
            OptionError: an array without its spacing, a file with a geometry, or a setting of an image format without
                effect.
            InsufficientMemoryError: the image or its prediction does not fit into memory.
        """
        with translate_out_of_memory("the image", remedy=IMAGE_TOO_LARGE):
            image = as_image(
                source,
                spacing=spacing,
                geometry=geometry,
                image_formats=image_formats,
                n_channels=self.n_channels,
            )
        return self.compute(self.prepare(image), probabilities=ProbabilityArray if probabilities else None)

    def prepare(self, image: Image, *, case_id: str = "") -> PreparedInput:
        """Do everything that precedes the networks; safe to call in another thread while :meth:`compute` runs."""
        plans = [ensemble.plan for ensemble in self.ensembles]
        with translate_out_of_memory("the image, resampled for the network", remedy=IMAGE_TOO_LARGE):
            cases = tuple(prepare(image, plan, case_id=case_id) for plan in plans)
            previous = self.prepare_previous(image, cases, case_id=case_id)
        means = [channel_means(image, case.restoration) for case in cases]
        checked = self.check_range(cases, means)
        copied = copied_channel_warnings(image, means[0], plans[0].channels)
        return replace(checked, previous=previous, warnings=(*checked.warnings, *copied))

    def prepare_previous(
        self, image: Image, cases: Sequence[PreparedCase], *, case_id: str = ""
    ) -> tuple[PreviousInput | None, ...]:
        """Prepare an image for the previous stages of cascades; empty if there are none.

        Args:
            cases: the image as each plan of the predictor prepares it.
        """
        if all(ensemble.previous is None for ensemble in self.ensembles):
            return ()
        return tuple(
            None
            if ensemble.previous is None
            else PreviousInput(
                case=prepare(image, ensemble.previous.plan, case_id=case_id), restoration=case.restoration
            )
            for ensemble, case in zip(self.ensembles, cases, strict=True)
        )

    def check_range(self, cases: Sequence[PreparedCase], means: Sequence[Sequence[float]]) -> PreparedInput:
        """Compare a prepared image with the training data of the models.

        Args:
            cases: the image as each plan prepares it.
            means: for each plan, the mean intensity of each channel (see
                :func:`~decathlete.inference.input_range.channel_means`).
        """
        geometry = cases[0].restoration.geometry
        disagreement = describe_disagreement(geometry)
        warnings: dict[str, None] = {disagreement: None} if disagreement else {}  # a set in order
        for ensemble, case, of_case in zip(self.ensembles, cases, means, strict=True):
            warnings |= dict.fromkeys(input_range_warnings(of_case, case.restoration, ensemble.plan))
        return PreparedInput(
            geometry=geometry,
            cases=tuple(cases),
            warnings=tuple(warnings),
        )

    def compute(
        self,
        prepared: PreparedInput,
        *,
        probabilities: MakeStore | None = None,
        scratch: Path | None = None,
        progress: ReportShare | None = None,
    ) -> Prediction:
        """Compute the networks, and restore their output to the image's own grid.

        Args:
            probabilities: makes the store that receives them; ``None``: they are not stored.
            scratch: folder for sums that are spilled to disk; ``None``: the system's temporary folder.
            progress: called after each batch of windows with the share of the windows that are done, 0..1; what it
                raises ends the computation.

        Raises:
            InsufficientMemoryError: the prediction does not fit into memory.
            OutputError: the disk is too small for what is spilled.
        """
        began = time.perf_counter()
        computer = LabelMapComputer(self.ensembles, device=self.device, window=self.window)
        with translate_compute_error():
            label_ZYX, store = computer.compute(prepared, probabilities, scratch, progress)
        with ExitStack() as on_failure:
            if store is not None:
                on_failure.callback(store.discard)
            prediction = self.describe(prepared, label_ZYX, store, seconds=time.perf_counter() - began)
            on_failure.pop_all()
        return prediction

    def describe(
        self,
        prepared: PreparedInput,
        label_ZYX: NDArray[np.integer[Any]],
        store: ProbabilityStore | None,
        *,
        seconds: float,
    ) -> Prediction:
        """Post-process a label map and measure its volumes; ``seconds`` were spent on it so far.

        Raises:
            InsufficientMemoryError: the steps of post-processing do not fit into memory.
        """
        began = time.perf_counter()
        if self.postprocessing:
            with translate_compute_error():
                label_ZYX = postprocess(label_ZYX, prepared.geometry, self.labels, self.postprocessing)
        voxels = voxel_counts(label_ZYX, self.labels)
        return Prediction(
            label_ZYX=label_ZYX,
            geometry=prepared.geometry,
            volumes_ml=volumes_ml(voxels, prepared.geometry),
            voxels=voxels,
            warnings=prepared.warnings,
            seconds=round(seconds + time.perf_counter() - began, 3),
            probabilities=store,
        )

    def batch_size(self, ensemble: PlanEnsemble) -> int:
        """Windows of ``ensemble`` that are computed together."""
        return windows_per_batch(self.window, plan=ensemble.plan, device=self.device)

    def flip_axes(self, ensemble: PlanEnsemble) -> Sequence[int]:
        """Axes that windows of ``ensemble`` are flipped along."""
        return ensemble.mirror_axes if self.window.tta else ()
