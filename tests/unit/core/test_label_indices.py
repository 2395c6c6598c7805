"""File values to class indices: right for every integer type, and one pass however many classes there are."""

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


class Counting(np.ndarray):
    """Counts the operations on it."""

    operations = 0

    def __getitem__(self, key):
        Counting.operations += 1
        return super().__getitem__(key)

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        Counting.operations += 1
        return getattr(ufunc, method)(*(np.asarray(value) for value in inputs), **options)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_a_hundred_classes_take_no_more_passes_than_two(dtype):
    def operations(n_classes):
        label_ZYX = (np.arange(20 * 40).reshape(20, 5, 8) % n_classes).astype(dtype)
        Counting.operations = 0
        indices_ZYX = label_set(range(n_classes)).to_indices(label_ZYX.view(Counting))
        assert np.array_equal(indices_ZYX, label_ZYX)
        return Counting.operations

    assert operations(117) == operations(2) > 0
