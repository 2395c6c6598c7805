"""``export triton``: the configuration is what the options say, and the programs compute the model's logits."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from decathlete.errors import MissingPackageError, ModelError, OptionError, OutputError
from decathlete.export.exporters.triton import RepositoryRecord
from decathlete.export.onnx_graphs import convert_to_half
from decathlete.export.triton_config import network_config, parse_config, pipeline_config
from decathlete.export.triton_engine import engine_of
from decathlete.export.triton_options import TritonSettings, check_profile
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.models.combine import combine_bundles
from decathlete.networks.build import build_network
from decathlete.networks.onnx_program import onnx_program
from decathlete.planning.plan import Plan
from decathlete.workflows.export_triton import export_triton
from factories import make_test_plan

pytest.importorskip("tritonclient.grpc")
PLAN = make_test_plan(3)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    networks = [build_network(PLAN.network, seed=seed) for seed in (0, 1)]
    return ModelBundle.save(tmp_path / "m", TrainedMember(plan=PLAN, networks=networks)).folder


def configured(**fields: object):
    return parse_config(network_config(TritonSettings(**fields), "a", window=(1, 16, 16, 16), n_outputs=3))


def test_options_are_in_the_configuration() -> None:
    config = configured(
        max_batch_size=4,
        preferred_batch_sizes=(2, 4),
        queue_delay_ms=1.5,
        instances=2,
        instance_kind="cpu",
        threads=3,
        warmup=2,
        resources={"R": 2},
        priority=1,
        response_cache=True,
        version_policy="specific:1,3",
    )
    assert (config.name, config.backend, config.max_batch_size) == ("a", "onnxruntime", 4)
    assert list(config.dynamic_batching.preferred_batch_size) == [2, 4]
    assert config.dynamic_batching.max_queue_delay_microseconds == 1500
    (group,) = config.instance_group
    assert (group.count, group.Kind.Name(group.kind)) == (2, "KIND_CPU")
    assert (group.rate_limiter.priority, group.rate_limiter.resources[0].name) == (1, "R")
    assert config.parameters["intra_op_thread_count"].string_value == "3"
    assert config.model_warmup[0].count == 2
    assert config.response_cache.enable
    assert list(config.version_policy.specific.versions) == [1, 3]
    assert list(config.input[0].dims) == [1, 16, 16, 16]


def test_shapes_and_accelerators_are_in_the_configuration() -> None:
    config = configured(dynamic_shapes=True, accelerator="tensorrt", max_shape=(32, 32, 32), precision="fp16")
    assert list(config.input[0].dims) == [1, -1, -1, -1]
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.parameters["trt_profile_max_shapes"] == "windows:8x1x32x32x32"
    assert accelerator.parameters["precision_mode"] == "FP16"
    assert configured(format="tensorrt", cuda_graphs=True).optimization.cuda.graphs
    assert configured(format="openvino", precision="bf16").parameters["HINT_BF16"].string_value == "YES"
    torchscript = configured(format="torchscript-trace")
    assert (torchscript.platform, torchscript.input[0].name) == ("pytorch_libtorch", "windows__0")


def test_a_pipeline_accepts_images_of_any_size() -> None:
    text = pipeline_config(
        TritonSettings(environment="/env", response_cache=True),
        "p",
        patch=PLAN.patch_size,
        n_channels=1,
        labels=PLAN.labels,
    )
    config = parse_config(text)
    assert all(field.allow_ragged_batch and field.optional for field in config.input)
    assert "BYTES" not in text
    assert config.parameters["EXECUTION_ENV_PATH"].string_value == "/env"
    assert not config.response_cache.enable  # it would answer requests for probabilities without them


def test_a_pipeline_has_the_settings_of_its_engine() -> None:
    settings = TritonSettings(engine="onnx", engine_settings={"threads": 2})
    text = pipeline_config(settings, "p", patch=PLAN.patch_size, n_channels=1, labels=PLAN.labels)
    parameters = {name: value.string_value for name, value in parse_config(text).parameters.items()}
    assert engine_of(parameters) == {"name": "onnx", "threads": 2}
    plain = pipeline_config(TritonSettings(engine="onnx"), "p", patch=PLAN.patch_size, n_channels=1, labels=PLAN.labels)
    assert "engine_settings" not in plain
    elsewhere = TritonSettings(engine="of_the_server", engine_settings={"fast": True})  # it is not known here
    assert elsewhere.engine_settings == {"fast": True}
    with pytest.raises(OptionError, match="no JSON object"):
        engine_of(parameters | {"engine_settings": "[1"})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"format": "openvino", "precision": "fp16"}, "has no precision fp16"),
        ({"format": "onnx", "cuda_graphs": True}, "ignores CUDA graphs"),
        ({"format": "openvino", "accelerator": "tensorrt"}, "ignores the accelerator"),
        ({"format": "openvino", "instance_kind": "gpu"}, "no instances of the kind gpu"),
        ({"format": "aotinductor", "dynamic_shapes": True}, "cannot accept dynamic shapes"),
        ({"format": "onnx", "dynamic_shapes": True, "max_shape": (32, 32, 32)}, "ignores a profile"),
        ({"format": "tensorrt", "max_shape": (32, 32, 32)}, "no effect without dynamic shapes"),
        ({"format": "tensorrt", "threads": 2}, "ignores the number of threads"),
        ({"preferred_batch_sizes": (16,)}, "exceeds the max batch size"),
        ({"models": "network", "environment": "/env"}, "no effect without the pipeline"),
        ({"models": "pipeline", "format": "openvino"}, "no effect without the network"),
        ({"models": "pipeline", "response_cache": True}, "response cache has no effect without the network"),
        ({"engine_settings": {"threads": 2}}, "the engine auto has no settings"),
        ({"engine": "onnx", "engine_settings": {"threads": 0}}, "greater than or equal to 1"),
        ({"engine": "torch", "engine_settings": {"threads": 2}}, "not a setting of the engine torch"),
        ({"models": "network", "engine": "onnx", "engine_settings": {"threads": 2}}, "no effect without the pipeline"),
        ({"version_policy": "newest"}, "no version policy"),
        ({"version_policy": "specific:1,3", "version": 2}, "does not serve the version 2"),
        ({"engine": "onnx", "instance_kind": "gpu"}, "engine onnx has no instances of the kind gpu"),
        ({"format": "openvino", "precision": "int8"}, "int8 is for the network alone: choose --models network"),
        (
            {"models": "network", "format": "openvino", "precision": "int8", "dynamic_shapes": True},
            "int8 network cannot accept dynamic shapes",
        ),
        ({"max_batch_size": 1, "queue_delay_ms": 1}, "queue delay has no effect with batches of one"),
        ({"max_batch_size": 1, "preferred_batch_sizes": (1,)}, "preferred batch size has no effect"),
    ],
)
def test_options_without_effect_are_rejected(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TritonSettings(**fields)


@pytest.mark.parametrize("shapes", [{"min_shape": (16, 16)}, {"min_shape": (24, 24, 24)}, {"max_shape": (8, 8, 8)}])
def test_a_profile_contains_the_patch(shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(OptionError):
        check_profile(TritonSettings(format="tensorrt", dynamic_shapes=True, **shapes), (16, 16, 16))


@pytest.mark.parametrize("text", ["name: 3", 'nome: "a"', "{"])
def test_a_damaged_configuration_is_an_error(text: str) -> None:
    with pytest.raises(ModelError):
        parse_config(text)


@pytest.mark.parametrize("format_", ["onnx", "openvino"])
def test_without_onnx_another_format_is_advised(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackageError) as caught:
        export_triton(model, tmp_path / "r", settings=TritonSettings(models="network", format=format_))
    assert str(caught.value.remedy).endswith('pip install ".[onnx]", or choose another --format')


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"format": "onnx", "dynamic_shapes": True}, 1e-5),
        ({"format": "onnx", "precision": "fp16"}, 0.05),
        ({"format": "torchscript-script", "dynamic_shapes": True}, 1e-5),
        ({"format": "torchscript-trace", "precision": "bf16"}, 0.05),
    ],
)
def test_programs_compute_the_models_logits(
    fields: dict[str, object], limit: float, model: Path, tmp_path: Path
) -> None:
    if fields["format"] == "onnx":
        pytest.importorskip("onnxruntime")
    result = export_triton(model, tmp_path / "r", settings=TritonSettings(models="network", **fields))
    assert result.difference < limit
    assert result.models == ("Test_network",)


@pytest.mark.full
def test_a_compiled_package_computes_the_models_logits(model: Path, tmp_path: Path) -> None:
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler")
    settings = TritonSettings(models="network", format="aotinductor", instance_kind="cpu", max_batch_size=4)
    assert export_triton(model, tmp_path / "r", settings=settings).difference < 1e-5
    assert (tmp_path / "r" / "Test_network" / "1" / "model.pt2").is_file()


@pytest.mark.parametrize(
    ("fields", "precision", "note"),
    [
        ({"precision": "fp16"}, "fp16", "on a CPU, the pipeline computes in fp32: fp16 is not for CPUs"),
        (
            {"precision": "fp16", "instance_kind": "cpu"},
            "fp32",
            "the pipeline computes in fp32: fp16 is not for CPUs",
        ),
        ({"precision": "fp16", "instance_kind": "gpu"}, "fp16", ""),
        (
            {"precision": "bf16", "engine": "onnx"},
            "fp32",
            "the pipeline computes in fp32: the engine onnx does not compute in bf16",
        ),
        ({"precision": "bf16"}, "bf16", ""),
    ],
)
def test_a_pipeline_beside_a_network_has_a_precision_that_it_computes_in(
    fields: dict[str, Any], precision: str, note: str, model: Path, tmp_path: Path
) -> None:
    settings = TritonSettings(name="a", format="torchscript-trace", code=False, **fields)
    result = export_triton(model, tmp_path / "r", settings=settings)
    assert result.models == ("a_network", "a_pipeline")
    folder = tmp_path / "r" / "a_pipeline"
    assert parse_config((folder / "config.pbtxt").read_text()).parameters["precision"].string_value == precision
    assert RepositoryRecord.load(folder / "decathlete.json").precision == precision
    assert RepositoryRecord.load(tmp_path / "r" / "a_network" / "decathlete.json").precision == fields["precision"]
    assert result.note == note
    assert result.summary.splitlines()[1:-1] == ([note] if note else [])


def test_a_pipeline_alone_is_not_written_in_a_precision_that_it_lacks(model: Path, tmp_path: Path) -> None:
    for fields, said in [
        ({"precision": "fp16", "instance_kind": "cpu"}, "cannot compute in fp16: fp16 is not for CPUs"),
        ({"precision": "bf16", "engine": "onnx"}, "cannot compute in bf16: the engine onnx does not"),
    ]:
        with pytest.raises(OptionError, match=said):
            export_triton(model, tmp_path / "r", settings=TritonSettings(models="pipeline", **fields))
    assert not (tmp_path / "r").exists()


def test_both_models_and_others_share_a_repository(model: Path, tmp_path: Path) -> None:
    repository = tmp_path / "r"
    settings = TritonSettings(name="a", warmup=1, format="torchscript-trace")
    export_triton(model, repository, settings=settings)
    export_triton(model, repository, settings=TritonSettings(name="b", models="pipeline", code=False))
    assert sorted(path.name for path in repository.iterdir()) == ["a_network", "a_pipeline", "b_pipeline"]
    pipeline = repository / "a_pipeline"
    assert (pipeline / "1" / "bundle" / "model.json").is_file()
    assert (pipeline / "1" / "code" / "decathlete" / "version.py").is_file()
    assert (pipeline / "warmup" / "volume").stat().st_size == 4 * 16**3
    assert not (repository / "b_pipeline" / "1" / "code").exists()
    with pytest.raises(OutputError, match="--overwrite"):
        export_triton(model, repository, settings=settings)


def test_a_new_repository_appears_with_both_models(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it is killed, there are both or none."""
    seen, replace = set(), os.replace

    def record_and_replace(*paths: Path) -> None:
        replace(*paths)
        seen.add(tuple(sorted(path.parent.name for path in tmp_path.glob("r/*/config.pbtxt"))))

    monkeypatch.setattr(os, "replace", record_and_replace)
    export_triton(model, tmp_path / "r", settings=TritonSettings(name="a", format="torchscript-trace", code=False))
    assert seen == {(), ("a_network", "a_pipeline")}
    assert {path.name for path in tmp_path.iterdir()} == {"m", "r"}


