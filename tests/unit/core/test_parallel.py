"""Many cases: few of them are under way at one time, and the error of one does not stop the others."""

import struct
import threading
import zlib

import pytest

from decathlete.core.parallel import map_cases
from decathlete.errors import DecathleteError
from guards import HANG_S


class Counting(dict):
    """Cases that tell how many were taken."""

    taken = 0

    def items(self):
        for item in super().items():
            self.taken += 1
            yield item


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_cases_are_taken_as_others_finish(workers):
    cases = Counting({f"case {i}": i for i in range(100)})
    done = []
    for outcome in map_cases(lambda case: case, cases, workers=workers):
        done.append(outcome.value)
        assert cases.taken <= len(done) - 1 + 2 * workers
    assert sorted(done) == list(range(100))


def test_so_many_workers_work_at_one_time():
    both = threading.Barrier(2, timeout=HANG_S)
    outcomes = list(map_cases(lambda case: both.wait(), {"a": 1, "b": 2}, workers=2))
    assert [outcome.error for outcome in outcomes] == [None, None]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "problem",
    [
        ValueError("odd"),
        TypeError("odd"),
        KeyError("odd"),
        IndexError("odd"),
        OverflowError("odd"),
        RecursionError("odd"),
        RuntimeError("odd"),
        AssertionError("odd"),
        NotImplementedError("odd"),
        UnicodeDecodeError("utf-8", b"", 0, 1, "odd"),
        struct.error("odd"),
        zlib.error("odd"),
        EOFError("odd"),
        OSError("odd"),
        MemoryError("odd"),
    ],
    ids=lambda problem: type(problem).__name__,
)
def test_whatever_is_raised_for_one_case_is_its_failure(problem, workers):
    def work(case):
        if case == 1:
            raise problem
        return case

    outcomes = {o.case_id: o for o in map_cases(work, {"a": 0, "bad": 1, "c": 2}, workers=workers)}
    assert (outcomes["a"].value, outcomes["c"].value) == (0, 2)
    assert outcomes["bad"].value is None
    assert isinstance(outcomes["bad"].cause, DecathleteError)
    assert outcomes["bad"].error


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_stop_of_the_process_is_no_failure_of_a_case(stop):
    def work(case):
        raise stop

    with pytest.raises(stop):
        list(map_cases(work, {"a": 0, "b": 1}, workers=1))
