"""What every image format has to fulfil, plug-ins that are installed included: first those that write, then all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from decathlete.core.geometry import Geometry, HeaderCodes
from decathlete.errors import ImageError, OutputError
from decathlete.io.format_lookup import find_format, formats_of_content, known_formats, output_suffix, suffix_of
from decathlete.io.format_settings import format_settings
from decathlete.io.formats import IMAGE_FORMATS, ImageFormat
from decathlete.io.images import (
    find_inputs,
    holds_integers,
    read_grid,
    read_image,
    read_label,
    read_volume,
    write_image,
    write_label,
    write_volume,
)

FORMATS = [IMAGE_FORMATS.build(IMAGE_FORMATS.settings(name)) for name in IMAGE_FORMATS.names()]
WRITTEN = [pytest.param(f, s, id=f"{f.settings.component}{s}") for f in FORMATS for s in f.written_suffixes]
READ = [pytest.param(f, s, id=f"{f.settings.component}{s}") for f in FORMATS for s in f.suffixes]
TYPES = (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32)

VOLUMES = [p for p in WRITTEN if p.values[0].written_axes == 3]
ON_GRIDS = [p for p in VOLUMES if p.values[0].keeps_grid]

writers = pytest.mark.parametrize(("kind", "suffix"), WRITTEN)
volume_writers = pytest.mark.parametrize(("kind", "suffix"), VOLUMES)
grid_writers = pytest.mark.parametrize(("kind", "suffix"), ON_GRIDS)
readers = pytest.mark.parametrize(("kind", "suffix"), READ)


def grid(
    shape: tuple[int, int, int] = (3, 4, 5), *, angle: float = 0.0, shear: float = 0.0, flip: bool = False
) -> Geometry:
    """Rotated about two axes, then sheared; ``flip``: with x towards the left and y towards the back (LPS)."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    slant = np.eye(3)
    slant[0, 2] = shear
    sign = -1 if flip else 1
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ slant @ np.array([[0, 0, sign * 1.25], [0, sign * 0.75, 0], [2.5, 0, 0]])
    matrix[:3, 3] = (-11.5, 7.25, 103.0)
    return Geometry.from_matrix(shape, matrix)


GRIDS = {
    "plain": grid(),
    "lps": grid(flip=True),
    "oblique": grid(angle=0.4),
    "slice": grid((1, 4, 5), angle=0.4),
    "column": grid((3, 1, 1)),
    "sheared": grid(angle=0.4, shear=0.2),
}


@grid_writers
@pytest.mark.parametrize("name", GRIDS)
def test_arrays_and_affines_survive(kind: ImageFormat, suffix: str, name: str, tmp_path: Path) -> None:
    if name == "sheared" and not kind.keeps_shear:
        pytest.skip("this format has no shear")
    geometry = GRIDS[name]
    image_CZYX = np.random.default_rng(0).normal(size=(1, *geometry.shape_ZYX)).astype(np.float32)
    path = tmp_path / f"x{suffix}"
    write_image(path, image_CZYX, geometry)
    back = read_image(path)
    np.testing.assert_array_equal(back.array_CZYX, image_CZYX)
    assert back.array_CZYX.dtype == np.float32
    assert back.geometry.shape_ZYX == geometry.shape_ZYX
    np.testing.assert_allclose(back.geometry.matrix, geometry.matrix, atol=2e-4)
    assert read_grid(path) == (1, back.geometry)


@writers
@pytest.mark.parametrize("dtype", TYPES)
def test_number_types_survive(kind: ImageFormat, suffix: str, dtype: type, tmp_path: Path) -> None:
    if np.dtype(dtype).name not in kind.written_types:
        pytest.skip("this format does not have the type")
    limits = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.finfo(dtype)
    shape = (3 if kind.written_axes == 3 else 1, 4, 5)
    array_CZYX = np.zeros((1, *shape), dtype)
    array_CZYX[0, 0, 0, :2] = limits.min, limits.max
    write_volume(tmp_path / f"x{suffix}", array_CZYX, grid(shape))
    back = read_volume(tmp_path / f"x{suffix}")
    assert back.array_CZYX.dtype == dtype
    np.testing.assert_array_equal(back.array_CZYX, array_CZYX)
    assert holds_integers(tmp_path / f"x{suffix}") == (np.dtype(dtype).kind in "iu")


