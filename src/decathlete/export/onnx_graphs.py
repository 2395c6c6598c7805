"""Change the graph of an ONNX program: the sizes that it accepts, and its precision."""

from __future__ import annotations

from typing import Any

import torch

from decathlete.networks.onnx_program import INPUT, OUTPUT, require_onnx

_HALF = {"fp16": (torch.float16, "FLOAT16"), "bf16": (torch.bfloat16, "BFLOAT16")}


def make_axes_dynamic(model: Any) -> None:
    """Let an ``onnx.ModelProto`` accept windows of any size that its network can halve."""
    for value in (*model.graph.input, *model.graph.output):
        for place, axis in enumerate(value.type.tensor_type.shape.dim):
            if place >= 2:
                axis.Clear()
                axis.dim_param = f"size{place - 2}"


def convert_to_half(model: Any, precision: str) -> None:
    """Let an ``onnx.ModelProto`` compute in ``fp16`` or ``bf16``; its input and output stay float32."""
    onnx = require_onnx()
    single, half = onnx.TensorProto.FLOAT, getattr(onnx.TensorProto, _HALF[precision][1])
    graph = model.graph
    tensors = [*graph.initializer, *(a.t for node in graph.node for a in node.attribute if a.HasField("t"))]
    for tensor in tensors:
        if tensor.data_type == single:
            tensor.CopyFrom(_to_half(onnx, tensor, precision))
    inside = {graph.input[0].name: f"{INPUT}_{precision}", graph.output[0].name: f"{OUTPUT}_{precision}"}
    for node in graph.node:
        _rename_and_cast(node, inside, single, half)
    (first, first_half), (last, last_half) = inside.items()
    begin = onnx.helper.make_node("Cast", [first], [first_half], to=half, name=f"to_{precision}")
    end = onnx.helper.make_node("Cast", [last_half], [last], to=single, name="to_fp32")
    nodes = [begin, *graph.node, end]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)


def _to_half(onnx: Any, tensor: Any, precision: str) -> Any:
    """Return a tensor of an ``onnx.ModelProto``, rounded."""
    dtype, name = _HALF[precision]
    values = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()).to(dtype)
    content = values.contiguous().view(torch.int16).numpy().tobytes()
    return onnx.helper.make_tensor(tensor.name, getattr(onnx.TensorProto, name), list(tensor.dims), content, raw=True)


def _rename_and_cast(node: Any, inside: dict[str, str], single: int, half: int) -> None:
    """Connect a node to the rounded input and output, and let a cast to float32 round instead."""
    node.input[:] = [inside.get(name, name) for name in node.input]
    node.output[:] = [inside.get(name, name) for name in node.output]
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == single:
            attribute.i = half
