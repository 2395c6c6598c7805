"""Load on `decathlete serve`: many clients upload one image again and again; memory, order and durations.

python benchmarks/service.py --model results/Task04_Hippocampus/3d/fold_0 --image hippocampus_001.nii.gz
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import httpx
import psutil

JOBS = "/api/v1/jobs"


def start(model: Path, data: Path, options: list[str]) -> tuple[subprocess.Popen[bytes], str]:
    """Start a service and wait until it answers; its process and address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "decathlete", "serve", "--model", f"model={model}", "--data", str(data)]
    process = subprocess.Popen([*command, "--port", str(port), *options], stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    while process.poll() is None:
        try:
            if httpx.get(f"{address}/health/ready", timeout=60).status_code == 200:
                return process, address
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit("the service did not start")


def upload(address: str, image: Path) -> tuple[str, float]:
    """Send the image; the id of the job and the seconds until it was accepted."""
    began = time.perf_counter()
    headers = {"X-File-Name": image.name}
    answer = httpx.post(
        f"{address}{JOBS}", params={"model": "model"}, content=image.read_bytes(), headers=headers, timeout=600
    )
    answer.raise_for_status()
    return answer.json()["id"], time.perf_counter() - began


def wait_until_empty(address: str, process: psutil.Process, n_jobs: int) -> list[tuple[int, float]]:
    """Wait until all jobs are finished; samples of (finished jobs, resident MB)."""
    samples = []
    while True:
        lines = httpx.get(f"{address}/metrics", timeout=600).text.splitlines()
        done = [float(line.split()[-1]) for line in lines if line.startswith('decathlete_jobs{state="done"}')]
        samples.append((int(done[0]), process.memory_info().rss / 1e6))
        if samples[-1][0] >= n_jobs:
            return samples
        time.sleep(0.5)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--uploads", type=int, default=200)
    parser.add_argument("options", nargs="*", help="of the service, after --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        process, address = start(given.model, Path(folder) / "data", given.options)
        try:
            began = time.perf_counter()
            with ThreadPoolExecutor(given.clients + 1) as pool:
                watching = pool.submit(wait_until_empty, address, psutil.Process(process.pid), given.uploads)
                jobs = list(pool.map(lambda _: upload(address, given.image), range(given.uploads)))
                accepted_s, samples = time.perf_counter() - began, watching.result()
            total_s = time.perf_counter() - began
            states = [httpx.get(f"{address}{JOBS}/{job}", timeout=60).json()["state"] for job, _ in jobs]
        finally:
            process.terminate()
            process.wait()
    accept = sorted(seconds for _, seconds in jobs)
    tenth = [mb for n, mb in samples if n >= given.uploads // 10]
    rows = {
        "uploads, clients": f"{given.uploads}, {given.clients}",
        "jobs done": str(states.count("done")),
        "all accepted after": f"{accepted_s:.1f} s",
        "all finished after": f"{total_s:.1f} s",
        "upload to 202, median and greatest": f"{median(accept):.2f} s, {accept[-1]:.2f} s",
        "resident memory after a tenth, at the end, greatest": f"{tenth[0]:.0f}, {tenth[-1]:.0f}, {max(tenth):.0f} MB",
    }
    print("| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows.items()))


if __name__ == "__main__":
    main()
