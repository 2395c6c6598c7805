"""The answer of ``/info/``: models, labels and the datastore."""

from __future__ import annotations

from typing import Any

from decathlete.serving.model_cache import ModelInfo
from decathlete.serving.monai_label.datastore import Datastore
from decathlete.serving.service import Service
from decathlete.version import __version__


def describe_app(service: Service, datastore: Datastore) -> dict[str, Any]:
    """Return the description that viewers read when they connect. Training and active learning are not offered."""
    infos = service.models.infos
    names = list(dict.fromkeys(label.name for info in infos.values() for label in info.labels))
    return {
        "name": "Decathlete",
        "description": "Automatic segmentation. Research use only.",
        "version": __version__,
        "labels": names,
        "models": {name: _describe_model(info) for name, info in infos.items()},
        "trainers": {},
        "strategies": {},
        "scoring": {},
        "train_stats": {},
        "datastore": datastore.count(),
        "config": {},
    }


def _describe_model(info: ModelInfo) -> dict[str, Any]:
    return {
        "type": "segmentation",
        "labels": {label.name: label.value for label in info.labels},
        "dimension": info.dimension,
        "description": info.description,
        "config": {},
    }
