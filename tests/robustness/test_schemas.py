"""Every JSON file that Decathlete reads: any change of its values is accepted, or rejected by one clean error."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decathlete.core.error_codes import CODES
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.splits import Fold, Splits
from decathlete.errors import DecathleteError
from decathlete.evaluation.metrics import make_metrics
from decathlete.evaluation.scores import CaseScores, ClassScores, Scores
from decathlete.models.bundle import ModelBundle
from decathlete.planning.fingerprint import Fingerprint
from decathlete.planning.plan import Plan
from factories import make_test_plan
from robustness.datasets import make_dataset, write_files
from robustness.formats.models import save_bundle
from robustness.json_mutations import VALUES, dump, paths

SETTINGS = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(VALUES).map(copy.deepcopy),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


def write_plan(folder: Path) -> Path:
    make_test_plan().save(folder / "plan.json")
    return folder / "plan.json"


def write_splits(folder: Path) -> Path:
    Splits(folds=(Fold(train=("a",), val=("b",)),), seed=1, grouped=False).save(folder / "splits.json")
    return folder / "splits.json"


def write_fingerprint(folder: Path) -> Path:
    Fingerprint(dataset_digest="x", cases=(), intensity=()).save(folder / "fingerprint.json")
    return folder / "fingerprint.json"


def write_scores(folder: Path) -> Path:
    ball = ClassScores(name="ball", presence="both", values={"dice": 0.5}, truth_ml=2.0, prediction_ml=3.0)
    Scores.of([CaseScores.of("case_0", [ball])], make_metrics(["dice"])).save(folder / "scores.json")
    return folder / "scores.json"


def write_model(folder: Path) -> Path:
    save_bundle(folder / "model")
    return folder / "model" / "model.json"


def write_manifest(layout: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        write_files(make_dataset(2, layout=layout), folder)
        return folder / "dataset.json"

    return write


FILES: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    "plan": (write_plan, Plan.load),
    "splits": (write_splits, Splits.load),
    "fingerprint": (write_fingerprint, Fingerprint.load),
    "scores": (write_scores, Scores.load),
    "model": (write_model, lambda path: ModelBundle.load(path.parent)),
    "decathlon": (write_manifest("decathlon"), lambda path: read_dataset(path.parent)),
    "nnunet": (write_manifest("nnunet"), lambda path: read_dataset(path.parent)),
}


def accepted_or_rejected_cleanly(read: Callable[[Path], Any], path: Path) -> None:
    try:
        read(path)
        return
    except DecathleteError as caught:
        problem = caught
    assert problem.code in CODES
    assert path.parent.name in str(problem)


@pytest.fixture(params=sorted(FILES))
def file(request, tmp_path):
    """A file's path, honest content, and reader."""
    write, read = FILES[request.param]
    path = write(tmp_path)
    return path, json.loads(path.read_text()), read


@SETTINGS
@given(data=st.data())
def test_any_value_in_any_place(file, data):
    path, honest, read = file
    document = copy.deepcopy(honest)
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(list(paths(document))[1:]))
        parent = document
        for step in place[:-1]:
            parent = parent[step]
        parent[place[-1]] = data.draw(ANY_JSON)
    path.write_bytes(dump(document))
    accepted_or_rejected_cleanly(read, path)


@SETTINGS
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_any_bytes(file, content):
    path, _, read = file
    path.write_bytes(content)
    accepted_or_rejected_cleanly(read, path)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, '{"version": ' + "9" * 5000 + "}", "\ufeff{}", "null", '"\\ud800"'],
    ids=["lists", "objects", "digits", "version", "byte-order mark", "null", "surrogate"],
)
def test_texts_that_parsers_stumble_over(file, text):
    path, _, read = file
    path.write_text(text)
    accepted_or_rejected_cleanly(read, path)
