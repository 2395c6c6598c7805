"""Probabilities on disk, against the same as an array."""

import tracemalloc
from itertools import permutations, product
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch

from decathlete.core import machine
from decathlete.core.geometry import AxisTransform, Box, Geometry, HeaderCodes
from decathlete.core.labels import LabelSet
from decathlete.errors import OutputError
from decathlete.inference.output import probabilities
from decathlete.inference.output.probabilities import ProbabilityArray, ProbabilityFile
from decathlete.inference.output.restore import Restorer
from decathlete.io.images import read_image, write_image
from decathlete.preprocessing.prepared import Restoration
from factories import make_oblique_geometry

K = 3
AXES = [
    AxisTransform(permutation=order, flips=flips)
    for order, flips in product(
        permutations(range(3)), [(False, False, False), (True, False, True), (True, True, False)]
    )
]


def filled(store, shape):
    """Planes of every class but the last, from the second on, in parts of one and two."""
    numbers = np.random.default_rng(0).random((K, *shape), dtype=np.float32)
    for first, last in ((1, 2), (2, 4), (4, shape[0])):
        for k in range(K - 1):
            store.put(k, first, numbers[k, first:last])
    return store


@pytest.mark.parametrize("block_bytes", [1, 1000, 2**26])
@pytest.mark.parametrize("axes", AXES, ids=str)
def test_a_file_holds_what_an_array_holds(axes, block_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(probabilities, "BLOCK_BYTES", block_bytes)
    geometry = make_oblique_geometry((7, 6, 5), (1.5, 0.8, 1.1))
    working = axes.shape(geometry.shape_ZYX)
    expected = filled(ProbabilityArray(K, geometry, axes), working).array_KZYX
    written = filled(ProbabilityFile.nifti(tmp_path, K, geometry, axes), working)
    assert [p.name.startswith(".partial-") for p in tmp_path.iterdir()] == [True]
    written.put_in_order()
    np.testing.assert_array_equal(written.planes(2, 6), expected[:, 2:6])
    written.move_to(tmp_path / "probabilities.nii")
    write_image(tmp_path / "plain.nii", expected, geometry)
    assert (tmp_path / "probabilities.nii").read_bytes() == (tmp_path / "plain.nii").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain.nii", "probabilities.nii"]


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("header", [HeaderCodes(axes=2), HeaderCodes(spatial_unit="meter", qform_code=0, sform_code=3)])
def test_one_class_of_a_file_is_read_without_the_others(n_outputs, header, tmp_path):
    geometry = Geometry.plain((1, 6, 5), spacing_ZYX=(1.5, 0.8, 1.1)).revised(header=header.model_dump())
    store = ProbabilityFile.nifti(tmp_path, n_outputs, geometry, AxisTransform())
    numbers = np.random.default_rng(0).random((n_outputs, 1, 6, 5), dtype=np.float32)
    for k, planes in enumerate(numbers):
        store.put(k, 0, planes)
    store.move_to(tmp_path / "a.nii")
    assert not read_image(tmp_path / "a.nii").geometry.differences(geometry)
    mapped = nibabel.load(tmp_path / "a.nii").dataobj.get_unscaled()
    assert isinstance(mapped, np.memmap)
    last = mapped.reshape(5, 6, 1, n_outputs, order="F")[..., -1]
    np.testing.assert_array_equal(last.transpose(2, 1, 0), numbers[-1])


def test_a_disk_that_is_too_small_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=2000))
    with pytest.raises(
        OutputError, match=r"2.9 kB are needed for the prob.* 2.0 kB free[^\n]*\n\s+→ .*leave out --save"
    ):
        ProbabilityFile.nifti(tmp_path, K, Geometry.plain((7, 6, 5)), AxisTransform())
    assert not list(tmp_path.iterdir())


def test_a_file_that_was_cut_is_told(tmp_path):
    store = ProbabilityFile.nifti(tmp_path, K, Geometry.plain((7, 6, 5)), AxisTransform())
    store.path.write_bytes(store.path.read_bytes()[:-1])
    with pytest.raises(OutputError, match="shorter than when it was written"):
        store.planes(0, 7)
    store.discard()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_memory_does_not_follow_the_volume(order, tmp_path, monkeypatch):
    """25 MB of probabilities, whichever axis they are swept along, written in blocks of 64 kB."""
    monkeypatch.setattr(probabilities, "BLOCK_BYTES", 2**16)
    shape, axes = (24, 64, 64), AxisTransform(permutation=order)
    geometry = Geometry.plain(axes.inverse.shape(shape))
    way = Restoration(geometry=geometry, axes=axes, crop=Box(start=(0, 0, 0), stop=shape), shape=shape)
    slab = torch.zeros(64, 4, 64, 64)
    tracemalloc.start()  # counts what is allocated, not what is resident
    try:
        store = ProbabilityFile.nifti(tmp_path, 64, geometry, axes)
        restorer = Restorer(way, LabelSet.from_names([f"c{i}" for i in range(63)]), probabilities=store)
        for _ in range(6):
            restorer.add(slab)
        restorer.finish()
        store.move_to(tmp_path / "p.nii")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "p.nii").stat().st_size == 352 + 64 * 24 * 64 * 64 * 4
    assert peak_bytes < 2 * 10**6
