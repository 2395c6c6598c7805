"""Memory that runs out is the failure of one case; a bug is raised."""

import pytest

from decathlete.core.memory import is_out_of_memory
from decathlete.core.parallel import map_cases


@pytest.mark.parametrize("workers", [1, 2])
def test_a_case_that_runs_out_of_memory_fails_alone(workers):
    def work(case):
        if case == "large":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        if case == "huge":
            raise MemoryError
        return case

    cases = {name: name for name in ("small", "large", "huge", "tiny")}
    outcomes = {o.case_id: o for o in map_cases(work, cases, workers=workers)}
    assert [c for c in cases if outcomes[c].error] == ["large", "huge"]
    assert "--workers" in outcomes["large"].error
    assert outcomes["large"].cause.code == "E-MEMORY"


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "could not create a primitive",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "NCCL error: unhandled cuda error. Last error: Failed to CUDA calloc async 608 bytes",
    ],
)
def test_a_gpu_that_is_full_is_known_by_each_library_that_says_so(message):
    assert is_out_of_memory(RuntimeError(message))


def test_other_runtime_errors_are_no_lack_of_memory():
    def work(case):
        raise RuntimeError("shapes do not fit")

    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    (outcome,) = map_cases(work, {"a": 1}, workers=1)
    assert outcome.error is not None
    assert "unexpected RuntimeError: shapes do not fit" in outcome.error
