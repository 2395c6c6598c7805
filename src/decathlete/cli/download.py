"""Command ``download`` and its progress bar."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decathlete.cli.options import PLACES
from decathlete.cli.terminal import echo
from decathlete.cli.terminal_bar import TerminalBar
from decathlete.core.choices import BucketRegion
from decathlete.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

LINE_EVERY_S = 15.0


def download(
    task: Annotated[
        str, typer.Option("--task", help="Decathlon task: its number (04) or name (Task04_..., hippocampus).")
    ],
    region: Annotated[
        BucketRegion | None,
        typer.Option("--region", show_default="us", help="Region of the public bucket: USA or Europe."),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            show_default="the public bucket",
            help="Mirror: https://, file:// or path of the archive or of its folder.",
        ),
    ] = None,
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="DIR",
            rich_help_panel=PLACES,
            help="Folder of the raw datasets; the task is stored in it.",
        ),
    ] = Path("data"),
) -> None:
    """Download a Medical Segmentation Decathlon task. A stopped download is resumed when the command is repeated."""
    from rich.console import Console

    from decathlete.dataset.download import download as download_task

    console = Console(stderr=True, highlight=False)
    with byte_bar(console) as bar:
        folder = download_task(task, data=data, region=region, url=url, progress=bar.bytes, log=bar.log)
    echo(folder)


@contextmanager
def byte_bar(console: Console) -> Iterator[ByteBar]:
    """Provide a progress bar that is stopped also after an error."""
    bar = ByteBar(console)
    try:
        yield bar
    finally:
        bar.stop()


class ByteBar(TerminalBar):
    """Shows one progress bar on a terminal; writes a line every 15 seconds to a log."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, "download")
        self._began: tuple[float, int] | None = None  # time of the first piece, s, and bytes that were there before
        self._last_line = 0.0

    def log(self, line: str) -> None:
        """Print a message about a step or a pause."""
        self._console.print(printable(line), soft_wrap=True, markup=False)

    def bytes(self, done: int, total: int | None) -> None:
        """Show the number of bytes after each piece."""
        if self._console.is_terminal:
            self._draw(done, total)
        else:
            self._line(done, total)

    def _make_progress(self) -> Progress:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )

    def _line(self, done: int, total: int | None) -> None:
        from decathlete.core.durations import format_duration
        from decathlete.core.sizes import format_bytes

        now = time.monotonic()
        if self._began is None:
            self._began, self._last_line = (now, done), now
        if done != total and now - self._last_line < LINE_EVERY_S:
            return
        self._last_line = now
        elapsed, received = now - self._began[0], done - self._began[1]
        left = elapsed / received * (total - done) if received and total else 0.0
        note = f", about {format_duration(left)} left" if left else ""
        of = f"/{format_bytes(total)}" if total else ""
        self.log(f"download {format_bytes(done)}{of} in {format_duration(elapsed)}{note}")
