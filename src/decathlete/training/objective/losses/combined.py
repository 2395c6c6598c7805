"""A weighted sum of losses."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from decathlete.core.component_field import ComponentField
from decathlete.core.registry import ComponentSettings
from decathlete.core.schema import Schema
from decathlete.training.objective.losses import LOSSES, LossContext

LossSettings = Annotated[ComponentSettings, ComponentField(LOSSES)]


class Term(Schema):
    """One loss of a sum: ``{"loss": {"name": "tversky", "alpha": 0.2}, "weight": 0.5}``."""

    loss: LossSettings
    weight: float = Field(default=1.0, gt=0)


def _default_terms() -> tuple[Term, ...]:
    return (Term.model_validate({"loss": "dice"}), Term.model_validate({"loss": "topk"}))


@LOSSES.register("combined")
class CombinedLoss(nn.Module):
    """Weighted sum of any losses, each with its own settings.

    ``loss: {name: combined, terms: [{loss: dice}, {loss: {name: topk, share: 0.2}, weight: 0.5}]}`` in a file of
    options.
    """

    supports_partial_labels: bool = False
    """Whether all terms do."""

    class Settings(ComponentSettings):
        terms: tuple[Term, ...] = Field(default_factory=_default_terms, min_length=1)
        """The losses: name, or name with settings (``loss``), and weight (``weight``, 1 by default)."""

    def __init__(self, settings: Settings, context: LossContext) -> None:
        super().__init__()
        self.losses = nn.ModuleList(LOSSES.build(term.loss, context) for term in settings.terms)  # type: ignore[misc]
        self.weights = tuple(term.weight for term in settings.terms)
        self.supports_partial_labels = all(getattr(loss, "supports_partial_labels", False) for loss in self.losses)

    def forward(self, logits_BK: Tensor, label_B: Tensor) -> Tensor:
        """See :class:`~decathlete.training.objective.losses.Loss`."""
        parts = [weight * loss(logits_BK, label_B) for weight, loss in zip(self.weights, self.losses, strict=True)]
        total: Tensor = sum(parts[1:], start=parts[0])
        return total
