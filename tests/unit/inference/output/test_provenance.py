import numpy as np
import pytest

from decathlete.core.geometry import Geometry
from decathlete.core.labels import LabelClass, LabelSet, Region
from decathlete.inference.output.provenance import inputs_digest, volumes_ml, voxel_counts


def test_volumes_in_millilitres():
    label = np.zeros((10, 10, 10), np.uint8)
    label[:5] = 1
    label[5] = 7
    labels = LabelSet(classes=tuple(LabelClass(name=n, value=v) for n, v in [("b", 0), ("x", 1), ("y", 7), ("z", 9)]))
    volumes = volumes_ml(voxel_counts(label, labels), Geometry.plain(label.shape, spacing_ZYX=(2.0, 1.0, 0.5)))
    assert volumes == pytest.approx({"x": 0.5, "y": 0.1, "z": 0.0})


def test_an_image_without_a_spacing_has_voxels_and_no_volumes():
    labels = LabelSet.from_names(["x"])
    voxels = voxel_counts(np.ones((1, 3, 4), np.uint8), labels)
    assert voxels == {"x": 12}
    assert volumes_ml(voxels, Geometry.pixels((1, 3, 4))) == {}
    assert volumes_ml(voxels, Geometry.pixels((1, 3, 4)).with_spacing((1.0, 10.0, 10.0))) == {"x": 1.2}


def test_volumes_of_regions_overlap():
    labels = LabelSet(
        classes=tuple(LabelClass(name=n, value=v) for v, n in enumerate(["b", "oedema", "core"])),
        regions=(Region(name="whole", values=(1, 2)), Region(name="core", values=(2,))),
        region_order=(1, 2),
    )
    label = np.array([[[0, 1, 2, 2]]], np.uint8)
    volumes = volumes_ml(voxel_counts(label, labels), Geometry.plain((1, 1, 4), spacing_ZYX=(10.0, 10.0, 10.0)))
    assert volumes == pytest.approx({"whole": 3.0, "core": 2.0})


def test_digest_follows_bytes_not_names(tmp_path):
    for name, content in [("a", b"1"), ("b", b"1"), ("c", b"2")]:
        (tmp_path / name).write_bytes(content)
    a, b, c = (tmp_path / n for n in "abc")
    assert inputs_digest([a]) == inputs_digest([b]) != inputs_digest([c])
    assert inputs_digest([a, c]) != inputs_digest([c, a])
    assert inputs_digest([tmp_path]) != inputs_digest([a])  # a folder: all its files
