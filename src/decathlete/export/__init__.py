"""Trained models as programs of other runtimes: ONNX, OpenVINO."""
