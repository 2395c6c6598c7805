"""A pipeline on a Triton Inference Server beside the same model in this process, on the same images.

decathlete export triton RUN --output repository --models pipeline --engine torch --threads 1
decathlete triton start repository
python benchmarks/triton_pipeline.py --model RUN --images images --engine torch --threads 1

Each round takes a few images at a time through all four ways in turn: one image after another here and on the server,
several together here (small ones share batches, as in `decathlete predict`), and by several clients. The ratios of a
round are from runs beside each other, so that other programs on the machine disturb both. With --server-pid, they are
of processor time, too, which other programs hardly change.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import psutil
import torch

from decathlete.export.exporters.triton import model_base_name
from decathlete.inference.batching.case_predictor import LocalCasePredictor
from decathlete.inference.batching.shared_batches import CaseRequest
from decathlete.inference.predict import Predictor
from decathlete.io.images import Image, find_inputs, read_channels
from decathlete.models.bundle import ModelBundle
from decathlete.serving.triton.client import TritonClient
from decathlete.serving.triton.comparison import volume_inputs
from decathlete.serving.triton.protocol import ClientOptions, InferenceRequest

Way = Callable[[list[Image]], None]


def predict_each(predictor: Predictor, images: list[Image]) -> None:
    """Segment one image after another in this process."""
    for image in images:
        predictor.compute(predictor.prepare(image))


def predict_together(predictor: Predictor, images: list[Image]) -> None:
    """Segment the images in this process as `decathlete predict` does: small ones share batches."""
    found = LocalCasePredictor(predictor).run(
        {str(number): image for number, image in enumerate(images)},
        read=lambda predictor, image: CaseRequest(prepared=predictor.prepare(image), payload=None),
        write=lambda _, result: result[1].label_ZYX.shape,
    )
    failed = [outcome.error for outcome in found if outcome.error is not None]
    if failed:
        raise SystemExit(failed[0])


def send(client: TritonClient, name: str, images: list[Image], clients: int) -> None:
    """Let clients send the images; each sends the next one when its last one is answered."""
    requests = [InferenceRequest(model=name, inputs=volume_inputs(i), outputs=("label", "report")) for i in images]
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client.infer, requests))


@dataclass
class Spent:
    """Seconds on the clock, and of processors in this process and the server's."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    def add(self, work: Callable[[], None], server: psutil.Process | None) -> None:
        """Add those of one call."""
        cpu_s, began = processor_seconds(server), time.perf_counter()
        work()
        self.wall_s += time.perf_counter() - began
        self.cpu_s += processor_seconds(server) - cpu_s


def processor_seconds(server: psutil.Process | None) -> float:
    """Of this process, and of the server and its children."""
    others = [] if server is None else [server, *server.children(recursive=True)]
    times = [process.cpu_times() for process in others]
    return time.process_time() + sum(each.user + each.system for each in times)


def measure_round(ways: dict[str, Way], images: list[Image], size: int, server: psutil.Process | None) -> list[Spent]:
    """Take all images, ``size`` at a time, through each way."""
    spent = [Spent() for _ in ways]
    for first in range(0, len(images), size):
        for way, total in zip(ways.values(), spent, strict=True):
            total.add(partial(way, images[first : first + size]), server)
    return spent


def share(values: list[float]) -> str:
    """Median, least and greatest."""
    return f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def show(rounds: list[list[Spent]], ways: dict[str, Way], clients: int, seconds: Callable[[Spent], float]) -> None:
    """Print a Markdown table of the rounds."""
    laps = [[seconds(spent) for spent in each] for each in zip(*rounds, strict=True)]
    each, one, together, several = laps
    rows = {f"{way}, s": values for way, values in zip(ways, laps, strict=True)}
    rows["overhead of the server, 1 client"] = [b / a - 1 for a, b in zip(each, one, strict=True)]
    rows[f"throughput of {clients} clients, of that here, together"] = [
        a / b for a, b in zip(together, several, strict=True)
    ]
    print("\n| | median (least to greatest) |\n|---|---|")
    print("\n".join(f"| {name} | {share(values)} |" for name, values in rows.items()), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--address", default="127.0.0.1:8001", help="of the gRPC service")
    parser.add_argument("--server-pid", type=int, help="process of the server")
    parser.add_argument("--engine", default="torch", help="that of the exported pipeline")
    parser.add_argument("--threads", type=int, default=1, help="those of the exported pipeline")
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    server = psutil.Process(given.server_pid) if given.server_pid else None
    predictor = Predictor.load(given.model, engine=given.engine, precision="fp32", device="cpu")
    files = list(find_inputs(given.images, n_channels=predictor.n_channels).values())[: given.cases]
    images = [read_channels(each) for each in files]
    name = f"{model_base_name(ModelBundle.load(given.model))}_pipeline"
    with TritonClient.connect(ClientOptions(address=given.address, at_once=given.clients)) as client:
        ways: dict[str, Way] = {
            "here, one by one": partial(predict_each, predictor),
            "server, 1 client": partial(send, client, name, clients=1),
            "here, together": partial(predict_together, predictor),
            f"server, {given.clients} clients": partial(send, client, name, clients=given.clients),
        }
        measure_round(ways, images[: given.clients], given.clients, server)  # warms up
        rounds = []
        for _ in range(given.rounds):
            rounds.append(measure_round(ways, images, given.clients, server))
            print(f"\n{len(images)} images, {len(rounds)} rounds: on the clock, then of processors", flush=True)
            show(rounds, ways, given.clients, lambda spent: spent.wall_s)
            if server is not None:
                show(rounds, ways, given.clients, lambda spent: spent.cpu_s)


if __name__ == "__main__":
    main()
