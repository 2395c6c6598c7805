"""Quantising an OpenVINO program to int8 after training, with NNCF: no weight is learned anew.

Weights get a scale per channel of a convolution, activations one per feature map, from the least and greatest values
that calibration windows show (Jacob et al. 2018, "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", section 2). Norms stay in fp32: in int8 they gained no time and lost accuracy.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from decathlete.inference.engines.program_engines import imported, openvino_core

_NORM = "MVN"  # OpenVINO's name of what all norms but batch norm become
_TELEMETRY = "openvino_telemetry"


def quantised(
    program: bytes, windows: Sequence[Tensor], *, window: tuple[int, ...], networks: int, ends_in_fp32: bool
) -> Any:
    """The program, its convolutions in int8, as an ``openvino.Model``.

    Weights use 7 of their 8 bits: processors without VNNI add two products in 16 bits, which 8 would overflow. So what
    is accepted on one processor holds on another.

    Args:
        program: in ONNX form, from :func:`~decathlete.models.onnx_graph.onnx_program`.
        windows: to calibrate on, each with a batch axis of 1.
        window: shape of one, without it.
        networks: in the program.
        ends_in_fp32: leave the first and the last convolution of each network as they are.

    Raises:
        OptionError: OpenVINO or NNCF is missing.
    """
    openvino, nncf = imported("openvino"), nncf_package()
    model = openvino_core().read_model(program)
    model.reshape([1, *window])
    kept = _ends(model, networks) if ends_in_fp32 else []
    with _progress_on_stderr():
        found = nncf.quantize(
            model,
            nncf.Dataset([window.numpy() for window in windows]),
            preset=nncf.QuantizationPreset.MIXED,  # activations with a zero point: leaky ReLU is not symmetric
            subset_size=len(windows),
            ignored_scope=nncf.IgnoredScope(names=kept, types=[_NORM], validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
        )
    found.reshape(openvino.PartialShape([-1, *window]))  # any number of windows again
    return found


def nncf_package() -> Any:
    """NNCF, kept from telling its maker over the network who quantises what, and from changing Python's loggers.

    Raises:
        OptionError: it is missing.
    """
    loggers, reporter = logging.getLoggerClass(), sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment] # import fails, and NNCF goes on without it
    try:
        nncf = imported("nncf")
    finally:
        logging.setLoggerClass(loggers)
        del sys.modules[_TELEMETRY]
        if reporter is not None:
            sys.modules[_TELEMETRY] = reporter
    # Not set_log_level, which would also set the level of handlers, whoever else they belong to.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


def _ends(model: Any, networks: int) -> list[str]:
    """The first and the last convolution of each network; ``onnx_program`` numbers operations as it writes them.

    OpenVINO gives the transposed ones names of its own, but these are never at the ends.
    """
    names = [op.get_friendly_name() for op in model.get_ops() if op.get_type_name() == "Convolution"]
    names.sort(key=lambda name: int(re.findall(r"_(\d+)", name)[0]))
    each = len(names) // networks
    return [name for i in range(networks) for name in (names[i * each], names[(i + 1) * each - 1])]


@contextlib.contextmanager
def _progress_on_stderr() -> Iterator[None]:
    """NNCF shows its progress where results belong."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
