"""Multi-frame DICOM, lengths of pixel data, positions that fit no grid, attributes that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from test_dicom import write_slice

from decathlete.errors import ImageError
from decathlete.io.dicom_grid import POSITION_TOLERANCE
from decathlete.io.images import holds_integers, read_grid, read_image, read_volume

N, ROWS, COLUMNS = 6, 4, 5
VOXELS_ZYX = np.random.default_rng(0).integers(0, 900, (N, ROWS, COLUMNS)).astype(np.int16)
TILT = np.array([0, 0.3, 2.0])


def group(sequence: str, **attributes) -> tuple[str, Sequence]:
    item = Dataset()
    for name, value in attributes.items():
        setattr(item, name, value)
    return sequence, Sequence([item])


def write_frames(
    path: Path,
    order=range(N),
    *,
    step=(0, 0, 2.0),
    positions: bool = True,
    slopes=(1.0,) * N,
    shared_spacing=(0.5, 0.75),
    compress: bool = False,
    edit=lambda ds: None,
) -> None:
    """An enhanced file whose frame ``k`` is plane ``order[k]`` of the volume."""
    write_slice(path, 0, (0, 0, 0))
    ds = pydicom.dcmread(path)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
        delattr(ds, name)
    del ds.RescaleIntercept
    ds.NumberOfFrames = len(order)
    ds.PixelData = VOXELS_ZYX[list(order)].tobytes()
    shared, frames = Dataset(), []
    if shared_spacing:
        setattr(shared, *group("PixelMeasuresSequence", PixelSpacing=list(shared_spacing), SliceThickness=9))
    setattr(shared, *group("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 1, 0]))
    for k in order:
        frame = Dataset()
        if positions:
            position = [f"{v:.6g}" for v in np.array((7, 8, 9)) + k * np.array(step)]
            setattr(frame, *group("PlanePositionSequence", ImagePositionPatient=position))
        transformation = group("PixelValueTransformationSequence", RescaleSlope=slopes[k], RescaleIntercept=-10)
        setattr(frame, *transformation)
        frames.append(frame)
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = Sequence([shared]), Sequence(frames)
    if compress:
        ds.compress(RLELossless)
    edit(ds)
    ds.save_as(path)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(N)), step=st.sampled_from([(0, 0, 2.0), (0, 0, -1.5), tuple(TILT)]), data=st.data())
def test_frames_in_any_order_are_one_volume(tmp_path: Path, order, step, data) -> None:
    slopes = data.draw(st.sampled_from([(1.0,) * N, tuple(0.5 + k for k in range(N))]))
    path = tmp_path / "x.dcm"
    write_frames(path, order, step=step, slopes=slopes)
    image = read_image(path)
    expected = VOXELS_ZYX * np.array(slopes)[:, None, None] - 10
    normal = np.sign(step[2])
    np.testing.assert_allclose(image.array_CZYX[0], expected[:: int(normal)], atol=1e-3)
    np.testing.assert_allclose(image.geometry.matrix[:3, 0], np.array([-1, -1, 1]) * np.array(step) * normal, atol=1e-5)
    assert image.geometry.spacing_ZYX[1:] == pytest.approx((0.5, 0.75))
    assert read_grid(path) == (1, image.geometry)
    assert holds_integers(path) == (read_volume(path).array_CZYX.dtype.kind == "i") == (set(slopes) == {1.0})


def test_several_stacks_in_one_file_are_refused_with_what_to_do(tmp_path: Path) -> None:
    write_frames(tmp_path / "times.dcm", [0, 1, 2, 0, 1, 2])
    write_frames(tmp_path / "axes.dcm", range(N), edit=turn_second_half)
    for name, problem in (("times.dcm", "several slices lie at one position"), ("axes.dcm", "frame 4 differ in size")):
        with pytest.raises(ImageError, match=problem) as caught:
            read_image(tmp_path / name)
        assert "one file for each stack" in caught.value.remedy


def turn_second_half(ds: Dataset) -> None:
    for frame in ds.PerFrameFunctionalGroupsSequence[N // 2 :]:
        setattr(frame, *group("PlaneOrientationSequence", ImageOrientationPatient=[0, 1, 0, 0, 0, 1]))


def test_compressed_frames_are_sorted_too(tmp_path: Path) -> None:
    order = [3, 0, 5, 1, 4, 2]
    write_frames(tmp_path / "x.dcm", order, compress=True)
    np.testing.assert_allclose(read_image(tmp_path / "x.dcm").array_CZYX[0], VOXELS_ZYX - 10)
    slopes = tuple(range(1, N + 1))
    write_frames(tmp_path / "y.dcm", order, compress=True, slopes=slopes)
    expected = VOXELS_ZYX * np.array(slopes)[:, None, None] - 10
    np.testing.assert_allclose(read_image(tmp_path / "y.dcm").array_CZYX[0], expected)


def test_frames_without_positions_need_a_spacing(tmp_path: Path) -> None:
    write_frames(tmp_path / "x.dcm", positions=False)
    with pytest.raises(ImageError, match=r"(?s)does not say where its 6 frames lie.*--spacing Z,Y,X"):
        read_image(tmp_path / "x.dcm")
    image = read_image(tmp_path / "x.dcm", spacing=(3, 1, 1))
    assert image.geometry.spacing_ZYX == pytest.approx((3, 0.5, 0.75)), "what the file says is kept"
    np.testing.assert_allclose(image.array_CZYX[0], VOXELS_ZYX - 10)


def test_frames_without_positions_keep_the_place_of_the_file(tmp_path: Path) -> None:
    """Only the distance of the frames is missing: direction and first position are those of the file."""

    def place(ds: Dataset) -> None:
        del ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence
        ds.PixelSpacing, ds.ImagePositionPatient = [0.9, 1.1], [10, 20, 30]
        ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]  # sagittal

    write_frames(tmp_path / "x.dcm", positions=False, edit=place)
    geometry = read_grid(tmp_path / "x.dcm", spacing=(2, 1, 1))[1]
    expected = [[2, 0, 0, -10], [0, -1.1, 0, -20], [0, 0, -0.9, 30], [0, 0, 0, 1]]  # columns: slices, rows, columns
    matrix = np.array(geometry.matrix)
    np.testing.assert_allclose(matrix[:, 3], np.array(expected)[:, 3])
    np.testing.assert_allclose(sorted(map(tuple, matrix[:3, :3].T)), sorted(map(tuple, np.array(expected)[:3, :3].T)))


def test_a_count_of_frames_that_differs_is_an_error(tmp_path: Path) -> None:
    def drop(ds) -> None:
        ds.PerFrameFunctionalGroupsSequence = Sequence(ds.PerFrameFunctionalGroupsSequence[:-1])

    write_frames(tmp_path / "x.dcm", edit=drop)
    with pytest.raises(ImageError, match="declares 6 frames and describes 5"):
        read_image(tmp_path / "x.dcm")


def write_series(folder: Path, positions, edit=lambda ds, k: None) -> None:
    for k, position in enumerate(positions):
        write_slice(folder / f"{k:02d}.dcm", k, position)
        ds = pydicom.dcmread(folder / f"{k:02d}.dcm")
        edit(ds, k)
        ds.save_as(folder / f"{k:02d}.dcm")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize(
    ("n_bytes", "problem"), [(38, "header declares 40"), (2, "header declares 40"), (80, "more frames"), (42, None)]
)
def test_pixel_data_are_as_long_as_the_header_says(tmp_path: Path, syntax, n_bytes, problem) -> None:
    def cut(ds, k: int) -> None:
        if k == 1:
            ds.file_meta.TransferSyntaxUID = syntax
            ds.PixelData = VOXELS_ZYX.tobytes()[:n_bytes]

    write_series(tmp_path, [(0, 0, z) for z in range(3)], cut)
    if problem is None:  # a few bytes of padding
        assert read_image(tmp_path).array_CZYX.shape == (1, 3, 4, 5)
        return
    for source in (tmp_path, tmp_path / "01.dcm"):
        for read in (read_image, read_grid, read_volume):
            with pytest.raises(ImageError, match=problem) as caught:
                read(source)
            assert caught.value.where == tmp_path / "01.dcm"


@pytest.mark.parametrize("share", [0.3, 0.9, 0.97, 0.999])
@pytest.mark.parametrize("compress", [False, True])
def test_a_file_that_ends_early_is_named(tmp_path: Path, share: float, compress: bool) -> None:
    path = tmp_path / "x.dcm"
    write_frames(path, compress=compress)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert caught.value.where == path


def test_too_few_compressed_frames_are_an_error(tmp_path: Path) -> None:
    def add(ds) -> None:
        ds.NumberOfFrames = N + 3
        del ds.PerFrameFunctionalGroupsSequence

    write_frames(tmp_path / "x.dcm", compress=True, edit=add)
    with pytest.raises(ImageError, match="has 6 compressed frames, and its header declares 9"):
        read_image(tmp_path / "x.dcm")


def test_slices_off_the_grid_are_refused(tmp_path: Path) -> None:
    """In plane and along the normal: one shifted slice, a drift that grows, a step that changes half way."""
    even = np.arange(10)[:, None] * np.array([0, 0, 2.0])
    shifted, curved, two_steps = even.copy(), even.copy(), even.copy()
    shifted[4, 0] += 0.2
    curved[:, 1] = 0.02 * np.arange(10) ** 2
    two_steps[5:, 2] += 0.18 * np.arange(5)
    for name, positions in (("shifted", shifted), ("curved", curved), ("two_steps", two_steps)):
        write_series(tmp_path / name, positions)
        with pytest.raises(ImageError, match="away from its place on the grid"):
            read_grid(tmp_path / name)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("share", "fits"), [(0.9, True), (1.1, False)])
def test_the_tolerance_is_a_tenth_of_a_voxel(tmp_path: Path, axis, share, fits) -> None:
    positions = np.arange(5)[:, None] * np.array([0, 0, 2.0])
    positions[2, axis] += share * POSITION_TOLERANCE * (0.75, 0.5, 2.0)[axis]
    write_series(tmp_path, positions)
    if fits:
        assert read_grid(tmp_path)[1].spacing_ZYX == pytest.approx((2, 0.5, 0.75))
    else:
        with pytest.raises(ImageError, match=r"place on the grid|not evenly spaced"):
            read_grid(tmp_path)


def test_slices_stacked_aslant_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path, [(0, 3 * k, 2 * k) for k in range(4)])
    with pytest.raises(ImageError, match="stacked at an angle of 56"):
        read_grid(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("ImageOrientationPatient", [1, 0, 0, 0, 1], "5 numbers, where 6 belong"),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], "perpendicular"),
        ("ImageOrientationPatient", [0] * 6, "perpendicular"),
        ("ImagePositionPatient", [1, 2], "2 numbers, where 3 belong"),
        ("PixelSpacing", [0.5], "1 numbers, where 2 belong"),
        ("PixelSpacing", [0.5, 0], r"has no spacing between columns \(0\)"),
        ("PixelSpacing", [-1, -1], r"has no spacing between rows \(-1\), between columns \(-1\)"),
        ("PixelSpacing", None, "has no spacing between rows, between columns"),
        ("Rows", 0, "Rows cannot be used: 0"),
        ("NumberOfFrames", 0, "NumberOfFrames cannot be used: 0"),
        ("RescaleSlope", 0, "RescaleSlope cannot be used: it is 0"),
        ("HighBit", 11, "HighBit cannot be used: it is 11, and 16 bits are stored"),
        ("ModalityLUTSequence", Sequence([Dataset()]), "by a lookup table"),
    ],
)
def test_an_attribute_that_cannot_be_used_is_named(tmp_path: Path, name, value, problem) -> None:
    def edit(ds, k: int) -> None:
        if k == 1:
            setattr(ds, name, value)

    write_series(tmp_path, [(0, 0, z) for z in range(3)], edit)
    for read in (read_image, read_grid):
        with pytest.raises(ImageError, match=problem) as caught:
            read(tmp_path)
        assert caught.value.where == tmp_path / "01.dcm"


def test_a_given_spacing_completes_slices(tmp_path: Path) -> None:
    def edit(ds, k: int) -> None:
        ds.PixelSpacing = None

    write_series(tmp_path, [(0, 0, 2 * z) for z in range(3)], edit)
    assert read_grid(tmp_path, spacing=(9, 0.4, 0.6))[1].spacing_ZYX == pytest.approx((2, 0.4, 0.6))


@pytest.mark.parametrize("thickness", [None, 0])
def test_one_slice_without_thickness_needs_a_spacing(tmp_path: Path, thickness) -> None:
    def edit(ds, k: int) -> None:
        ds.SliceThickness = thickness

    write_series(tmp_path, [(0, 0, 0)], edit)
    with pytest.raises(ImageError, match="has no spacing between slices") as caught:
        read_grid(tmp_path)
    assert caught.value.code == "E-IMAGE-SPACING"
    assert read_grid(tmp_path, spacing=(4, 1, 1))[1].spacing_ZYX == pytest.approx((4, 0.5, 0.75))


@pytest.mark.parametrize(
    ("sop_class", "kind"),
    [("1.2.840.10008.5.1.4.1.1.481.3", "RT structure set"), ("1.2.840.10008.5.1.4.1.1.88.11", "report")],
)
def test_objects_without_voxels_beside_slices_are_left_out(tmp_path: Path, caplog, sop_class, kind) -> None:
    write_series(tmp_path / "in", [(0, 0, z) for z in range(3)])
    other = pydicom.dcmread(tmp_path / "in" / "00.dcm")
    for name in ("Rows", "Columns", "PixelData"):
        delattr(other, name)
    other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = sop_class
    other.save_as(tmp_path / "in" / "other.dcm")
    assert read_image(tmp_path / "in").array_CZYX.shape == (1, 3, 4, 5)
    assert f"not used: other.dcm (a{'n' if kind[0] == 'R' else ''} " in caplog.text
    for path in (tmp_path / "in" / "other.dcm", tmp_path / "alone"):
        (tmp_path / "alone").mkdir(exist_ok=True)
        other.save_as(tmp_path / "alone" / "other.dcm")
        with pytest.raises(ImageError, match=kind):
            read_image(path)


@pytest.mark.parametrize("is_signed", [False, True])
def test_numbers_of_inverted_slices_are_measurements(tmp_path: Path, is_signed: bool) -> None:
    def edit(ds, k: int) -> None:
        ds.PhotometricInterpretation, ds.PixelRepresentation = "MONOCHROME1", int(is_signed)
        ds.RescaleSlope, ds.RescaleIntercept = 2, -7

    write_series(tmp_path, [(0, 0, z) for z in range(3)], edit)
    assert read_image(tmp_path).array_CZYX[0, :, 1, 1].tolist() == [-7, -5, -3]
    assert read_volume(tmp_path / "02.dcm").array_CZYX[0, 0, 1, 1] == -3


def test_inverted_slices_may_have_other_bits(tmp_path: Path) -> None:
    def edit(ds, k: int) -> None:
        ds.PhotometricInterpretation, ds.PixelRepresentation = "MONOCHROME1", 0
        ds.BitsStored, ds.HighBit = (16, 15) if k else (12, 11)

    write_series(tmp_path, [(0, 0, z) for z in range(3)], edit)
    assert read_image(tmp_path).array_CZYX[0, :, 1, 1].tolist() == [0, 1, 2]


def test_slices_that_are_inverted_in_part_are_refused(tmp_path: Path) -> None:
    def edit(ds, k: int) -> None:
        ds.PhotometricInterpretation = "MONOCHROME1" if k == 2 else "MONOCHROME2"

    write_series(tmp_path, [(0, 0, z) for z in range(3)], edit)
    for read in (read_image, read_grid):
        with pytest.raises(ImageError, match=r"differ in their PhotometricInterpretation \(MONOCHROME2, MONOCHROME1\)"):
            read(tmp_path)


def test_two_slices_that_are_shifted_in_their_plane_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path, [(0, 0, 0), (50, 0, 3)])
    with pytest.raises(ImageError, match="stacked at an angle of 86"):
        read_grid(tmp_path)


def test_several_frames_with_a_palette_are_refused(tmp_path: Path) -> None:
    def edit(ds) -> None:
        ds.PhotometricInterpretation = "PALETTE COLOR"

    write_frames(tmp_path / "x.dcm", edit=edit)
    for read in (read_image, read_grid):
        with pytest.raises(ImageError, match="6 frames with a palette of colours"):
            read(tmp_path / "x.dcm")
