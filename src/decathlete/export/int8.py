"""Quantise an OpenVINO program to int8 with NNCF, without training.

Weights get a scale per channel of a convolution, activations one per feature map, from the least and greatest values
in calibration windows (Jacob et al. 2018, "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", section 2). Norms stay fp32: in int8 they were not faster and less exact.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from decathlete.core.extras import import_optional
from decathlete.inference.engines.openvino import import_openvino, openvino_core

_NORM = "MVN"  # OpenVINO's operation for all norms but batch norm
_TELEMETRY = "openvino_telemetry"


def quantize(
    program: bytes, windows: Sequence[Tensor], *, window: tuple[int, ...], networks: int, ends_in_fp32: bool
) -> Any:
    """Return the program with int8 convolutions, as an ``openvino.Model``.

    Weights use 7 of their 8 bits: processors without VNNI add two products in 16 bits, which 8 bits would overflow. So
    a program has the same accuracy on every processor.

    Args:
        program: in ONNX form, from :func:`~decathlete.networks.onnx_program.onnx_program`.
        windows: to calibrate on, each with a batch axis of 1.
        window: shape of a window without the batch axis.
        networks: number of networks in the program.
        ends_in_fp32: keep the first and the last convolution of each network in fp32.

    Raises:
        MissingPackageError: OpenVINO or NNCF is missing.
    """
    openvino, nncf = import_openvino(), import_nncf()
    model = openvino_core().read_model(program)
    model.reshape([1, *window])
    in_fp32 = _ends(model, networks) if ends_in_fp32 else []
    with _progress_on_stderr():
        quantized = nncf.quantize(
            model,
            nncf.Dataset([window.numpy() for window in windows]),
            preset=nncf.QuantizationPreset.MIXED,  # activations with a zero point: leaky ReLU is not symmetric
            subset_size=len(windows),
            ignored_scope=nncf.IgnoredScope(names=in_fp32, types=[_NORM], validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
        )
    quantized.reshape(openvino.PartialShape([-1, *window]))  # any number of windows again
    return quantized


def import_nncf() -> Any:
    """Return NNCF, without its telemetry over the network and without its change to Python's logger class.

    Raises:
        MissingPackageError: it is missing, or does not load.
    """
    loggers, reporter = logging.getLoggerClass(), sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment] # its import fails, and NNCF works without it
    try:
        nncf = import_optional("nncf", title="NNCF", extra="int8", alternative="leave out --int8")
    finally:
        logging.setLoggerClass(loggers)
        del sys.modules[_TELEMETRY]
        if reporter is not None:
            sys.modules[_TELEMETRY] = reporter
    # Not set_log_level, which also changes handlers that belong to others.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


def _ends(model: Any, networks: int) -> list[str]:
    """Return the names of the first and the last convolution of each network.

    ``onnx_program`` numbers operations in order. OpenVINO renames transposed convolutions, but these are never at the
    ends.
    """
    names = [op.get_friendly_name() for op in model.get_ops() if op.get_type_name() == "Convolution"]
    names.sort(key=lambda name: int((re.findall(r"_(\d+)", name) or ["0"])[0]))
    each = len(names) // networks
    return [name for i in range(networks) for name in (names[i * each], names[(i + 1) * each - 1])]


@contextlib.contextmanager
def _progress_on_stderr() -> Iterator[None]:
    """Redirect NNCF's progress, which it prints to standard output."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
