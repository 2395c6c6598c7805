"""Decathlete: nnU-Net for PyTorch. Every command has its function here; importing one loads only what it needs.

>>> import decathlete
>>> "run" in dir(decathlete)
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from decathlete.version import __version__

if TYPE_CHECKING:
    from decathlete.benchmarking.options import BenchmarkOptions
    from decathlete.benchmarking.run import benchmark
    from decathlete.core.sliding_window import SlidingWindow
    from decathlete.dataset.conversion.plain_sources import FileNames
    from decathlete.dataset.download import download
    from decathlete.dataset.manifest import read_dataset
    from decathlete.errors import DecathleteError
    from decathlete.evaluation.evaluate import evaluate
    from decathlete.inference.options import PredictOptions
    from decathlete.inference.predict import Predictor
    from decathlete.interop.dynunet import import_dynunet
    from decathlete.interop.dynunet_options import DynUNetOptions
    from decathlete.interop.nnunet import import_nnunet
    from decathlete.interop.nnunet_export import export_nnunet
    from decathlete.models.combine import combine_bundles
    from decathlete.models.record import PostprocessingStep
    from decathlete.planning.explain import explain
    from decathlete.planning.options import PlanOptions
    from decathlete.planning.overrides import preset_options
    from decathlete.training.config import TrainConfig
    from decathlete.workflows.check import check
    from decathlete.workflows.components import components
    from decathlete.workflows.convert import convert
    from decathlete.workflows.cross_validate import cross_validate
    from decathlete.workflows.demo import demo
    from decathlete.workflows.export_int8 import export_int8
    from decathlete.workflows.export_model import export_model, export_onnx, export_openvino
    from decathlete.workflows.predict import predict
    from decathlete.workflows.prepare_for_model import prepare_for_model
    from decathlete.workflows.preprocess import preprocess_task as preprocess
    from decathlete.workflows.report import make_report as report
    from decathlete.workflows.run import run
    from decathlete.workflows.train import train_config
    from decathlete.workflows.train import train_task as train
    from decathlete.workflows.validate import validate
    from decathlete.workflows.workspace import Workspace

# Public name -> where it lives. Loaded on first use, so that `decathlete --help` need not wait for torch.
_HOMES = {
    "BenchmarkOptions": ("decathlete.benchmarking.options", "BenchmarkOptions"),
    "DecathleteError": ("decathlete.errors", "DecathleteError"),
    "FileNames": ("decathlete.dataset.conversion.plain_sources", "FileNames"),
    "DynUNetOptions": ("decathlete.interop.dynunet_options", "DynUNetOptions"),
    "PlanOptions": ("decathlete.planning.options", "PlanOptions"),
    "PostprocessingStep": ("decathlete.models.record", "PostprocessingStep"),
    "PredictOptions": ("decathlete.inference.options", "PredictOptions"),
    "Predictor": ("decathlete.inference.predict", "Predictor"),
    "SlidingWindow": ("decathlete.core.sliding_window", "SlidingWindow"),
    "TrainConfig": ("decathlete.training.config", "TrainConfig"),
    "Workspace": ("decathlete.workflows.workspace", "Workspace"),
    "benchmark": ("decathlete.benchmarking.run", "benchmark"),
    "check": ("decathlete.workflows.check", "check"),
    "components": ("decathlete.workflows.components", "components"),
    "convert": ("decathlete.workflows.convert", "convert"),
    "combine_bundles": ("decathlete.models.combine", "combine_bundles"),
    "cross_validate": ("decathlete.workflows.cross_validate", "cross_validate"),
    "demo": ("decathlete.workflows.demo", "demo"),
    "download": ("decathlete.dataset.download", "download"),
    "evaluate": ("decathlete.evaluation.evaluate", "evaluate"),
    "explain": ("decathlete.planning.explain", "explain"),
    "export_int8": ("decathlete.workflows.export_int8", "export_int8"),
    "export_model": ("decathlete.workflows.export_model", "export_model"),
    "export_nnunet": ("decathlete.interop.nnunet_export", "export_nnunet"),
    "export_onnx": ("decathlete.workflows.export_model", "export_onnx"),
    "export_openvino": ("decathlete.workflows.export_model", "export_openvino"),
    "import_dynunet": ("decathlete.interop.dynunet", "import_dynunet"),
    "import_nnunet": ("decathlete.interop.nnunet", "import_nnunet"),
    "predict": ("decathlete.workflows.predict", "predict"),
    "prepare_for_model": ("decathlete.workflows.prepare_for_model", "prepare_for_model"),
    "preprocess": ("decathlete.workflows.preprocess", "preprocess_task"),
    "preset_options": ("decathlete.planning.overrides", "preset_options"),
    "read_dataset": ("decathlete.dataset.manifest", "read_dataset"),
    "report": ("decathlete.workflows.report", "make_report"),
    "run": ("decathlete.workflows.run", "run"),
    "train": ("decathlete.workflows.train", "train_task"),
    "train_config": ("decathlete.workflows.train", "train_config"),
    "validate": ("decathlete.workflows.validate", "validate"),
}

__all__ = [
    "BenchmarkOptions",
    "DecathleteError",
    "DynUNetOptions",
    "FileNames",
    "PlanOptions",
    "PostprocessingStep",
    "PredictOptions",
    "Predictor",
    "SlidingWindow",
    "TrainConfig",
    "Workspace",
    "__version__",
    "benchmark",
    "check",
    "combine_bundles",
    "components",
    "convert",
    "cross_validate",
    "demo",
    "download",
    "evaluate",
    "explain",
    "export_int8",
    "export_model",
    "export_nnunet",
    "export_onnx",
    "export_openvino",
    "import_dynunet",
    "import_nnunet",
    "predict",
    "prepare_for_model",
    "preprocess",
    "preset_options",
    "read_dataset",
    "report",
    "run",
    "train",
    "train_config",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'decathlete' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
