"""File values to class indices: right for every integer type, and one pass however many classes there are."""

import time

import numpy as np
import pytest

from decathlete.core.labels import IGNORE_INDEX, LabelClass, LabelSet


def label_set(values, ignore=None):
    return LabelSet(classes=tuple(LabelClass(name=f"class {v}", value=v) for v in values), ignore=ignore)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32, ">i2"])
def test_gaps_ignored_and_undeclared_values(dtype):
    label_ZYX = np.array([[[0, 2, 7], [9, 3, 100]], [[100, 7, 2], [0, 0, 1]]], dtype)
    expected = [[[0, 1, 2], [IGNORE_INDEX, 0, 3]], [[3, 2, 1], [0, 0, 0]]]
    indices_ZYX = label_set([0, 2, 7, 100], ignore=9).to_indices(label_ZYX)
    assert indices_ZYX.dtype == np.uint8
    assert indices_ZYX.tolist() == expected


def test_negative_values_and_those_that_the_type_cannot_hold():
    label_ZYX = np.array([[[-1, 0, 127, -128]]], np.int8)
    assert label_set([0, 127, 400], ignore=-1).to_indices(label_ZYX).tolist() == [[[IGNORE_INDEX, 0, 1, 0]]]


def test_a_hundred_classes_take_no_longer_than_two():
    rows = np.arange(20 * 200)

    def seconds(n_classes):
        labels = label_set(range(n_classes))
        label_ZYX = np.repeat(rows * n_classes // len(rows), 200).reshape(20, 200, 200).astype(np.uint8)
        times = []
        for _ in range(3):
            began = time.perf_counter()
            labels.to_indices(label_ZYX)
            times.append(time.perf_counter() - began)
        return min(times)

    assert seconds(117) < 10 * seconds(2)  # class by class it would be 30 times
