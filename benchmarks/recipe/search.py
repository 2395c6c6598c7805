"""Which recipe learns fastest: arms that differ from the defaults in one thing, trained for the same time.

    python benchmarks/recipe/search.py --store prepared/Task04_Hippocampus/3d --budget 150 --output hippocampus.jsonl
    python benchmarks/recipe/search.py --table hippocampus.jsonl acdc.jsonl

The time is the processor's: how long an arm's step takes on one thread is measured first, and as many steps are made
as fit into the budget, so that other work on the machine changes nothing. Scored are the held-out cases of one fold
inside the training cases, on the network's grid. What has been measured is not measured again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from arms import ARMS, Arm

from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.pipeline import Augmenter
from decathlete.loading.patch_loader import PatchLoader
from decathlete.loading.samplers import SAMPLERS, SamplerContext
from decathlete.networks import unet_build
from decathlete.networks.build import build_network
from decathlete.networks.layout import preferred_memory_format
from decathlete.networks.precision import Precision, autocast, cpu_arithmetic
from decathlete.planning.adaptation import adapt_plan
from decathlete.planning.architectures import architecture_of
from decathlete.planning.compute_budget import ComputeBudget
from decathlete.planning.overrides import override
from decathlete.planning.plan import Plan
from decathlete.planning.topology import Topology, shrink
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.config import TrainConfig
from decathlete.training.objective import ema
from decathlete.training.objective.deep_supervision import DeepSupervision
from decathlete.training.objective.losses import LOSSES, LossContext
from decathlete.training.objective.optimizer_steps import build_optimizer
from decathlete.training.objective.optimizers import adamw
from decathlete.training.run import train

CPU = torch.device("cpu")
CALIBRATION_STEPS = 6
EPOCHS = 4
"""Of equal length; the curve has so many points."""


def main() -> None:
    """Train what is missing, or print the table."""
    options = _parser().parse_args()
    if options.table:
        print(table([_records(path) for path in options.table], names=[path.stem for path in options.table]))
        return
    torch.set_num_threads(1)
    store = PreparedStore.open(options.store)
    for seed in options.seeds:
        for name in options.arms or ARMS:
            done = {(r["arm"], r["seed"]) for r in _records(options.output)}
            if (name, seed) not in done:
                found = _run(store, name, seed, options)
                with options.output.open("a") as file:
                    file.write(json.dumps(found) + "\n")
                print(found, flush=True)


def _run(store: PreparedStore, name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    arm = ARMS[name]
    plan = _plan(store.plan, arm, options.budget, options.precision, n_cases=len(store.case_ids))
    step_s = _step_seconds(store, plan, options)
    steps = max(EPOCHS, round(options.budget / step_s))
    config = TrainConfig(
        epochs=EPOCHS,
        steps_per_epoch=steps // EPOCHS,
        seed=seed,
        val_cases=options.val_cases,
        val_every=2,
        augmentation=_augmentation(arm, plan),
        loggers=(),
        precision=options.precision,
        **arm.config,
    )
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder, _patched(arm):
        result = train(store, options.fold, Path(folder) / "run", config, plan=plan)
    return {
        "arm": name,
        "seed": seed,
        "dice": result.mean_dice,
        "best": result.best_dice,
        "steps": result.steps,
        "step_s": step_s,
        "cpu_s": time.process_time() - began,
        "patch": plan.patch_size,
        "batch": plan.batch_size,
        "features": plan.network.features,
        "budget": options.budget,
        "precision": options.precision,
        "fold": options.fold,
    }


def _plan(plan: Plan, arm: Arm, budget_s: float, precision: Precision, *, n_cases: int) -> Plan:
    """The plan fitted to the budget, with the arm's changes."""
    budget = ComputeBudget(
        device="cpu", max_time_s=arm.sized_for * budget_s, threads=1, arithmetic=cpu_arithmetic(precision)
    )
    plan = adapt_plan(plan, budget, n_cases=n_cases)
    plan = override(plan, arm.plan)
    network, topology = (
        plan.network,
        Topology(patch_size=plan.patch_size, strides=plan.network.strides, kernels=plan.network.kernels),
    )
    for _ in range(arm.shrink):
        topology = shrink(plan.network_spacing, topology, [1 / gap for gap in plan.network_spacing])
        network = architecture_of(network).replanned(topology)
    n = min(len(arm.first), len(network.features))
    network = network.revised(features=(*arm.first[:n], *network.features[n:]))
    return plan.revised(patch_size=topology.patch_size, network=network.model_dump())


def _augmentation(arm: Arm, plan: Plan) -> AugmentationConfig:
    default = AugmentationConfig.default(plan.dims)
    if arm.strength == 1:
        return default.mirroring_within(plan.mirror_axes, plan.dims)
    weaker = {
        name: {"probability": arm.strength * default[name].probability} for name in default.names if name != "mirroring"
    }
    return default.revised(**weaker).mirroring_within(plan.mirror_axes, plan.dims)


