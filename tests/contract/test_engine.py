"""What every registered inference engine does, those of installed plug-ins included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from decathlete.errors import MissingPackageError
from decathlete.inference.engines import ENGINES, Engine
from decathlete.inference.engines.torch import TorchEngine
from decathlete.inference.output.provenance import RecordedSettings
from decathlete.inference.predict import Predictor
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.networks.devices import resolve_device
from decathlete.planning.plan import Plan
from factories import make_test_plan

pytestmark = pytest.mark.parametrize("name", ENGINES.names())


def test_its_name_is_listed_without_importing_torch(name: str) -> None:
    if name not in ENGINES.installed_names:
        pytest.skip("a loose module, which another process does not know")
    code = (
        "import sys; from decathlete.inference.engines import ENGINES; print(*ENGINES.names());"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert name in done.stdout.split()


def test_it_says_what_it_can_do(name: str) -> None:
    component = ENGINES.resolve(name)
    cls = component.cls
    assert component.summary
    assert set(cls.devices) <= {"cpu", "cuda", "mps"}
    assert "fp32" in cls.precisions
    assert 0 <= cls.tolerance <= 0.01
    for device in cls.devices:
        assert cls.relative_speed(torch.device(device)) >= 0
    for device in {"cpu", "cuda", "mps"} - set(cls.devices):
        assert cls.relative_speed(torch.device(device)) == 0


def test_it_is_available_or_says_what_is_missing(name: str) -> None:
    problem = why_missing(ENGINES.resolve(name).cls)
    if problem is not None:
        assert problem.package
        assert problem.remedy


@pytest.mark.parametrize("dims", [2, 3])
def test_its_logits_are_torchs_within_its_tolerance(name: str, dims: int) -> None:
    plan = make_test_plan(dims, n_channels=2)
    engine, reference = engines(name, plan)
    for n in (1, 3):
        windows = make_windows(plan, n).to(engine.device)
        check_close(engine(windows), reference(windows.cpu()), type(engine))
    flipped = make_windows(plan, 3).flip(2).transpose(2, 3).contiguous().transpose(2, 3)  # strides of its own
    check_close(engine(flipped.to(engine.device)), reference(flipped), type(engine))


def test_its_logits_belong_to_the_caller(name: str) -> None:
    """No later call writes to them, and the caller may."""
    plan = make_test_plan(2, n_channels=2)
    engine, _ = engines(name, plan)
    first, second = make_windows(plan, 3).to(engine.device), make_windows(plan, 3, seed=1).to(engine.device)
    logits = engine(first)
    copy = logits.clone()
    other = engine(second)
    assert torch.equal(logits, copy)
    with torch.inference_mode():
        logits.zero_()
    assert torch.equal(engine(first), copy)
    assert float(other.abs().max()) > 0


def test_it_describes_itself_for_the_record(name: str) -> None:
    engine, _ = engines(name, make_test_plan(2, n_channels=2))
    assert (engine.name, engine.precision) == (name, "fp32")
    assert engine.device.type in engine.devices


def test_its_settings_are_documented_and_have_defaults(name: str) -> None:
    settings = ENGINES.resolve(name).settings
    assert all(settings.descriptions().values())
    assert ENGINES.settings(settings().to_config()) == settings()


def test_a_prediction_records_its_settings(name: str, tmp_path: Path) -> None:
    """As JSON that gives the same settings again."""
    component = ENGINES.resolve(name)
    plan = make_test_plan(2, n_channels=2)
    chosen = engines(name, plan)[0].device
    network = build_network(plan.network, seed=1)
    ModelBundle.save(tmp_path / "m", TrainedMember(plan=plan, networks=[network]))
    predictor = Predictor.load(tmp_path / "m", engine=component.settings(), precision="fp32", device=str(chosen))
    (used,) = predictor.settings.models
    again = RecordedSettings.model_validate_json(predictor.settings.model_dump_json())
    assert again == predictor.settings
    assert ENGINES.settings({"name": used.engine, **used.engine_settings}) == component.settings()


def why_missing(cls: type[Engine]) -> MissingPackageError | None:
    try:
        cls.check_available()
    except MissingPackageError as problem:
        return problem
    return None


def engines(name: str, plan: Plan) -> tuple[Engine, TorchEngine]:
    """The engine, on a device that is here, and torch on the CPU with the same weights."""
    component = ENGINES.resolve(name)
    cls = component.cls
    if (problem := why_missing(cls)) is not None:
        pytest.skip(problem.problem)
    if not cls.supports(plan):
        pytest.skip(f"{name} does not compute this architecture")
    device = resolve_device("auto") if resolve_device("auto").type in cls.devices else torch.device(cls.devices[0])
    if device.type != "cpu" and device.type != resolve_device("auto").type:
        pytest.skip(f"there is no {device.type} here")
    settings: Any = component.settings()
    network = build_network(plan.network, seed=1).eval()
    engine = cls.from_network(settings, network, plan, device=device, precision="fp32", layout="auto")
    return engine, TorchEngine(build_network(plan.network, seed=1).eval(), device="cpu", precision="fp32")


def make_windows(plan: Plan, n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, len(plan.channels), *plan.patch_size, generator=torch.Generator().manual_seed(seed))


def check_close(logits: Tensor, expected: Tensor, cls: type[Engine]) -> None:
    assert logits.dtype == torch.float32
    assert logits.shape == expected.shape
    assert not logits.requires_grad
    torch.testing.assert_close(logits.cpu(), expected, rtol=0, atol=cls.tolerance * float(expected.abs().max()))
