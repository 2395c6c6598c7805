"""Write the figures of a benchmark as CSV, JSON, Markdown and a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from decathlete.core.files import atomic_path, write_text
from decathlete.serving.triton.benchmark import BenchmarkReport, BenchmarkRow

PUBLISHED_BATCHES = (1, 2, 4)
PUBLISHED = {
    "V100": (20.3, 25.2, 28.4),
    "A40": (22.2, 28.2, 32.0),
    "T4": (9.1, 9.8, 9.6),
    "A100": (26.1, 38.0, 48.8),
}
"""Inferences per second that the recipe published: FP16, windows of 4x128^3, in these batches, on each GPU."""
_MEMORY = {
    "none": "tensors over the connection",
    "system": "tensors in the system's shared memory",
    "cuda": "tensors in shared memory of the GPU",
}
_HEADER = (
    "mode", "batch", "clients", "mean ms", "50 % ms", "90 % ms", "95 % ms", "99 % ms", "inferences/s", "volumes/min",
    "queue ms", "input ms", "infer ms", "output ms", "mean batch", "requests", "stable",
)  # fmt: skip


def write_benchmark(report: BenchmarkReport, folder: Path) -> list[Path]:
    """Write ``benchmark.json``, ``.csv``, ``.md`` and ``.png`` into a folder, each whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    paths = [folder / f"benchmark{suffix}" for suffix in (".json", ".csv", ".md", ".png")]
    report.save(paths[0])
    write_text(paths[1], to_csv(report.rows))
    write_text(paths[2], to_markdown(report))
    with atomic_path(paths[3]) as partial:
        _plot(report, partial)
    return paths


def cells(row: BenchmarkRow) -> tuple[str, ...]:
    """Return the figures of a row as texts, in the order of the header."""
    latency = row.latency_ms
    times = (latency.mean, latency.p50, latency.p90, latency.p95, latency.p99)
    server = (row.queue_ms, row.input_ms, row.infer_ms, row.output_ms)
    return (
        row.mode,
        str(row.batch_size),
        str(row.clients),
        *(f"{value:.4g}" for value in (*times, row.inferences_per_s, row.volumes_per_min, *server, row.mean_batch)),
        str(row.requests),
        "yes" if row.stable else "no",
    )


def to_csv(rows: Sequence[BenchmarkRow]) -> str:
    """Return the rows as CSV with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    writer.writerows(cells(row) for row in rows)
    return text.getvalue()


def to_markdown(report: BenchmarkReport) -> str:
    """Return the rows as a Markdown table; of a server with a GPU also beside the recipe's published figures."""
    size = " x ".join(str(n) for n in report.input_shape)
    lines = [
        f"# {report.model}",
        "",
        f"{report.data}, inputs of {size}, {report.protocol}, {_MEMORY[report.shared_memory]}.",
        "",
        *_table([_HEADER, *[cells(row) for row in report.rows]]),
    ]
    measured = {row.batch_size: row.inferences_per_s for row in report.rows if row.mode == "offline"}
    if report.has_gpu and measured:
        lines += ["", "Inferences/s, beside those that were published for the recipe:", "", *_beside(measured, size)]
    return "\n".join(lines) + "\n"


def _beside(measured: Mapping[int, float], size: str) -> list[str]:
    """Return a table of inferences per second by batch size: measured, and published for the recipe.

    Args:
        size: of the windows that were measured.
    """
    batches = sorted({*measured, *PUBLISHED_BATCHES})
    rows = [("this server", size, measured)]
    for gpu, values in PUBLISHED.items():
        rows.append((f"{gpu}, FP16", "4 x 128 x 128 x 128", dict(zip(PUBLISHED_BATCHES, values, strict=True))))
    cells_of = [
        (name, window, *(f"{found[batch]:.4g}" if batch in found else "-" for batch in batches))
        for name, window, found in rows
    ]
    return _table([("GPU", "windows", *(f"batch {batch}" for batch in batches)), *cells_of])


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def _plot(report: BenchmarkReport, path: Path) -> None:
    """Draw latency over throughput, a line for each mode."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for mode in ("offline", "online"):
        rows = [row for row in report.rows if row.mode == mode]
        if rows:
            throughput = [row.inferences_per_s for row in rows]
            (line,) = axes.plot(throughput, [row.latency_ms.p50 for row in rows], marker="o", label=f"{mode}, 50 %")
            axes.plot(
                throughput, [row.latency_ms.p95 for row in rows], marker="x", ls="--", c=line.get_color(),
                label=f"{mode}, 95 %",
            )  # fmt: skip
            for row in rows:
                text = f"{row.batch_size if mode == 'offline' else row.clients}"
                axes.annotate(
                    text, (row.inferences_per_s, row.latency_ms.p50), xytext=(4, 4), textcoords="offset points"
                )
    axes.set(xlabel="inferences/s", ylabel="latency, ms", title=report.model, ylim=(0, None))
    axes.legend(title="numbers: batch or clients")
    figure.savefig(path, dpi=120)
