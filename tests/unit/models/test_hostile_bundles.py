"""What a damaged or hostile ``model.json`` says is rejected, and never leads outside the folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from decathlete.errors import ModelError
from decathlete.models import weights as module
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from factories import make_test_network, make_test_plan

SHARED_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
"""Each example rewrites the whole record, so that the folder may be shared."""


@pytest.fixture
def bundle(tmp_path) -> Path:
    plan = make_test_plan(network=make_test_network().revised(norm="batch"))
    networks = [build_network(plan.network, seed=seed) for seed in range(2)]
    ModelBundle.save(tmp_path / "outer" / "model", TrainedMember(plan=plan, networks=networks))
    shutil.copy(
        tmp_path / "outer" / "model" / "weights" / "3d.0.safetensors", tmp_path / "outer" / "weights.safetensors"
    )
    return tmp_path / "outer" / "model"


def change_record(folder: Path, change) -> None:
    """Apply ``change`` to the content of the record."""
    path = folder / "model.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def rejected(folder: Path, match: str | None = None) -> None:
    with pytest.raises(ModelError, match=match):
        ModelBundle.load(folder)


@pytest.fixture
def opened(monkeypatch) -> list[Path]:
    """Files that were opened as weights."""
    found: list[Path] = []
    real = module.safe_open
    monkeypatch.setattr(module, "safe_open", lambda path, **options: found.append(Path(path)) or real(path, **options))
    return found


PATHS = [
    "../weights.safetensors",
    "weights/../../weights.safetensors",
    "/etc/passwd",
    "weights/../weights/3d.0.safetensors",
    "weights\\3d.0.safetensors",
    "C:weights.safetensors",
    "file:///weights.safetensors",
    "weights//3d.0.safetensors",
    "./weights/3d.0.safetensors",
    "weights/.safetensors",
    "weights/3d.0.safetensors\n",
    "weights/3d.0.safetensors\0",
    "weights/3d.0.ckpt",
    "model.json",
    "",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_outside(bundle, opened, path):
    change_record(bundle, lambda content: content["members"][0]["networks"][0].update(file=path))
    rejected(bundle, r"members\.0\.networks\.0\.file")
    assert not opened


@SHARED_FOLDER
@given(st.text(max_size=30).flatmap(lambda a: st.text(max_size=30).map(lambda b: a + b)) | st.sampled_from(PATHS))
def test_files_with_any_name_are_below_the_folder_or_rejected(bundle, opened, name):
    opened.clear()
    change_record(bundle, lambda content: content["members"][0]["networks"][0].update(file=name))
    rejected(bundle)
    assert all(path.resolve().is_relative_to(bundle.resolve()) for path in opened)


FIELDS = ["version", "labels", "members", "combination", "postprocessing", "temperature", "provenance"]
WORDS = st.text(max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
)


@SHARED_FOLDER
@given(JSON, st.sampled_from(FIELDS))
def test_any_value_of_any_field_is_read_or_rejected(bundle, value, field):
    whole = (bundle / "model.json").read_text()
    try:
        change_record(bundle, lambda content: content.update({field: value}))
        with contextlib.suppress(ModelError):
            ModelBundle.load(bundle)
    finally:
        (bundle / "model.json").write_text(whole)


@pytest.mark.parametrize("name", ["../up", "a/b", "a\\b", "..", ".hidden", "", "a b", "a" * 65, "é", 3])
def test_names_of_members(bundle, name):
    change_record(bundle, lambda content: content["members"][0].update(name=name))
    rejected(bundle, r"members\.0\.name")


def test_members_and_networks_are_at_least_one(bundle):
    whole = (bundle / "model.json").read_text()
    change_record(bundle, lambda content: content.update(members=[]))
    rejected(bundle, "members")
    (bundle / "model.json").write_text(whole)
    change_record(bundle, lambda content: content["members"][0].update(networks=[]))
    rejected(bundle, "networks")


def test_weights_are_used_by_one_network(bundle):
    change_record(
        bundle, lambda content: content["members"][0]["networks"].append(content["members"][0]["networks"][0])
    )
    rejected(bundle, r"2 networks have the weights weights/3d\.0\.safetensors")


def test_a_network_whose_file_is_absent(bundle):
    change_record(bundle, lambda content: content["members"][0]["networks"][1].update(file="weights/other.safetensors"))
    rejected(bundle, r"has no weights/other\.safetensors")


@pytest.mark.parametrize("sha256", ["", "0" * 63, "0" * 65, "G" * 64, "0" * 64 + "\n", None, "0" * 64])
def test_wrong_digests(bundle, sha256):
    change_record(bundle, lambda content: content["members"][0]["networks"][1].update(sha256=sha256))
    rejected(bundle, "is not the file" if sha256 == "0" * 64 else "sha256")


def test_files_of_networks_that_are_exchanged(bundle):
    one, other = bundle / "weights" / "3d.0.safetensors", bundle / "weights" / "3d.1.safetensors"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    rejected(bundle, r"3d\.0\.safetensors: is not the file that model\.json describes")


@SHARED_FOLDER
@given(st.integers(min_value=0, max_value=10**6))
def test_a_file_that_is_cut_anywhere(bundle, length):
    path = bundle / "weights" / "3d.1.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: length % len(whole)])
    try:
        rejected(bundle, "damaged")
    finally:
        path.write_bytes(whole)


def rewrite_weights(folder: Path, change) -> None:
    """Apply ``change`` to the tensors of the second network, and give the record the new file's digest."""
    path = folder / "weights" / "3d.1.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    change_record(folder, lambda content: content["members"][0]["networks"][1].update(sha256=digest))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["heads.0.bias", "encoder.0.0.norm.running_var"])
