"""Memory of the tensors of a training step at its peak, beside the estimate by which patches are planned.

Weights, gradients, momentum, feature maps and what backward keeps, with convolutions in bfloat16. Nothing is computed,
so that large networks need no GPU. What a GPU needs beside them (workspaces, fragments) is not counted.

python benchmarks/training_memory.py --networks plain,resenc-m,mednext-s,mednext-b,mednext-m,mednext-l --edge 64
"""

from __future__ import annotations

import argparse
from typing import get_args

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn.functional import cross_entropy

from decathlete.core.choices import NetworkName
from decathlete.networks.build import build_network
from decathlete.planning.architectures import find_architecture
from decathlete.planning.memory import training_bytes
from decathlete.planning.network_spec import NetworkSpec
from decathlete.planning.options import PlanOptions
from decathlete.planning.topology import make_topology

N_CLASSES = 3


def peak_bytes(spec: NetworkSpec, patch: tuple[int, ...], batch_size: int) -> int:
    """Return the memory of all tensors at the peak of two training steps, bytes."""
    network = build_network(spec).train()
    without_values = FakeTensorMode()
    for module in network.modules():
        for name, weight in module.named_parameters(recurse=False):
            module.register_parameter(name, nn.Parameter(without_values.from_tensor(weight.detach())))
        for name, buffer in module.named_buffers(recurse=False):
            module.register_buffer(name, without_values.from_tensor(buffer))
    with without_values:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.99, nesterov=True)
        tracker = MemTracker()
        tracker.track_external(network, optimizer)
        x = torch.empty(batch_size, spec.in_channels, *patch)
        with tracker:
            for _ in range(2):  # the first makes the momentum
                _step(network, optimizer, x)
                tracker.reset_mod_stats()
    (of_device,) = tracker.get_tracker_snapshot("peak").values()
    return max(of_device.values())


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        heads = network(x)
    losses = []
    for head in heads:
        logits = head.float()
        target = torch.zeros(logits.shape[0], *logits.shape[2:], dtype=torch.long)
        # the softmax stands for the Dice loss, which keeps the probabilities
        losses.append(cross_entropy(logits, target) - logits.softmax(1).mean())
    torch.stack(losses).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def main() -> None:
    """Print a row for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="plain", help=f"of {', '.join(get_args(NetworkName))}")
    parser.add_argument("--edge", type=int, default=64, help="voxels of the patch along each axis")
    parser.add_argument("--batch-size", type=int, default=2)
    options = parser.parse_args()
    patch = (options.edge,) * 3
    print("| network | estimated (GB) | tensors at the peak (GB) | ratio |\n|---|---|---|---|")
    for name in options.networks.split(","):
        planned = PlanOptions(network=name)
        architecture = find_architecture(planned)
        topology = make_topology((1, 1, 1), patch, pooling=architecture.pooling(planned))
        spec = architecture.plan_spec(topology, in_channels=1, out_channels=N_CLASSES, options=planned)
        estimate = training_bytes(spec, patch, options.batch_size)
        measured = peak_bytes(spec, patch, options.batch_size)
        print(f"| {name} | {estimate / 1e9:.2f} | {measured / 1e9:.2f} | {measured / estimate:.2f} |")


if __name__ == "__main__":
    main()
