import threading

import pytest

from decathlete.errors import ImageError
from decathlete.inference.batching.pipeline import compute_each, run_pipeline
from guards import HANG_S


@pytest.mark.parametrize("alone", [False, True])
def test_order_and_failures_at_each_step(alone):
    def failing_at(step):
        def function(case):
            if case == step:
                raise ImageError(f"bad in {step}")
            return case

        return function

    cases = {name: name for name in ("one", "read", "compute", "write", "two")}
    steps = {"read": failing_at("read"), "compute": compute_each(failing_at("compute")), "write": failing_at("write")}
    done = list(run_pipeline(cases, **steps, one_at_a_time=alone))
    assert [o.case_id for o in done] == list(cases)
    assert [o.error for o in done] == [None, "bad in read", "bad in compute", "bad in write", None]


def test_the_next_case_is_read_while_this_one_is_computed():
    read_second = threading.Event()

    def read(case):
        if case == 2:
            read_second.set()
        return case

    def compute(case):
        if case == 1:
            assert read_second.wait(HANG_S)
        return case

    assert len(list(run_pipeline({"a": 1, "b": 2}, read=read, compute=compute_each(compute), write=str))) == 2


def test_this_case_is_computed_while_the_last_is_written():
    computing_second = threading.Event()

    def compute(case):
        if case == 2:
            computing_second.set()
        return case

    def write(case):
        if case == 1:
            assert computing_second.wait(HANG_S)
        return case

    assert len(list(run_pipeline({"a": 1, "b": 2}, read=int, compute=compute_each(compute), write=write))) == 2


def test_nothing_waits_for_the_writer_while_there_is_nothing_to_write():
    collecting = threading.Event()

    def compute(cases):
        yield [next(cases)]
        for _ in range(2):
            next(cases)
            yield []
        collecting.set()
        yield [next(cases)]

    def write(case):
        if case == 1:
            assert collecting.wait(HANG_S)
        return case

    done = run_pipeline({str(i): i for i in range(1, 5)}, read=int, compute=compute, write=write)
    assert [outcome.value for outcome in done] == [1, 4]


def test_what_is_finished_together_is_written_while_the_next_is_computed():
    computing_third = threading.Event()

    def compute(cases):
        yield [next(cases), next(cases)]
        computing_third.set()
        yield list(cases)

    def write(case):
        assert computing_third.wait(HANG_S)
        return case

    done = run_pipeline({"a": 1, "b": 2, "c": 3}, read=int, compute=compute, write=write)
    assert [outcome.value for outcome in done] == [1, 2, 3]


def test_never_reads_more_than_one_ahead():
    read, computed = [], []

    def compute(case):
        assert len(read) <= len(computed) + 2
        computed.append(case)
        return case

    list(
        run_pipeline(
            {str(i): i for i in range(20)},
            read=lambda c: (read.append(c), c)[1],
            compute=compute_each(compute),
            write=int,
        )
    )
    assert len(computed) == 20


def test_an_unexpected_error_is_the_failure_of_its_case():
    outcomes = run_pipeline({"a": 0, "b": 2}, read=int, compute=compute_each(lambda c: 1 / c), write=float)
    failed, done = sorted(outcomes, key=lambda outcome: outcome.case_id)
    assert "unexpected ZeroDivisionError" in (failed.error or "")
    assert done.value == 0.5