@volume_writers
@pytest.mark.parametrize("highest", [1, 255, 256, 40000, 70000])
def test_label_maps_survive(kind: ImageFormat, suffix: str, highest: int, tmp_path: Path) -> None:
    label_ZYX = np.random.default_rng(0).integers(0, highest + 1, (3, 4, 5))
    label_ZYX[1, 2, 3] = highest
    write_label(tmp_path / f"x{suffix}", label_ZYX, grid(angle=0.4))
    back = read_label(tmp_path / f"x{suffix}")
    np.testing.assert_array_equal(back.array_ZYX, label_ZYX)
    assert back.array_ZYX.dtype.kind in "iu"


@volume_writers
def test_channels_survive(kind: ImageFormat, suffix: str, tmp_path: Path) -> None:
    image_CZYX = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype(np.float32)
    write_image(tmp_path / f"x{suffix}", image_CZYX, grid())
    np.testing.assert_array_equal(read_image(tmp_path / f"x{suffix}").array_CZYX, image_CZYX)
    assert read_grid(tmp_path / f"x{suffix}")[0] == 3


@volume_writers
def test_views_can_be_written(kind: ImageFormat, suffix: str, tmp_path: Path) -> None:
    image_CZYX = np.random.default_rng(0).normal(size=(1, 6, 4, 10)).astype(np.float32)[:, ::-2, :, ::2]
    write_image(tmp_path / f"x{suffix}", image_CZYX, grid())
    np.testing.assert_array_equal(read_image(tmp_path / f"x{suffix}").array_CZYX, image_CZYX)


@grid_writers
def test_headers_of_a_slice_and_units_do_no_harm(kind: ImageFormat, suffix: str, tmp_path: Path) -> None:
    """What a format cannot hold is left out: codes and units of another format's header."""
    codes = HeaderCodes(qform_code=0, sform_code=2, spatial_unit="micron", temporal_unit="sec", axes=2)
    geometry = grid((1, 4, 5)).revised(header=codes)
    write_label(tmp_path / f"x{suffix}", np.ones((1, 4, 5), int), geometry)
    back = read_label(tmp_path / f"x{suffix}")
    assert back.array_ZYX.shape == (1, 4, 5)
    np.testing.assert_allclose(back.geometry.matrix, geometry.matrix, atol=2e-4)


