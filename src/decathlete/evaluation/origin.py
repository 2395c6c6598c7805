"""Origin of scores: model, settings of its prediction, and cases. It decides whether scores may be kept."""

from __future__ import annotations

from pydantic import JsonValue

from decathlete.core.schema import Schema


class ScoresOrigin(Schema):
    """Inputs of scores: equal origins and equal metrics give equal scores.

    Attributes:
        models: digests of the model bundles that predicted.
        prediction: all other settings of the prediction (flips, overlap, precision, ...).
        truths: digest of the cases' ids, their label maps and the declared classes.
        images: digest of the cases' images.
    """

    models: tuple[str, ...]
    prediction: dict[str, JsonValue]
    truths: str
    images: str

    def differences(self, other: ScoresOrigin) -> list[str]:
        """Describe the differences to another origin."""
        parts = {
            "another model": self.models != other.models,
            "other settings of the prediction": self.prediction != other.prediction,
            "other label maps": self.truths != other.truths,
            "other images": self.images != other.images,
        }
        return [words for words, differs in parts.items() if differs]
