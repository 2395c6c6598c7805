"""Load on `decathlete serve`: many clients upload one image again and again; memory, order and durations.

python benchmarks/service.py --model results/Task04_Hippocampus/3d/fold_0 --image hippocampus_001.nii.gz
"""

from __future__ import annotations

import argparse
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from statistics import median

import httpx
import psutil

JOBS = "/api/v1/jobs"
START_S = 120
"""Longest time that the service may take to load its model."""


def start(model: Path, data: Path, options: list[str]) -> tuple[subprocess.Popen[bytes], str]:
    """Start a service and wait until it answers; its process and address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "decathlete", "serve", "--model", f"model={model}", "--data", str(data)]
    process = subprocess.Popen([*command, "--port", str(port), *options], stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    end = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end:
        with suppress(httpx.TransportError):
            if httpx.get(f"{address}/health/ready", timeout=60).status_code == 200:
                return process, address
        time.sleep(0.1)
    process.kill()
    process.wait()
    raise SystemExit("the service did not start")


class Clients:
    """Clients that send one image again and again, each in a thread."""

    def __init__(self, address: str, image: Path, n_uploads: int) -> None:
        self._address, self._name, self._content = address, image.name, image.read_bytes()
        self._left, self._lock = n_uploads, threading.Lock()

    def run(self, _client: int) -> list[tuple[str, float]]:
        """Send until nothing is left; the id of each job, and the seconds until it was accepted."""
        accepted = []
        with httpx.Client(base_url=self._address, timeout=600) as client:
            while self._take():
                began = time.perf_counter()
                headers = {"X-File-Name": self._name}
                answer = client.post(JOBS, params={"model": "model"}, content=self._content, headers=headers)
                answer.raise_for_status()
                accepted.append((answer.json()["id"], time.perf_counter() - began))
        return accepted

    def _take(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0


def watch(address: str, process: psutil.Process, n_jobs: int, began: float) -> list[tuple[float, int, float]]:
    """Wait until all jobs are finished; samples of (seconds, finished jobs, resident MB)."""
    samples = []
    with httpx.Client(base_url=address, timeout=600) as client:
        while not samples or samples[-1][1] < n_jobs:
            lines = client.get("/metrics").text.splitlines()
            counts = dict(line.rsplit(" ", 1) for line in lines if line.startswith("decathlete_jobs{"))
            finished = sum(float(counts[f'decathlete_jobs{{state="{state}"}}']) for state in ("done", "failed"))
            samples.append((time.perf_counter() - began, int(finished), process.memory_info().rss / 1e6))
            time.sleep(0.5)
    return samples


def order(data: Path) -> tuple[int, list[float]]:
    """Number of jobs that finished before one that was accepted earlier, and the seconds that each job took in all."""
    database = sqlite3.connect(data / "jobs.sqlite")
    rows = database.execute("SELECT number, created, finished FROM jobs ORDER BY finished").fetchall()
    database.close()
    numbers = [number for number, _, _ in rows]
    least_later = accumulate(reversed(numbers), min)  # of this job and those that finished after it
    n_overtaking = sum(least < number for number, least in zip(reversed(numbers), least_later, strict=True))
    return n_overtaking, [finished - created for _, created, finished in rows]


def memory_table(samples: Sequence[tuple[float, int, float]], n_jobs: int) -> str:
    """Resident memory after each tenth of the jobs."""
    after = [next(s for s in samples if s[1] >= n_jobs * k // 10) for k in range(11)]
    head = "| jobs finished | " + " | ".join(str(n_jobs * k // 10) for k in range(11)) + " |"
    return "\n".join(
        [
            head,
            "|---" * 12 + "|",
            "| seconds | " + " | ".join(f"{s:.0f}" for s, _, _ in after) + " |",
            "| resident MB | " + " | ".join(f"{mb:.0f}" for _, _, mb in after) + " |",
        ]
    )


def measure(given: argparse.Namespace, folder: Path) -> str:
    """Start a service, send everything, and return Markdown tables."""
    process, address = start(given.model, folder / "data", given.options)
    try:
        began = time.perf_counter()
        clients = Clients(address, given.image, given.uploads)
        with ThreadPoolExecutor(given.clients + 1) as pool:
            watching = pool.submit(watch, address, psutil.Process(process.pid), given.uploads, began)
            by_client = list(pool.map(clients.run, range(given.clients)))
            accepted_s, samples = time.perf_counter() - began, watching.result()
        total_s = time.perf_counter() - began
        jobs = [job for accepted in by_client for job in accepted]
        with httpx.Client(base_url=address, timeout=600) as client:
            states = Counter(client.get(f"{JOBS}/{job}").json()["state"] for job, _ in jobs)
    finally:
        process.terminate()
        process.wait()
    overtaken, seconds = order(folder / "data")
    accept = sorted(s for _, s in jobs)
    per_client = [len(accepted) for accepted in by_client]
    rows = {
        "uploads, clients": f"{given.uploads}, {given.clients}",
        "states of the jobs": ", ".join(f"{n} {state}" for state, n in states.items()),
        "all accepted after": f"{accepted_s:.1f} s",
        "all finished after": f"{total_s:.1f} s ({60 * given.uploads / total_s:.0f} jobs a minute)",
        "upload to 202, median and greatest": f"{median(accept):.2f} s, {accept[-1]:.2f} s",
        "accepted jobs of each client, least and greatest": f"{min(per_client)}, {max(per_client)}",
        "jobs that overtook an earlier one": str(overtaken),
        "202 to result, median and greatest": f"{median(seconds):.1f} s, {max(seconds):.1f} s",
    }
    table = "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"{table}\n\n{memory_table(samples, given.uploads)}"


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--uploads", type=int, default=200)
    parser.add_argument("options", nargs="*", help="of the service, after --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(measure(given, Path(folder)))


if __name__ == "__main__":
    main()