@writers
def test_a_file_is_written_whole_or_not_at_all(
    kind: ImageFormat, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, shape = tmp_path / f"x{suffix}", (3 if kind.written_axes == 3 else 1, 4, 5)
    write_label(path, np.ones(shape, int), grid(shape))
    before = path.read_bytes()
    used = next(f for f in known_formats() if suffix in f.written_suffixes)
    write = used.write_volume

    def fail_at_the_end(*args: object) -> None:
        write(*args)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(used, "write_volume", fail_at_the_end)
    with pytest.raises(OutputError):
        write_label(path, np.zeros(shape, int), grid(shape))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


@writers
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
def test_a_truncated_file_is_an_image_error(kind: ImageFormat, suffix: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    shape = (20 if kind.written_axes == 3 else 1, 20, 20)
    dtype = np.float32 if "float32" in kind.written_types else np.uint8
    values_CZYX = (100 + 20 * np.random.default_rng(0).normal(size=(1, *shape))).astype(dtype)
    write_volume(path, values_CZYX, grid(shape))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ImageError, match="truncated, damaged") as caught:
        read_image(path)
    assert caught.value.where == path
    assert caught.value.remedy


@writers
@pytest.mark.parametrize("highest", [1, 255])
def test_label_maps_of_a_slice_survive(kind: ImageFormat, suffix: str, highest: int, tmp_path: Path) -> None:
    label_ZYX = np.random.default_rng(0).integers(0, highest + 1, (1, 4, 5))
    write_label(tmp_path / f"x{suffix}", label_ZYX, Geometry.pixels((1, 4, 5)))
    np.testing.assert_array_equal(read_label(tmp_path / f"x{suffix}").array_ZYX, label_ZYX)


@writers
@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (2, 1, 4, 5)], ids=["volume", "channels"])
def test_what_a_format_cannot_hold_is_refused(
    kind: ImageFormat, suffix: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    if kind.written_axes == 3:
        pytest.skip("this format has volumes")
    with pytest.raises(OutputError, match="cannot hold"):
        write_volume(tmp_path / f"x{suffix}", np.zeros(shape, np.uint8), Geometry.pixels((shape[1], 4, 5)))
    with pytest.raises(OutputError, match="cannot hold"):
        write_label(tmp_path / f"x{suffix}", np.full((1, 4, 5), 70000), Geometry.pixels((1, 4, 5)))
    assert list(tmp_path.iterdir()) == []


@writers
def test_predictions_have_the_format_of_their_image(kind: ImageFormat, suffix: str) -> None:
    assert output_suffix(Path(f"x{suffix}")) == suffix
    assert output_suffix(Path(f"x{suffix.upper()}")) == suffix


@readers
def test_text_is_an_image_error(kind: ImageFormat, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_text("not an image at all\n" * 50)
    for read in (read_image, read_grid, read_label, read_volume, holds_integers):
        with pytest.raises(ImageError) as caught:
            read(path)
        assert caught.value.remedy


@readers
def test_a_file_is_found_by_its_suffix(kind: ImageFormat, suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"case.1{suffix.upper()}").write_text("")
    (path,) = tmp_path.iterdir()
    found = find_format(path)
    assert found is not None
    assert found.settings.component == kind.settings.component
    assert suffix_of(path.name) == suffix
    assert find_inputs(path) == {"case.1": (path,)}


@readers
def test_an_unwritable_suffix_is_refused(kind: ImageFormat, suffix: str, tmp_path: Path) -> None:
    if suffix in kind.written_suffixes:
        pytest.skip("this one is written")
    with pytest.raises(OutputError, match="cannot be written"):
        write_label(tmp_path / f"x{suffix}", np.zeros((3, 4, 5), int), grid())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", FORMATS, ids=lambda f: f.settings.component)
def test_a_format_says_what_it_is(kind: ImageFormat) -> None:
    assert kind.title
    assert IMAGE_FORMATS.resolve(kind.settings.component).summary
    assert set(kind.written_suffixes) <= set(kind.suffixes)
    assert set(kind.detached_suffixes) <= set(kind.suffixes)
    assert all(s.startswith(".") and s == s.lower() for s in kind.suffixes)
    assert all(mark and 0 <= offset <= 352 - len(mark) for offset, mark in kind.signatures)
    others = [s for f in FORMATS if f is not kind for s in f.suffixes]
    assert not set(kind.suffixes) & set(others), "two formats with one suffix"


@pytest.mark.parametrize("kind", FORMATS, ids=lambda f: f.settings.component)
def test_settings_of_a_format_are_documented_and_have_defaults(kind: ImageFormat) -> None:
    settings = IMAGE_FORMATS.resolve(kind.settings.component).settings
    assert all(settings.descriptions().values())
    assert IMAGE_FORMATS.settings(settings().to_config()) == kind.settings
    assert kind.settings == settings()
    assert kind.reading_settings <= settings.model_fields.keys()


@writers
def test_a_file_is_recognised_by_its_signature_alone(kind: ImageFormat, suffix: str, tmp_path: Path) -> None:
    shape = (3 if kind.written_axes == 3 else 1, 4, 5)
    write_label(tmp_path / f"a{suffix}", np.ones(shape, int), grid(shape))
    (tmp_path / f"a{suffix}").rename(tmp_path / "a")
    recognised = {known.settings.component: s for known, s in formats_of_content(tmp_path / "a").items()}
    if kind.signatures:
        assert set(recognised) == {kind.settings.component}
        assert recognised[kind.settings.component].endswith(".gz") == suffix.endswith(".gz")
    else:
        assert recognised == {}


@writers
def test_a_file_is_written_with_settings_that_are_named(kind: ImageFormat, suffix: str, tmp_path: Path) -> None:
    shape = (3 if kind.written_axes == 3 else 1, 4, 5)
    settings = format_settings({kind.settings.component: kind.settings.model_dump(mode="json")})
    for path, used in ((tmp_path / f"a{suffix}", settings), (tmp_path / f"b{suffix}", ())):
        write_label(path, np.ones(shape, int), grid(shape), settings=used)
        np.testing.assert_array_equal(read_label(path, formats=used).array_ZYX, np.ones(shape, int))
