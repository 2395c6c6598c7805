"""The commands on a Dask cluster of two processes give what they give on one machine, whatever dies meanwhile."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cluster_support import Cluster, run_cluster
from decathlete.cli.main import main
from decathlete.core.locks import locked_folder
from decathlete.evaluation.scores import Scores
from decathlete.synthetic.phantoms import make_phantoms

pytest.importorskip("distributed")

HAS_OPENVINO = find_spec("openvino") is not None and find_spec("onnx") is not None
ENGINE = ("--engine", "openvino", "--set", "engine.threads=1") if HAS_OPENVINO else ("--engine", "torch")
"""Its logits are those of one machine: one thread, whatever the worker has."""


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
    return command("run", "7", *training.split(), "--engine", "torch", "--data", root / "data", *places, *options)


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


@pytest.mark.full
def test_folds_on_a_cluster_equal_those_on_one_machine(
    cluster: Cluster, root: Path, local: Printed, caplog: pytest.LogCaptureFixture
) -> None:
    assert local.code == 0, local.err
    caplog.clear()
    done = run(root, "cluster", "--folds", "0-1", "--cluster", cluster.address)
    assert done.code == 0, done.err
    assert "Folds 0-1, as tasks of the cluster" in done.err
    assert any(text.startswith("fold 1: epoch 0") for text in caplog.messages), caplog.messages
    assert done.out.replace("/cluster/results", "/local/results") == local.out
    for pattern in ("*.safetensors", "*.nii.gz", "*.b2nd", "*.npz", "plan.json", "splits.json", "fingerprint.json"):
        assert contents(root / "cluster", pattern) == contents(root / "local", pattern), pattern
    scores = "results/Task07_Balls/3d/fold_{}/scores.json"
    for fold in range(2):
        mine, other = (Scores.load(root / name / scores.format(fold)) for name in ("cluster", "local"))
        # the digest of a model covers the seconds of its training
        assert mine.revised(origin=None) == other.revised(origin=None)


def test_predictions_equal_though_a_worker_dies(cluster: Cluster, root: Path, local: Printed) -> None:
    model, images = root / "local/results/Task07_Balls/3d/fold_0", root / "data/Task07_Balls/imagesTs"
    output = root / "predicted"
    options = ("--model", model, "--input", images, "--save-probabilities", "--device", "cpu", *ENGINE)
    assert command("predict", *options, "--output", root / "expected").code == 0
    with killing(cluster, lambda: any(output.glob("phantom_*.json"))) as killed:
        done = command("predict", *options, "--output", output, "--cluster", cluster.address)
    assert killed
    assert done.code == 0, done.err
    assert contents(output, "*.nii*") == contents(root / "expected", "*.nii*")
    assert sorted(path.name for path in output.iterdir()) == sorted(p.name for p in (root / "expected").iterdir())


@pytest.mark.full
def test_a_resolution_for_a_training_time_is_that_of_one_machine(cluster: Cluster, root: Path) -> None:
    places = {name: root / "resolution" / name for name in ("local", "cluster")}
    options = ("--task", "7", "--data", root / "data", "--n-folds", "2", "--max-time", "1s")
    expected = command("preprocess", *options, "--prepared", places["local"], "--workers", "1")
    assert expected.code == 0, expected.err
    done = command("preprocess", *options, "--prepared", places["cluster"], "--cluster", cluster.address)
    assert done.code == 0, done.err
    for pattern in ("ceilings_3d.json", "plan.json", "*.b2nd"):
        assert contents(places["cluster"], pattern) == contents(places["local"], pattern), pattern


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize(
    "words", ["check 7 --json --n-folds 2 --data {data}", "evaluate --preds {masks} --lbls {masks} --json"]
)
def test_reports_equal_those_of_one_machine(cluster: Cluster, tmp_path: Path, words: str, damaged: bool) -> None:
    dataset = tmp_path / "Task07_Balls"
    make_phantoms(dataset, n_cases=3, n_test=1, shape_ZYX=(12, 14, 16))
    if damaged:
        min((dataset / "labelsTr").iterdir()).write_bytes(b"no label map")
    options = [word.format(data=tmp_path, masks=dataset / "labelsTr") for word in words.split()]
    expected = command(*options)
    assert (expected.code == 0) is not damaged
    done = command(*options, "--cluster", cluster.address)
    assert (done.code, done.out) == (expected.code, expected.out)


def test_a_given_spacing_and_bad_names_are_those_of_one_machine(
    cluster: Cluster, root: Path, local: Printed, tmp_path: Path
) -> None:
    model, images = root / "local/results/Task07_Balls/3d/fold_0", tmp_path / "images"
    images.mkdir()
    header = "NRRD0004\ntype: float\ndimension: 3\nsizes: 24 22 20\nencoding: raw\nendian: little\n\n"
    voxels = np.random.default_rng(0).normal(size=(20, 22, 24)).astype("<f4").tobytes()
    for name in ("a", "b", "line\nbreak", "another\nbreak"):
        (images / f"{name}.nrrd").write_bytes(header.encode() + voxels)
    options = ("--model", model, "--input", images, "--device", "cpu", "--spacing", "2,1,1", *ENGINE)
    expected = command("predict", *options, "--output", tmp_path / "expected")
    done = command("predict", *options, "--output", tmp_path / "done", "--cluster", cluster.address)
    assert done.code == expected.code == 2
    assert "could not predict 2 of 4 cases" in done.err
    assert done.err.count("has a name with bytes that are not UTF-8, or with a line break") == 2
    assert contents(tmp_path / "done", "*.nrrd") == contents(tmp_path / "expected", "*.nrrd")
    assert len(contents(tmp_path / "done", "*.json")) == 2


def test_a_fold_of_another_process_is_not_touched(cluster: Cluster, root: Path) -> None:
    held, over = threading.Event(), threading.Event()

    def hold() -> None:  # another thread is treated like another process
        with locked_folder(root / "locked/results/Task07_Balls/3d/fold_0"):
            held.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(30)
        done = run(root, "locked", "--fold", "0", "--cluster", cluster.address)
    finally:
        over.set()
        thread.join()
    assert done.code != 0
    assert "is working here" in done.err
    assert not (root / "locked/prepared").exists()