def test_images_have_no_effect_on_a_pipeline(model: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--input has no effect without the network"):
        export_triton(model, tmp_path / "r", settings=TritonSettings(models="pipeline"), inputs=tmp_path)


def test_what_a_killed_export_left_in_a_repository_is_removed(model: Path, tmp_path: Path) -> None:
    settings = TritonSettings(name="a", models="pipeline", code=False)
    export_triton(model, tmp_path / "r", settings=settings)
    (tmp_path / "r" / ".partial-p999999999-0123abcd-a_pipeline" / "1").mkdir(parents=True)
    export_triton(model, tmp_path / "r", settings=settings, overwrite=True)
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["a_pipeline"]


def test_members_of_one_plan_are_one_network_and_others_are_rejected(model: Path, tmp_path: Path) -> None:
    def combined(name: str, plan: Plan) -> Path:
        member = TrainedMember(plan=plan, networks=[build_network(plan.network, seed=7)])
        other = ModelBundle.save(tmp_path / f"{name}_other", member)
        return combine_bundles([model, other.folder], tmp_path / name).folder

    settings = TritonSettings(models="network", format="torchscript-trace")
    assert export_triton(combined("one", PLAN), tmp_path / "r", settings=settings).difference < 1e-5
    with pytest.raises(ModelError, match=r"has members of 2 plans.*\n  → export the pipeline alone"):
        export_triton(combined("two", make_test_plan(2)), tmp_path / "r2", settings=settings)


def versions_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def test_a_version_is_added_beside_the_others(model: Path, tmp_path: Path) -> None:
    def export(version: int, *, overwrite: bool = False, **fields: object) -> None:
        options = {"name": "a", "models": "pipeline", "code": False, "version_policy": "all"} | fields
        settings = TritonSettings(version=version, **options)  # type: ignore[arg-type]
        export_triton(model, tmp_path / "r", settings=settings, overwrite=overwrite)

    folder = tmp_path / "r" / "a_pipeline"
    export(1)
    (folder / "1" / "mark").touch()
    export(2, max_batch_size=3)
    assert (versions_of(folder), (folder / "1" / "mark").is_file()) == (["1", "2"], True)
    assert parse_config((folder / "config.pbtxt").read_text()).max_batch_size == 3
    (folder / "2" / "mark").touch()
    with pytest.raises(OutputError, match="2: already exists"):
        export(2)
    export(2, overwrite=True)
    assert [(folder / version / "mark").is_file() for version in ("1", "2")] == [True, False]


def test_versions_with_other_inputs_are_not_mixed(model: Path, tmp_path: Path) -> None:
    def export(version: int, shapes: bool) -> None:
        settings = TritonSettings(
            name="a", models="network", format="torchscript-trace", version=version, dynamic_shapes=shapes
        )
        export_triton(model, tmp_path / "r", settings=settings, overwrite=True)

    export(1, shapes=False)
    with pytest.raises(OutputError, match="has the version 1 with other inputs"):
        export(2, shapes=True)
    assert versions_of(tmp_path / "r" / "a_network") == ["1"]
    export(1, shapes=True)  # a single version is replaced, whatever its inputs were


def test_a_foreign_model_is_never_replaced(model: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "r" / "a_pipeline"
    foreign.mkdir(parents=True)
    (foreign / "config.pbtxt").write_text('name: "a_pipeline"')
    with pytest.raises(OutputError, match="did not write"):
        export_triton(model, tmp_path / "r", settings=TritonSettings(name="a", models="pipeline"), overwrite=True)
    assert [path.name for path in foreign.iterdir()] == ["config.pbtxt"]


def test_tensorrt_says_what_is_missing(model: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"missing here: .*pip install tensorrt.* and a CUDA GPU") as problem:
        export_triton(model, tmp_path / "r", settings=TritonSettings(format="tensorrt", models="network"))
    assert ".[triton]" not in str(problem.value)
    assert not (tmp_path / "r").exists()


def test_options_of_int8_alone_are_rejected(model: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="without --precision int8"):
        export_triton(model, tmp_path / "r", calibration=tmp_path)


@pytest.mark.parametrize(("precision", "name"), [("fp16", "FLOAT16"), ("bf16", "BFLOAT16")])
def test_a_graph_in_low_precision_has_consistent_types(precision: str, name: str) -> None:
    onnx = pytest.importorskip("onnx")
    network = build_network(PLAN.network, seed=0)
    graph = onnx.load_from_string(onnx_program([network], window=(1, *PLAN.patch_size), n_outputs=3, metadata={}))
    convert_to_half(graph, precision)
    types = {tensor.data_type for tensor in graph.graph.initializer}
    assert getattr(onnx.TensorProto, name) in types
    assert onnx.TensorProto.FLOAT not in types
    inferred = onnx.shape_inference.infer_shapes(graph, strict_mode=True).graph
    inside = {value.type.tensor_type.elem_type for value in inferred.value_info}
    assert onnx.TensorProto.FLOAT not in inside
    assert {value.type.tensor_type.elem_type for value in inferred.output} == {onnx.TensorProto.FLOAT}
