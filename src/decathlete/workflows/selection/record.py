"""``selection.json``: the comparison of configurations, the decisions on post-processing, and their reasons."""

from __future__ import annotations

import operator
from typing import Literal

from pydantic import Field, JsonValue

from decathlete.core.geometry import Triple, Unit
from decathlete.core.schema import Schema
from decathlete.evaluation.comparison import Difference
from decathlete.io.format_settings import ImageFormats
from decathlete.models.record import PostprocessingStep

SELECTION = "selection.json"


class CandidateRecord(Schema):
    """One configuration, or a pair whose probabilities are averaged.

    Attributes:
        name: names of the configurations, joined by ``+``.
        configurations: names of the configurations.
        folds: folds whose networks the bundle would contain.
        networks: number of networks of the bundle.
        seconds_per_case: estimated time of a prediction by the bundle: for each configuration, the median time of
            the held-out cases (one fold's model) times the number of folds. ``None``: unknown.
        dice: mean Dice of the held-out cases, as ``scores.json`` of the candidate has it; ``None``: not computed.
        classes: mean Dice of each class or region.
        behind: mean Dice of this candidate compared with that of the selected one; ``None``: it is the selected one,
            or it has no scores.
        scores: file with the scores of each case, relative to the folder of the selection.
        excluded: why it could not be selected.
    """

    name: str
    configurations: tuple[str, ...]
    folds: tuple[int, ...]
    networks: int
    seconds_per_case: float | None = None
    dice: float | None = None
    classes: dict[str, float | None] = {}
    behind: Difference | None = None
    scores: str | None = None
    excluded: str | None = None


class StepDecision(Schema):
    """Whether one step of post-processing is used for one structure.

    Attributes:
        structure: class or region.
        step: the step with its settings.
        gain: change of the structure's mean Dice over the held-out cases; ``None``: it has no Dice.
        helps: whether the held-out cases say that it helps.
        used: whether it is part of the model.
        reason: why, or why not.
    """

    structure: str
    step: PostprocessingStep
    gain: Difference | None
    helps: bool
    used: bool = False
    reason: str


class PostprocessingDecision(Schema):
    """All decisions on post-processing.

    Attributes:
        steps: steps of the model, in the order in which they run; empty: none.
        tried: every step that was tried, used or not.
        total: mean Dice of the held-out cases with all used steps, compared with that without; ``None``: none is used.
        note: why nothing was decided, if so.
    """

    steps: tuple[PostprocessingStep, ...] = ()
    tried: tuple[StepDecision, ...] = ()
    total: Difference | None = None
    note: str | None = None


class Selection(Schema):
    """A finished selection.

    Attributes:
        key: digest of everything that the selection depends on.
        folds: folds whose held-out cases were compared.
        held_out: fold -> its held-out cases.
        dataset_root: folder of the raw dataset.
        spacing: z, y, x in mm, that files without a spacing are read with.
        image_formats: settings of image formats that raw files are read with, by the format's name.
        unit: of lengths in the files.
        annotated: case id -> annotated classes, of cases in which not all classes were annotated.
        max_members: greatest number of networks that was allowed.
        selected: name of the selected candidate.
        reason: why it was selected, in words.
        candidates: all of them, the best first.
        device: where the held-out cases were predicted, for ``seconds_per_case``.
    """

    version: Literal[1] = 1
    key: str
    dataset: str
    dataset_root: str
    spacing: Triple | None = None
    image_formats: ImageFormats = Field(default={}, exclude_if=operator.not_)
    unit: Unit = Field(default="mm", exclude_if=lambda unit: unit == "mm")
    annotated: dict[str, tuple[str, ...]] = Field(default={}, exclude_if=lambda cases: not cases)
    folds: tuple[int, ...]
    held_out: dict[int, tuple[str, ...]]
    max_members: int
    selected: str
    reason: str
    candidates: tuple[CandidateRecord, ...]
    postprocessing: PostprocessingDecision
    device: str

    @property
    def selected_candidate(self) -> CandidateRecord:
        """The record of the selected candidate."""
        return next(candidate for candidate in self.candidates if candidate.name == self.selected)

    def provenance(self) -> dict[str, JsonValue]:
        """Return what the record of the selected model keeps of the selection."""
        total = self.postprocessing.total
        return {
            "selected": self.selected,
            "held_out_dice": self.selected_candidate.dice,
            "held_out_dice_with_postprocessing": None if total is None else total.after,
            "postprocessing": [
                {"step": decision.step.model_dump(mode="json"), "gain": decision.gain.model_dump(mode="json")}
                for decision in self.postprocessing.tried
                if decision.used and decision.gain is not None
            ],
        }
