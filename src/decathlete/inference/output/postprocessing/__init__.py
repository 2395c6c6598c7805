"""Steps of post-processing, by name. A step changes the mask of one structure of a finished label map."""

from __future__ import annotations

from decathlete.models.postprocessing import POSTPROCESSING, Postprocessing, PostprocessingSettings

__all__ = ["POSTPROCESSING", "Postprocessing", "PostprocessingSettings"]
