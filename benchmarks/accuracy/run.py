"""Dice by training time: Decathlete and nnU-Net v2 with the same folds, cores and wall-clock time.

    make peers                                         # the environment of nnU-Net, once
    .venv/bin/python benchmarks/accuracy/run.py --data data --scratch /tmp/ladder --output benchmarks/results/ladder \\
        --datasets Task04_Hippocampus ACDC --minutes 2 10 40

Trains the cells that the record in ``--output`` lacks, so that it can be stopped and repeated, then writes the table
and the plot. ``--table-only`` trains nothing. nnU-Net trains in each of
``--nnunet-precision``, and the better one counts. On AMX tiles, bf16 crashes in the first step of ACDC (3D, SIGSEGV).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[:2]]

from cells import DATASETS, OURS, Cell, CellResult, append_result, make_cells, missing, read_results
from ladder_tables import markdown
from prepare_data import dataset_folder, held_out_folder, prepare_data

from common.machine import code_version, machine
from common.processes import WorkFailed, run_alone
from decathlete.dataset.manifest import read_dataset
from decathlete.errors import DecathleteError
from decathlete.evaluation.evaluate import evaluate
from decathlete.evaluation.scores import Scores

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
RECORD, TABLE, PLOT = "cells.jsonl", "README.md", "dice.png"


def main() -> int:
    """Train the missing cells and write table and plot; return 1 if a cell failed."""
    options = _parser().parse_args()
    record = options.output / RECORD
    peer_seeds = [] if options.without_nnunet else options.nnunet_seeds
    cells = make_cells(
        options.datasets,
        options.minutes,
        options.seeds,
        peer_seeds=peer_seeds,
        peer_precisions=options.nnunet_precision,
    )
    failed = 0
    for cell in [] if options.table_only else missing(cells, read_results(record)):
        try:
            result = _measure(cell, options)
        except (WorkFailed, DecathleteError) as problem:
            print(f"failed: {cell}\n{problem}", file=sys.stderr, flush=True)
            failed += 1
            continue
        append_result(record, result)
        print(f"{cell}: {_shown(result.structures)}", file=sys.stderr, flush=True)
    results = read_results(record)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / TABLE).write_text(markdown(results, plot=PLOT))
    from ladder_plot import plot  # matplotlib only now

    plot(options.output / PLOT, results)
    return 1 if failed else 0


def _measure(cell: Cell, options: argparse.Namespace) -> CellResult:
    """Train one cell and score its held-out cases.

    Raises:
        WorkFailed: the program ended with an error.
        DecathleteError: the dataset is missing, or predictions cannot be scored.
    """
    scratch = options.scratch.resolve() / cell.dataset
    prepare_data(cell.dataset, options.data.resolve(), scratch)
    task = {
        "cell": vars(cell),
        "scratch": str(scratch),
        "workers": len(options.cores),
    }
    if cell.program == OURS:
        done = run_alone(HERE / "train_ours.py", task, python=Path(sys.executable), cores=options.cores)
        scores = Scores.load(Path(done["scores"]))
    else:
        python = options.peers / "bin" / "python"
        if not python.is_file():
            sys.exit(f"no environment of nnU-Net in {options.peers}: make it with `make peers`, or give --peers")
        done = run_alone(HERE / "train_nnunet.py", task, python=python, cores=options.cores)
        scores = _score(cell, Path(done["predictions"]), scratch)
    patients = json.loads((scratch / "patients.json").read_text())
    dice = {case.case_id: case.values["dice"] for case in scores.cases}
    return CellResult(
        cell=cell,
        dice=dice,
        structures={summary.name: summary.mean("dice") for summary in scores.classes},
        patients={case: patients[case] for case in dice},
        minutes_in_all=done["minutes_in_all"],
        notes={"machine": machine(options.cores), "code": code_version(ROOT), **done["notes"]},
    )


def _score(cell: Cell, predictions: Path, scratch: Path) -> Scores:
    """Score nnU-Net's label maps as ours are scored."""
    labels = read_dataset(dataset_folder(scratch)).labels
    return evaluate(predictions, held_out_folder(scratch, cell.fold), labels=labels, metrics=["dice"], workers=1)


def _shown(structures: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {value:.3f}" if value is not None else f"{name} -" for name, value in structures.items())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the datasets")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for prepared data and models")
    parser.add_argument("--output", type=Path, required=True, help="folder of record, table and plot")
    parser.add_argument("--datasets", nargs="+", choices=list(DATASETS), default=["Task04_Hippocampus", "ACDC"])
    parser.add_argument("--minutes", nargs="+", type=float, default=[2, 10, 40])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2], help="of Decathlete")
    parser.add_argument("--nnunet-seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--nnunet-precision", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--without-nnunet", action="store_true")
    parser.add_argument("--table-only", action="store_true", help="write table and plot of the record")
    parser.add_argument("--peers", type=Path, default=Path(os.environ.get("DECATHLETE_PEERS", ROOT / ".venv-peers")))
    parser.add_argument("--cores", type=_cores, default=sorted(os.sched_getaffinity(0)), help="0,1")
    return parser


def _cores(text: str) -> Sequence[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
