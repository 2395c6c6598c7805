"""The commands on a Dask cluster of two processes give what they give on one machine, whatever dies meanwhile."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster_support import Cluster, run_cluster
from decathlete.cli.main import main
from decathlete.evaluation.scores import Scores
from decathlete.synthetic.phantoms import make_phantoms

pytest.importorskip("distributed")


@dataclass(frozen=True)
class Printed:
    code: object
    out: str
    err: str


def command(*words: object) -> Printed:
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["decathlete", *(str(word) for word in words)])
        try:
            main()
        except SystemExit as stop:
            return Printed(stop.code or 0, out.getvalue(), err.getvalue())
    return Printed(0, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with run_cluster(tmp_path_factory.mktemp("dask")) as running:
        yield running


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cluster")
    make_phantoms(root / "data" / "Task07_Balls", n_cases=4, n_test=4, shape_ZYX=(20, 22, 24), noise=0.2)
    return root


def run(root: Path, name: str, *options: object) -> Printed:
    training = "--epochs 1 --steps-per-epoch 2 --device cpu --n-folds 2 --set network.features=8,16,32"
    places = [f"--{place}={root / name / place}" for place in ("prepared", "results")]
    return command("run", "7", *training.split(), "--data", root / "data", *places, *options)


@pytest.fixture(scope="module")
def local(root: Path) -> Printed:
    return run(root, "local", "--folds", "0-1", "--workers", "1")


@contextmanager
def killing(cluster: Cluster, when: Callable[[], bool]) -> Iterator[list[int]]:
    """Kill a worker process as soon as ``when`` is true; yield the list of killed ones."""
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            if when():
                killed.append(cluster.kill_worker())
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob(pattern))}
    assert files
    return files


def test_folds_on_a_cluster_equal_those_on_one_machine(cluster: Cluster, root: Path, local: Printed) -> None:
    assert local.code == 0, local.err
    done = run(root, "cluster", "--folds", "0-1", "--cluster", cluster.address)
    assert done.code == 0, done.err
    assert "Folds 0-1, as tasks of the cluster" in done.err
    assert done.out.replace("/cluster/results", "/local/results") == local.out
    for pattern in ("*.safetensors", "*.nii.gz", "*.b2nd", "*.npz", "plan.json", "splits.json", "fingerprint.json"):
        assert contents(root / "cluster", pattern) == contents(root / "local", pattern), pattern
    scores = "results/Task07_Balls/3d/fold_{}/scores.json"
    for fold in range(2):
        mine, other = (Scores.load(root / name / scores.format(fold)) for name in ("cluster", "local"))
        # the digest of a model covers the seconds of its training
        assert mine.revised(origin=None) == other.revised(origin=None)


def test_messages_of_a_fold_are_shown(cluster: Cluster, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    done = run(root, "messages", "--fold", "1", "--cluster", cluster.address)
    assert done.code == 0, done.err
    assert any(text.startswith("fold 1: epoch 0") for text in caplog.messages), caplog.messages


def test_predictions_equal_though_a_worker_dies(cluster: Cluster, root: Path, local: Printed) -> None:
    model, images = root / "local/results/Task07_Balls/3d/fold_0", root / "data/Task07_Balls/imagesTs"
    output = root / "predicted"
    options = ("--model", model, "--input", images, "--save-probabilities", "--device", "cpu")
    assert command("predict", *options, "--output", root / "expected").code == 0
    with killing(cluster, lambda: any(output.glob("phantom_*.json"))) as killed:
        done = command("predict", *options, "--output", output, "--cluster", cluster.address)
    assert killed
    assert done.code == 0, done.err
    assert contents(output, "*.nii*") == contents(root / "expected", "*.nii*")
    assert sorted(path.name for path in output.iterdir()) == sorted(p.name for p in (root / "expected").iterdir())
