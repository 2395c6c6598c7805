"""Many cases: few of them are under way at one time."""

import threading

import pytest

from decathlete.core.parallel import map_cases
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
