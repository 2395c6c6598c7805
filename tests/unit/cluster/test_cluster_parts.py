"""What is sent, which files are compared, and what is said when a cluster cannot be used."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from decathlete.cli.main import app
from decathlete.cluster.connection import connect_cluster
from decathlete.cluster.payload import dumps, loads
from decathlete.cluster.resources import parse_resources
from decathlete.cluster.storage import probe_path, problem_of_replies, problems_on_worker, stamp
from decathlete.cluster.versions import differences, own_versions
from decathlete.errors import ClusterError, DecathleteError, MissingPackageError, OptionError


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert loads(dumps({"a": (Path("b"), [Path("/c")])})) == {"a": (tmp_path / "b", [Path("/c")])}


def test_functions_are_sent_by_name_only() -> None:
    assert loads(dumps(stamp)) is stamp
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        dumps(lambda: None)


def test_files_that_differ_are_named(tmp_path: Path) -> None:
    same, changed, gone = tmp_path / "same", tmp_path / "changed", tmp_path / "gone"
    for path in (same, changed, gone):
        path.write_text(path.name)
    reads = {str(path): stamp(path) for path in (same, changed, gone, tmp_path)}
    changed.write_text("changed since")
    gone.unlink()
    problems = problems_on_worker(reads, [], "t", "w", within_s=0)
    assert problems[:2] == [f"{changed} is another file there", f"{gone} does not exist there"]
    assert len(problems) == 3, "the folder's first file is the changed one"


def test_probes_and_replies(tmp_path: Path) -> None:
    (problem,) = problems_on_worker({}, [str(tmp_path)], "t", "w", within_s=0)
    assert problem == f"a file that the command wrote into {tmp_path} does not exist there"
    probe_path(str(tmp_path), "t").touch()
    assert "does not exist here" in str(problem_of_replies([str(tmp_path)], "t", "w", within_s=0))
    assert problems_on_worker({}, [str(tmp_path)], "t", "w", within_s=0) == []
    assert problem_of_replies([str(tmp_path)], "t", "w", within_s=0) is None


def test_versions_of_decathlete_must_be_equal_and_others_may_differ() -> None:
    own = own_versions()
    assert differences(own, own) == ([], [])
    fatal, rounding = differences(own, own | {"decathlete": "0.1", "numpy": "1"})
    assert fatal == [f"decathlete 0.1 there, {own['decathlete']} here"]
    assert rounding == [f"numpy 1 there, {own['numpy']} here"]


@pytest.mark.parametrize("text", ["GPU=1,MEMORY=64e9", "GPU=1 MEMORY=64e9"])
def test_resources_are_written_as_dask_writes_them(text: str) -> None:
    assert parse_resources(text) == {"GPU": 1, "MEMORY": 64e9}


@pytest.mark.parametrize("text", ["", "GPU", "GPU=", "GPU=many", "=1", "GPU=0", "GPU=-1"])
def test_text_without_resources_is_rejected(text: str) -> None:
    with pytest.raises(OptionError, match="names no resources"):
        parse_resources(text)


@pytest.mark.parametrize("address", ["scheduler:8786", "tcp://scheduler", "http://a:1", "tcp://:1x"])
def test_an_address_that_is_not_dasks_is_rejected(address: str) -> None:
    with pytest.raises(OptionError, match="not the address of a Dask scheduler"), connect_cluster(address):
        pass


def test_a_scheduler_that_does_not_answer(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    with (
        pytest.raises(ClusterError, match=r"tcp://127\.0\.0\.1:9 does not answer within 0\.5 s") as raised,
        connect_cluster("tcp://127.0.0.1:9", connect_within_s=0.5),
    ):
        pass
    assert raised.value.code == "E-CLUSTER-CONNECT"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingPackageError, match=r"\[cluster\]"), connect_cluster("tcp://127.0.0.1:9"):
        pass


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("check x --cluster tcp://a:1 --workers 3", "--workers has no effect with --cluster"),
        ("evaluate --preds x --lbls y --cluster tcp://a:1 --workers 3", "--workers has no effect with --cluster"),
        ("run x --cluster tcp://a:1 --workers 3", "--workers has no effect with --cluster"),
        ("run x --fold-resources GPU=1", "--fold-resources has no effect without --cluster"),
    ],
)
def test_options_without_effect_are_rejected(words: str, message: str) -> None:
    problem = CliRunner().invoke(app, words.split()).exception
    assert isinstance(problem, DecathleteError)
    assert message in str(problem)
    assert problem.code == "E-OPTION-CONFLICT"


def test_dask_is_imported_only_with_a_cluster(tmp_path: Path) -> None:
    code = (
        "import sys, decathlete.workflows.run, decathlete.workflows.cross_validate, decathlete.workflows.predict\n"
        "from decathlete.cluster.connection import connect_cluster\n"
        "print(sorted({'dask', 'distributed'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