def test_values_that_are_not_finite(bundle, name, value):
    state = load_file(bundle / "weights" / "3d.1.safetensors")
    name = name if name in state else next(key for key in state if key.endswith("running_var"))
    rewrite_weights(bundle, lambda state: state[name].view(-1)[-1:].fill_(value))
    rejected(bundle, rf"3d\.1\.safetensors: the tensor {name} contains NaN or infinite values")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.float8_e4m3fn])
def test_tensors_of_another_type_than_declared(bundle, dtype):
    rewrite_weights(bundle, lambda state: state.update({"heads.0.bias": state["heads.0.bias"].to(dtype)}))
    rejected(bundle, r"heads\.0\.bias has type \w+, not float32")


def test_a_counter_of_another_type(bundle):
    name = next(n for n in load_file(bundle / "weights" / "3d.1.safetensors") if n.endswith("num_batches_tracked"))
    rewrite_weights(bundle, lambda state: state.update({name: state[name].float()}))
    rejected(bundle, rf"{name} has type float32, not int64")


@pytest.mark.parametrize("dtype", ["float64", "int8", "torch.float32", "", None])
def test_types_that_bundles_do_not_have(bundle, dtype):
    change_record(bundle, lambda content: content["members"][0]["networks"][0].update(dtype=dtype))
    rejected(bundle, "dtype")


def test_a_declared_type_that_the_file_does_not_have(bundle):
    change_record(bundle, lambda content: content["members"][0]["networks"][0].update(dtype="bfloat16"))
    rejected(bundle, "has type float32, not bfloat16")


def test_a_wrong_number_of_parameters(bundle):
    change_record(bundle, lambda content: content["members"][0]["networks"][0].update(n_parameters=5))
    rejected(bundle, r"n_parameters of weights/3d\.0\.safetensors is 5")


def test_a_prefix_that_the_file_does_not_have(bundle):
    change_record(bundle, lambda content: content["members"][0]["networks"][0].update(prefix="0."))
    rejected(bundle, r"0\.heads\.0\.bias is missing|do not fit")


@pytest.mark.parametrize("prefix", ["0", "a.", "../", "0.0.", "-1."])
def test_prefixes(bundle, prefix):
    change_record(bundle, lambda content: content["members"][0]["networks"][0].update(prefix=prefix))
    rejected(bundle, "prefix")


@pytest.mark.parametrize("temperature", [0, -1, "NaN", "Infinity", "-Infinity", "warm"])
def test_temperatures(bundle, temperature):
    content = json.loads((bundle / "model.json").read_text()) | {"temperature": "THERE"}
    number = temperature if isinstance(temperature, str) and temperature != "warm" else json.dumps(temperature)
    (bundle / "model.json").write_text(json.dumps(content).replace('"THERE"', number))
    rejected(bundle, "temperature")


@pytest.mark.parametrize(
    ("combination", "message"),
    [
        ({"within_plan": "mean_probabilities"}, "within_plan"),
        ({"between_plans": "vote"}, "between_plans"),
        ({"weights": [1.0, 1.0]}, "2 entries for 1 members"),
        ({"weights": [0.0]}, "positive"),
        ({"weights": [-1.0]}, "positive"),
        ({"rule": "x"}, "rule"),
    ],
)
def test_combinations(bundle, combination, message):
    change_record(bundle, lambda content: content.update(combination=combination))
    rejected(bundle, message)


def test_members_of_one_plan_have_the_same_weight(bundle):
    def add_member(content):
        (member,) = content["members"]
        first, second = member["networks"]
        content["members"] = [member | {"networks": [first]}, member | {"networks": [second], "name": "second"}]
        content["combination"]["weights"] = [1.0, 2.0]

    change_record(bundle, add_member)
    rejected(bundle, "members of one plan have different weights")


def test_a_stage_of_a_cascade_is_another_member_and_fits_the_plan(bundle):
    def make_cascade(content):
        (member,) = content["members"]
        first, second = member["networks"]
        low = member | {"networks": [first], "name": "low"}
        content["members"] = [low, member | {"networks": [second], "previous_stage": "low"}]

    change_record(bundle, make_cascade)
    rejected(bundle, "member 3d has a previous_stage, and its plan needs none")

    def add_inputs(content):
        plan = content["members"][1]["plan"]
        plan["previous_stage"] = "3d_lowres"
        plan["network"]["in_channels"] += len(plan["labels"]["classes"]) - 1

    change_record(bundle, add_inputs)
    for wrong in ("other", "3d"):
        change_record(bundle, lambda content, wrong=wrong: content["members"][1].update(previous_stage=wrong))
        rejected(bundle, f"previous_stage '{wrong}' is not another member")
    change_record(bundle, lambda content: content["members"][1].update(previous_stage=None))
    rejected(bundle, "member 3d has no previous_stage, and its plan needs one")


def test_labels_are_those_of_the_plans(bundle):
    change_record(bundle, lambda content: content["labels"]["classes"][1].update(name="other"))
    rejected(bundle, "member 3d has other labels than the model")


@pytest.mark.parametrize(
    "step", [{"name": "os:system"}, {"name": "../x"}, {"name": ""}, {"settings": {}}, "fill_holes"]
)
def test_post_processing_is_named_and_never_a_path(bundle, step):
    change_record(bundle, lambda content: content.update(postprocessing=[step]))
    rejected(bundle, "postprocessing")


def test_unknown_fields_are_rejected_everywhere(bundle):
    for change in (
        lambda content: content.update(stray=1),
        lambda content: content["members"][0].update(stray=1),
        lambda content: content["members"][0]["networks"][0].update(stray=1),
    ):
        whole = (bundle / "model.json").read_text()
        change_record(bundle, change)
        rejected(bundle, "stray")
        (bundle / "model.json").write_text(whole)
