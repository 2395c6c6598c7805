"""One window by each engine, in turn: torch, OpenVINO, ONNX Runtime. Medians of five, as a Markdown table.

python benchmarks/engines.py --dims 3 --features 32,64,128,256,320 --window 64 --threads 1
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch

from decathlete.inference.engines import Engine
from decathlete.inference.engines.onnx import OnnxEngine
from decathlete.inference.engines.openvino import OpenVinoEngine
from decathlete.inference.engines.torch import TorchEngine
from decathlete.networks.build import build_network
from decathlete.networks.onnx_program import onnx_program
from decathlete.networks.precision import Precision
from decathlete.networks.unet_spec import UNetSpec

ROUNDS = 5


def spec_of(dims: int, features: tuple[int, ...]) -> UNetSpec:
    """nnU-Net's plain network of one channel and three classes, with kernels of 3 and strides of 2 everywhere."""
    n = len(features)
    return UNetSpec(
        dims=dims,
        in_channels=1,
        out_channels=3,
        kernels=((3,) * dims,) * n,
        strides=((1,) * dims, *((2,) * dims,) * (n - 1)),
        features=features,
        encoder_convs=(2,) * n,
        decoder_convs=(2,) * (n - 1),
    )


def engines_of(spec: UNetSpec, patch: tuple[int, ...], precision: Precision) -> dict[str, Engine]:
    """With the same weights; ONNX Runtime has fp32 alone."""
    network = build_network(spec, seed=1).eval()
    window = (spec.in_channels, *patch)
    program = onnx_program([network], window=window, n_outputs=spec.out_channels)
    return {
        "torch": TorchEngine(network, device="cpu", precision=precision),
        "openvino": OpenVinoEngine(program, window=window, precision=precision),
        "onnx": OnnxEngine(program, window=window),
    }


def seconds(engine: Engine, windows: torch.Tensor) -> float:
    """Of one call."""
    began = time.perf_counter()
    engine(windows)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, choices=(2, 3), default=3)
    parser.add_argument("--features", default="32,64,128,256,320")
    parser.add_argument("--window", type=int, default=64, help="edge, voxels")
    parser.add_argument("--batch", type=int, default=1, help="windows in a call")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    patch = (given.window,) * given.dims
    spec = spec_of(given.dims, tuple(map(int, given.features.split(","))))
    engines = engines_of(spec, patch, given.precision)
    windows = torch.rand(given.batch, 1, *patch, generator=torch.Generator().manual_seed(0))
    expected = engines["torch"](windows)
    apart = {name: float((e(windows) - expected).abs().max() / expected.abs().max()) for name, e in engines.items()}
    laps: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            laps[name].append(seconds(engine, windows))
    print("| engine | median s | least | most | torch / this | logits apart |\n|---|---|---|---|---|---|")
    for name, found in laps.items():
        ratio = median(laps["torch"]) / median(found)
        spread = f"{median(found):.3f} | {min(found):.3f} | {max(found):.3f}"
        print(f"| {name} | {spread} | {ratio:.2f} | {apart[name]:.1e} |")


if __name__ == "__main__":
    main()