@contextmanager
def _patched(arm: Arm) -> Iterator[None]:
    """What no option changes, changed for this run."""
    share, torch_adamw, draw_weights = ema.EMA_WINDOW_SHARE, adamw.AdamW, unet_build.draw_weights

    def draw_smaller(network: Any, **options: Any) -> None:
        draw_weights(network, **options)
        for head in network.heads:
            head.weight.data.mul_(arm.head_scale)

    try:
        unet_build.draw_weights = draw_smaller
        if arm.ema_share is not None:
            ema.EMA_WINDOW_SHARE = arm.ema_share
        if arm.betas is not None:
            adamw.AdamW = lambda *args, **kwargs: torch_adamw(*args, betas=arm.betas, **kwargs)
        yield
    finally:
        ema.EMA_WINDOW_SHARE, adamw.AdamW, unet_build.draw_weights = share, torch_adamw, draw_weights


def _step_seconds(store: PreparedStore, plan: Plan, options: argparse.Namespace) -> float:
    """Processor time of one step, reading and augmentation included; measured once for each size of the work."""
    size = [list(plan.patch_size), plan.batch_size, list(plan.network.features), plan.network.heads]
    path = options.output.with_suffix(".steps.json")
    known = json.loads(path.read_text()) if path.is_file() else []
    for entry in known:
        if entry["size"] == size:
            return float(entry["step_s"])
    step_s = _measured(store, plan, options)
    path.write_text(json.dumps([*known, {"size": size, "step_s": step_s}]))
    return step_s


def _measured(store: PreparedStore, plan: Plan, options: argparse.Namespace) -> float:
    augmenter = Augmenter(_augmentation(Arm(), plan), patch_size=plan.patch_size, seed=0)
    network = build_network(plan.network, seed=0)
    network.set_layout(preferred_memory_format(CPU, plan.dims, options.precision))
    config = TrainConfig()
    loss = DeepSupervision(LOSSES.build(config.loss, LossContext(labels=plan.labels)), heads=plan.network.heads)
    optimizer = build_optimizer(network.parameters(), config.optimizer)
    cases = store.splits.folds[options.fold].train
    steps = range(1 + CALIBRATION_STEPS)
    context = SamplerContext(case_ids=cases, patch_size=plan.patch_size, global_batch=plan.batch_size, seed=0)
    sampler = SAMPLERS.build(config.sampler, context)
    loader = PatchLoader(store, sampler, augmenter, batch_size=plan.batch_size, steps=steps)
    seconds = []
    began = time.process_time()
    for batch in loader:
        image, label = augmenter(batch, "cpu")
        optimizer.zero_grad()
        with autocast(options.precision, CPU):
            found = loss(network(image), label)
        found.backward()
        optimizer.step()
        seconds.append(time.process_time() - began)
        began = time.process_time()
    return min(seconds[1:])  # other work on the machine only makes steps slower


def table(datasets: Sequence[Sequence[dict[str, Any]]], *, names: Sequence[str]) -> str:
    """Markdown: arm by arm the mean of the seeds, their spread, and the difference to the defaults."""
    head = "| arm | " + " | ".join(f"{name}: Dice (seeds), steps | difference" for name in names) + " |"
    lines = [head, "|---" * (1 + 2 * len(names)) + "|"]
    for arm in ARMS:
        cells = [cell for records in datasets for cell in _cells(records, arm)]
        if any(cells):
            lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(records: Sequence[dict[str, Any]], arm: str) -> tuple[str, str]:
    mine = {r["seed"]: r["dice"] for r in records if r["arm"] == arm}
    base = {r["seed"]: r["dice"] for r in records if r["arm"] == "default"}
    if not mine:
        return "", ""
    steps = next(r["steps"] for r in records if r["arm"] == arm)
    spread = f" ± {statistics.stdev(mine.values()):.3f}" if len(mine) > 1 else ""
    paired = [mine[seed] - base[seed] for seed in mine if seed in base]
    difference = f"{statistics.mean(paired):+.3f}" if paired and arm != "default" else ""
    return f"{statistics.mean(mine.values()):.3f}{spread} ({len(mine)}), {steps}", difference


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="folder of a prepared dataset")
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), metavar="ARM", help=", ".join(ARMS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[1])
    parser.add_argument("--budget", type=float, default=150.0, help="processor seconds on one thread")
    parser.add_argument(
        "--precision", choices=["fp32", "bf16"], default="fp32", help="bf16: where the CPU computes in it"
    )
    parser.add_argument("--fold", type=int, default=1)
    parser.add_argument("--val-cases", type=int, default=20)
    parser.add_argument("--output", type=Path, help="records, one a line; those that are there are kept")
    parser.add_argument("--table", type=Path, nargs="*", help="print the table of these records")
    return parser


if __name__ == "__main__":
    main()
