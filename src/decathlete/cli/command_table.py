"""All commands, in the order in which a new user needs them."""

from __future__ import annotations

from decathlete.cli.command_groups import CommandSource

COMMANDS: dict[str, CommandSource] = {
    "run": CommandSource("decathlete.cli.run:run", "Run all steps for one fold or several."),
    "demo": CommandSource("decathlete.cli.run:demo", "Run all steps on a synthetic brain dataset."),
    "download": CommandSource("decathlete.cli.download:download", "Download a Medical Segmentation Decathlon task."),
    "convert": CommandSource("decathlete.cli.convert:convert", "Convert a dataset to another layout."),
    "check": CommandSource("decathlete.cli.data:check", "List every problem of a dataset with its solution."),
    "preprocess": CommandSource("decathlete.cli.data:preprocess", "Check and plan a dataset and prepare every case."),
    "train": CommandSource("decathlete.cli.models:train", "Train one fold of a prepared dataset."),
    "validate": CommandSource("decathlete.cli.models:validate", "Predict and score the held-out cases of a model."),
    "predict": CommandSource("decathlete.cli.models:predict", "Segment images."),
    "evaluate": CommandSource("decathlete.cli.scores:evaluate", "Compare predicted label maps with the true ones."),
    "report": CommandSource("decathlete.cli.scores:report", "Write report.html of a run."),
    "select": CommandSource("decathlete.cli.select:select", "Compare trained configurations and write the best model."),
    "benchmark": CommandSource("decathlete.cli.benchmark:benchmark", "Measure training steps or predictions."),
    "components": CommandSource(
        "decathlete.cli.components:components", "List losses, optimizers, networks and other components."
    ),
    "serve": CommandSource("decathlete.cli.serve:serve", "Segment images that people and programs send over HTTP."),
}

IMPORTS = {
    "nnunet": CommandSource(
        "decathlete.cli.imports:import_nnunet", "Import a trained nnU-Net v2 model with its folds."
    ),
    "dynunet": CommandSource(
        "decathlete.cli.imports:import_dynunet", "Import a checkpoint of NVIDIA's nnU-Net for PyTorch."
    ),
}
EXPORTS = {
    "nnunet": CommandSource(
        "decathlete.cli.exports:export_nnunet", "Export a model to a folder for prediction with nnU-Net v2."
    ),
    "onnx": CommandSource("decathlete.cli.exports:export_onnx", "Export a model to ONNX, for ONNX Runtime and others."),
    "openvino": CommandSource("decathlete.cli.exports:export_openvino", "Export a model to OpenVINO, Intel's runtime."),
    "triton": CommandSource(
        "decathlete.cli.exports:export_triton", "Export a model to a repository of Triton Inference Server."
    ),
}
TRITON = {
    "start": CommandSource("decathlete.cli.triton:start", "Start Triton Inference Server for a model repository."),
    "verify": CommandSource("decathlete.cli.triton:verify", "Compare the answers of a server with those of the model."),
    "benchmark": CommandSource(
        "decathlete.cli.triton:benchmark", "Measure latency and throughput of a model on a server."
    ),
}

# Commands of two words. In Python each is one function, e.g. decathlete.import_nnunet.
GROUPS: dict[str, tuple[str, dict[str, CommandSource]]] = {
    "import": ("Import models trained by other programs.", IMPORTS),
    "export": ("Export trained models to other programs.", EXPORTS),
    "triton": ("Start, verify and measure NVIDIA's Triton Inference Server.", TRITON),
}
