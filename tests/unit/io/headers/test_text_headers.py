"""Headers of NRRD and MetaImage: read as ITK reads them, and rejected where anything is not as it must be."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from decathlete.core.geometry import Geometry
from decathlete.errors import ImageError
from decathlete.io.headers.text import MAX_LINE
from decathlete.io.images import read_grid, read_image, read_volume
from decathlete.io.itk import ras_matrix

SIZES = (7, 6, 5)
VOXELS_ZYX = np.arange(210, dtype="<i2").reshape(5, 6, 7) * 37 - 3000
RAW = VOXELS_ZYX.tobytes()
GEOMETRY = "space directions: (0.7,0,0) (0,0.8,0.1) (0,-0.1,2.5)\nspace origin: (1,2,3)\n"
PLAIN = "spacings: 0.7 0.8 2.5\n"
NRRD = (
    "NRRD0004\n# a comment\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 7 6 5\n"
    f"{GEOMETRY}kinds: domain domain domain\nendian: little\nencoding: raw\n\n"
)
WITHOUT_SPACE = NRRD.replace("space: left-posterior-superior\n", "").replace(GEOMETRY, PLAIN)
META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
    "TransformMatrix = 0 1 0 -1 0 0 0 0 1\nOffset = 1 2 3\nCenterOfRotation = 0 0 0\nAnatomicalOrientation = RAI\n"
    "ElementSpacing = 0.7 0.8 2.5\nDimSize = 7 6 5\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
)
ZIPPED = zlib.compress(RAW)
META_ZIPPED = META.replace("CompressedData = False", f"CompressedData = True\nCompressedDataSize = {len(ZIPPED)}")
LONG = "x" * 5000
SEGMENT = f"Segment0_Tags:=Segmentation.Status:inprogress|{LONG}|\n"


def edit(header: str, old: str, new: str) -> str:
    assert old in header
    return header.replace(old, new)


def write(path: Path, header: str, voxels: bytes = RAW) -> Path:
    path.write_bytes(header.encode() + voxels)
    return path


NRRD_LIKE_ITK = {
    "plain": (NRRD, RAW),
    "carriage returns": (NRRD.replace("\n", "\r\n"), RAW),
    "gzip": (edit(NRRD, "encoding: raw", "encoding: gzip"), gzip.compress(RAW)),
    "gzip, two members": (edit(NRRD, ": raw", ": gz"), gzip.compress(RAW[:100]) + gzip.compress(RAW[100:])),
    "ascii": (edit(NRRD, ": raw", ": ascii"), " ".join(map(str, VOXELS_ZYX.ravel())).encode()),
    "hex": (edit(NRRD, ": raw", ": hex"), RAW.hex().encode()),
    "big endian": (edit(NRRD, "little", "big"), RAW),
    "RAS": (edit(NRRD, "left-posterior-superior", "right-anterior-superior"), RAW),
    "LAS": (edit(NRRD, "left-posterior-superior", "LAS"), RAW),
    "scanner": (edit(NRRD, "left-posterior-superior", "scanner-xyz"), RAW),
    "space dimension": (edit(NRRD, "space: left-posterior-superior", "space dimension: 3"), RAW),
    "no space": (WITHOUT_SPACE, RAW),
    "axis mins": (edit(WITHOUT_SPACE, PLAIN, f"{PLAIN}axis mins: 1 2 3\n"), RAW),
    "axis mins of nodes": (edit(WITHOUT_SPACE, PLAIN, f"{PLAIN}axis mins: 1 2 3\ncenters: node cell ???\n"), RAW),
    "no kinds": (edit(NRRD, "kinds: domain domain domain\n", ""), RAW),
    "no origin": (edit(NRRD, "space origin: (1,2,3)\n", ""), RAW),
    "spaces in vectors": (edit(NRRD, "(0.7,0,0)", "( 0.7, 0, 0 )"), RAW),
    "upper case": (edit(NRRD, "type: short", "Type: SHORT"), RAW),
    "long value of a key": (edit(NRRD, "endian", f"{SEGMENT}endian"), RAW),
    "long comment": (edit(NRRD, "endian", f"# {LONG}\nendian"), RAW),
    "long content": (edit(NRRD, "endian", f"content: {LONG}\nendian"), RAW),
    "unsigned": (edit(NRRD, "type: short", "type: unsigned short int"), RAW),
    "float": (edit(NRRD, "type: short", "type: float"), VOXELS_ZYX.astype("<f4").tobytes()),
    "double": (edit(NRRD, "type: short", "type: double"), VOXELS_ZYX.astype("<f8").tobytes()),
    "64 bits": (edit(NRRD, "type: short", "type: longlong"), VOXELS_ZYX.astype("<i8").tobytes()),
    "bytes without order": (
        edit(edit(NRRD, "type: short", "type: uchar"), "endian: little\n", ""),
        VOXELS_ZYX.astype("u1").tobytes(),
    ),
    "byte skip": (edit(NRRD, "endian", "byte skip: 4\nendian"), b"skip" + RAW),
    "byte skip from the end": (edit(NRRD, "endian", "byte skip: -1\nendian"), b"anything" + RAW),
    "line skip": (edit(NRRD, "endian", "line skip: 2\nendian"), b"one\ntwo\n" + RAW),
    "vectors": (
        "NRRD0004\ntype: uchar\ndimension: 4\nspace: LPS\nsizes: 3 7 5 2\nkinds: vector domain domain domain\n"
        "space directions: none (0.7,0,0) (0,0.8,0) (0,0,2.5)\nspace origin: (1,2,3)\nencoding: raw\n\n",
        RAW[:210],
    ),
    "list as the last axis": (
        "NRRD0004\ntype: uchar\ndimension: 4\nspace: LPS\nsizes: 7 5 2 3\nkinds: domain domain domain list\n"
        "space directions: (0.7,0,0) (0,0.8,0) (0,0,2.5) none\nspace origin: (1,2,3)\nencoding: raw\n\n",
        RAW[:210],
    ),
    "one component": (
        "NRRD0004\ntype: uchar\ndimension: 4\nspace: LPS\nsizes: 1 7 15 2\nkinds: vector domain domain domain\n"
        "space directions: none (0.7,0,0) (0,0.8,0) (0,0,2.5)\nspace origin: (1,2,3)\nencoding: raw\n\n",
        RAW[:210],
    ),
    "slice": (
        "NRRD0004\ntype: uchar\ndimension: 2\nspace dimension: 2\nsizes: 42 5\n"
        "space directions: (0.7,0) (0,0.8)\nspace origin: (1,2)\nencoding: raw\n\n",
        RAW[:210],
    ),
}

META_LIKE_ITK = {
    "plain": (META, RAW),
    "carriage returns": (META.replace("\n", "\r\n"), RAW),
    "colons": (META.replace(" = ", ": "), RAW),
    "no spaces": (META.replace(" = ", "="), RAW),
    "zlib": (META_ZIPPED, ZIPPED),
    "big endian": (edit(META, "MSB = False", "MSB = True"), RAW),
    "other name of the byte order": (edit(META, "BinaryDataByteOrderMSB = False", "ElementByteOrderMSB = True"), RAW),
    "other name of the origin": (edit(META, "Offset", "Position"), RAW),
    "other name of the axes": (edit(META, "TransformMatrix", "Orientation"), RAW),
    "other name of the spacing": (edit(META, "ElementSpacing", "ElementSize"), RAW),
    "no axes": (edit(META, "TransformMatrix = 0 1 0 -1 0 0 0 0 1\n", ""), RAW),
    "no origin": (edit(META, "Offset = 1 2 3\n", ""), RAW),
    "key of the user": (edit(META, "DimSize", "0008|0060 = MR; of = 3: T\nDimSize"), RAW),
    "voxels at the end": (edit(META, "DimSize", "HeaderSize = -1\nDimSize"), RAW),
    "long": (edit(META, "MET_SHORT", "MET_LONG"), VOXELS_ZYX.astype("<i4").tobytes()),
    "double": (edit(META, "MET_SHORT", "MET_DOUBLE"), VOXELS_ZYX.astype("<f8").tobytes()),
    "vectors": (
        edit(edit(META, "MET_SHORT", "MET_UCHAR_ARRAY"), "7 6 5", "7 5 2\nElementNumberOfChannels = 3"),
        RAW[:210],
    ),
    "slice": (
        "NDims = 2\nOffset = 1 2\nElementSpacing = 0.7 0.8\nDimSize = 42 5\nElementType = MET_UCHAR\n"
        "ElementDataFile = LOCAL\n",
        RAW[:210],
    ),
    "four axes": (
        "NDims = 4\nOffset = 1 2 3 0\nElementSpacing = 0.7 0.8 2.5 1\nDimSize = 7 5 2 3\nElementType = MET_UCHAR\n"
        "ElementDataFile = LOCAL\n",
        RAW[:210],
    ),
}


@pytest.mark.parametrize("name", [*(f"{n}.nrrd" for n in NRRD_LIKE_ITK), *(f"{n}.mha" for n in META_LIKE_ITK)])
def test_images_are_read_as_itk_reads_them(tmp_path: Path, name: str) -> None:
    stem, suffix = name.rsplit(".", 1)
    header, voxels = (NRRD_LIKE_ITK if suffix == "nrrd" else META_LIKE_ITK)[stem]
    path = write(tmp_path / f"x.{suffix}", header, voxels)
    volume = read_volume(path)
    array_CZYX, geometry = read_by_itk(path)
    wanted = array_CZYX if array_CZYX.dtype.kind in "iu" else array_CZYX.astype(np.float32)
    assert volume.array_CZYX.dtype == wanted.dtype
    np.testing.assert_array_equal(volume.array_CZYX, wanted)
    assert volume.geometry.shape_ZYX == geometry.shape_ZYX
    np.testing.assert_allclose(volume.geometry.matrix, geometry.matrix, rtol=1e-12, atol=1e-12)
    assert read_grid(path) == (len(wanted), volume.geometry)


def read_by_itk(path: Path) -> tuple[np.ndarray, Geometry]:
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    axes = image.GetDimension()
    direction, keep = np.array(image.GetDirection()).reshape(axes, axes), min(axes, 3)
    steps, origin = np.eye(3), np.zeros(3)
    steps[:keep, :keep] = direction[:keep, :keep] * image.GetSpacing()[:keep]
    origin[:keep] = image.GetOrigin()[:keep]
    x, y, z = (*image.GetSize(), 1)[:3]
    geometry = Geometry.from_matrix((z, y, x), ras_matrix(steps, origin))
    return array.reshape(-1, z, y, x), geometry


NRRD_REJECTED = {
    "long line that is no field": (edit(NRRD, "endian", f"{LONG}\nendian"), "neither a known field"),
    "long sizes": (edit(NRRD, "7 6 5", "7 6 5" + " 1" * 900), "characters"),
    "long number": (edit(NRRD, "7 6 5", f"7 6 {'5' * 400}"), "not a number"),
    "very long line": (edit(NRRD, "endian", f"# {'x' * MAX_LINE}\nendian"), "line of more than"),
    "5000 digits": (edit(NRRD, "7 6 5", f"7 6 {'5' * 5000}"), "characters"),
    "many lines": (edit(NRRD, "endian", "# x\n" * 10_001 + "endian"), "lines"),
    "zero bytes": (edit(NRRD, "endian", "a:=\0\nendian"), "zero bytes"),
    "unknown field": (edit(NRRD, "endian", "colour: red\nendian"), "neither a known field"),
    "field twice": (edit(NRRD, "endian", "sizes: 7 6 5\nendian"), "twice"),
    "no type": (edit(NRRD, "type: short\n", ""), "no field type"),
    "no sizes": (edit(NRRD, "sizes: 7 6 5\n", ""), "no field sizes"),
    "no dimension": (edit(NRRD, "dimension: 3\n", ""), "no field dimension"),
    "no encoding": (edit(NRRD, "encoding: raw\n", ""), "no field encoding"),
    "no byte order": (edit(NRRD, "endian: little\n", ""), "no field endian"),
    "odd byte order": (edit(NRRD, "little", "middle"), "byte order"),
    "blocks": (edit(NRRD, "type: short", "type: block\nblock size: 2"), "type"),
    "too many sizes": (edit(NRRD, "7 6 5", "7 6 5 4"), "4 numbers in sizes"),
    "size that is a word": (edit(NRRD, "7 6 5", "7 six 5"), "not a number"),
    "size with a point": (edit(NRRD, "7 6 5", "7 6 5.0"), "not a number"),
    "empty axis": (edit(NRRD, "7 6 5", "7 6 0"), "each axis"),
    "negative axis": (edit(NRRD, "7 6 5", "7 6 -5"), "each axis"),
    "long axis": (edit(NRRD, "7 6 5", "7 6 32768"), "each axis"),
    "huge": (edit(NRRD, "7 6 5", "32767 32767 32767"), "truncated, damaged"),
    "fewer voxels": (edit(NRRD, "7 6 5", "7 6 4"), "more voxels than"),
    "more voxels": (edit(NRRD, "7 6 5", "7 6 6"), "truncated, damaged"),
    "no spacing": (edit(WITHOUT_SPACE, PLAIN, ""), "has no spacing"),
    "no direction of an axis": (edit(NRRD, "(0,-0.1,2.5)", "none"), "spacing is unknown"),
    "spacing that is no number": (edit(WITHOUT_SPACE, "0.8", "nan"), "has no spacing"),
    "no spacing of one axis": (edit(WITHOUT_SPACE, "0.7 0.8 2.5", "0.7 0.8"), "2 numbers in spacings"),
    "infinite direction": (edit(NRRD, "(0.7,0,0)", "(1e999,0,0)"), "not finite"),
    "direction nan": (edit(NRRD, "(0.7,0,0)", "(nan,0,0)"), "not a number"),
    "direction of two numbers": (edit(NRRD, "(0.7,0,0)", "(0.7,0)"), "2 numbers"),
    "directions and rubbish": (edit(NRRD, "(0.7,0,0)", "(0.7,0,0) x"), "not vectors"),
    "spacings beside a space": (edit(NRRD, GEOMETRY, PLAIN), "space directions"),
    "parallel axes": (edit(NRRD, "(0,0.8,0.1)", "(0.7,0,0)"), "singular"),
    "origin of words": (edit(NRRD, "(1,2,3)", "(a,b,c)"), "not a number"),
    "origin of two numbers": (edit(NRRD, "(1,2,3)", "(1,2)"), "2 numbers"),
    "unknown space": (edit(NRRD, "left-posterior-superior", "outer"), "space 'outer'"),
    "space of four dimensions": (edit(NRRD, "left-posterior-superior", "scanner-xyz-time"), "space"),
    "unknown kind": (edit(NRRD, "domain domain domain", "domain domain odd"), "kind"),
    "complex": (edit(NRRD, "domain domain domain", "complex domain domain"), "kind 'complex'"),
    "two component axes": (edit(NRRD, "domain domain domain", "list domain vector"), "2 axes that are not in space"),
    "bzip2": (edit(NRRD, "encoding: raw", "encoding: bzip2"), "encoding 'bzip2'"),
    "negative skip": (edit(NRRD, "endian", "byte skip: -7\nendian"), "skips"),
    "huge skip": (edit(NRRD, "endian", "byte skip: 999999999999\nendian"), "truncated, damaged"),
    "spacing of 352 mm": (edit(NRRD, "2.5)", "352)"), "implausible spacing"),
    "spacing of 1e38 mm": (edit(WITHOUT_SPACE, "2.5", "1e38"), "implausible spacing"),
    "spacing of 1e-7 mm": (edit(WITHOUT_SPACE, "2.5", "1e-7"), "implausible spacing"),
}

META_REJECTED = {
    "unreadable origin": (edit(META, "Offset = 1 2 3", "Offset = a b c"), "not a number"),
    "origin of two numbers": (edit(META, "Offset = 1 2 3", "Offset = 1 2"), "2 numbers in Offset"),
    "infinite origin": (edit(META, "Offset = 1 2 3", "Offset = 1 2 1e999"), "not finite"),
    "origin twice": (edit(META, "DimSize", "Position = 4 5 6\nDimSize"), "Offset twice"),
    "unreadable axes": (edit(META, "0 1 0 -1", "0 1 0 - 1"), "10 numbers"),
    "no spacing": (edit(META, "ElementSpacing = 0.7 0.8 2.5\n", ""), "has no spacing"),
    "negative spacing": (edit(META, "0.8", "-0.8"), "has no spacing"),
    "spacing 0": (edit(META, "0.8", "0"), "has no spacing"),
    "spacing of 352 mm": (edit(META, "2.5", "352"), "implausible spacing"),
    "spacing of 1e38 mm": (edit(META, "2.5", "1e38"), "implausible spacing"),
    "no size": (edit(META, "DimSize = 7 6 5\n", ""), "no field DimSize"),
    "sizes with commas": (edit(META, "7 6 5", "7,6,5"), "numbers in DimSize"),
    "5000 digits": (edit(META, "7 6 5", f"7 6 {'5' * 5000}"), "characters"),
    "huge": (edit(META, "7 6 5", "32767 32767 32767"), "truncated, damaged"),
    "many channels": (edit(META, "DimSize", "ElementNumberOfChannels = 40000\nDimSize"), "each axis"),
    "fewer voxels": (edit(META, "7 6 5", "7 6 4"), "more voxels than"),
    "no type": (edit(META, "ElementType = MET_SHORT\n", ""), "no field ElementType"),
    "unknown type": (edit(META, "MET_SHORT", "MET_OTHER"), "type"),
    "text": (edit(META, "BinaryData = True", "BinaryData = False"), "voxels as text"),
    "odd flag": (edit(META, "MSB = False", "MSB = maybe"), "neither True nor False"),
    "no compressed size": (
        edit(META, "CompressedData = False", "CompressedData = True"),
        "no field CompressedDataSize",
    ),
    "line without value": (edit(META, "DimSize", f"{LONG}\nDimSize"), "not a field"),
    "very long line": (edit(META, "DimSize", f"Comment = {'x' * MAX_LINE}\nDimSize"), "line of more than"),
    "end before the voxels": (edit(META, "ElementDataFile = LOCAL\n", ""), "."),
    "voxels elsewhere": (edit(META, "DimSize", "HeaderSize = 4\nDimSize"), "HeaderSize"),
}


@pytest.mark.parametrize("name", [*(f"{n}.nrrd" for n in NRRD_REJECTED), *(f"{n}.mha" for n in META_REJECTED)])
def test_odd_headers_are_rejected(tmp_path: Path, name: str) -> None:
    stem, suffix = name.rsplit(".", 1)
    header, message = (NRRD_REJECTED if suffix == "nrrd" else META_REJECTED)[stem]
    path = write(tmp_path / f"x.{suffix}", header)
    for read in (read_grid, read_image):
        with pytest.raises(ImageError, match=message) as caught:
            read(path)
        assert caught.value.where == path
        assert caught.value.remedy


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z: z[:-1], "truncated"),
        (lambda z: z[:-9], "truncated"),
        (lambda z: z[: len(z) // 2], "truncated"),
        (lambda z: z[:-5] + bytes([z[-5] ^ 1]) + z[-4:], "truncated, damaged"),
        (lambda z: z[:100] + bytes([z[100] ^ 0x40]) + z[101:], "truncated, damaged"),
    ],
)
def test_damaged_compressed_voxels_are_seen(tmp_path: Path, suffix, change, message) -> None:
    if suffix == ".nrrd":
        header, voxels = edit(NRRD, ": raw", ": gzip"), change(gzip.compress(RAW))
    else:
        voxels = change(ZIPPED)
        header = edit(META_ZIPPED, f"Size = {len(ZIPPED)}", f"Size = {len(voxels)}")
    with pytest.raises(ImageError, match=message):
        read_image(write(tmp_path / f"x{suffix}", header, voxels))


@pytest.mark.parametrize("length", [100, 418, 422, 100_000])
@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_streams_of_another_length_are_seen(tmp_path: Path, suffix, length) -> None:
    content = RAW.ljust(length, b"\0")[:length]
    if suffix == ".nrrd":
        header, voxels = edit(NRRD, ": raw", ": gzip"), gzip.compress(content)
    else:
        voxels = zlib.compress(content)
        header = edit(META_ZIPPED, f"Size = {len(ZIPPED)}", f"Size = {len(voxels)}")
    with pytest.raises(ImageError, match="truncated, damaged"):
        read_image(write(tmp_path / f"x{suffix}", header, voxels))


DETACHED = {
    "nhdr": (NRRD.rstrip("\n") + "\ndata file: {}\n", "LIST", "part%d.raw 0 4 1"),
    "mhd": (edit(META, "LOCAL", "{}"), "LIST", "part%d.raw 0 4 1"),
}


@pytest.mark.parametrize("suffix", DETACHED)
@pytest.mark.parametrize("way", ["one", "list", "pattern"])
def test_voxels_beside_the_header_are_read(tmp_path: Path, suffix, way) -> None:
    header, listed, pattern = DETACHED[suffix]
    for k in range(5):
        (tmp_path / f"part{k}.raw").write_bytes(RAW[84 * k : 84 * (k + 1)])
    (tmp_path / "all voxels.raw").write_bytes(RAW)
    names = "\n".join([listed, *(f"part{k}.raw" for k in range(5))])
    text = {"one": "all voxels.raw", "list": names, "pattern": pattern}[way]
    path = write(tmp_path / f"x.{suffix}", header.format(text), b"")
    np.testing.assert_array_equal(read_volume(path).array_CZYX[0], VOXELS_ZYX)


@pytest.mark.parametrize("suffix", DETACHED)
def test_a_file_that_is_listed_twice_is_refused(tmp_path: Path, suffix) -> None:
    """Else a header of a few bytes would fill the memory with one file, again and again."""
    (tmp_path / "part.raw").write_bytes(RAW[:84])
    path = write(tmp_path / f"x.{suffix}", DETACHED[suffix][0].format("\n".join(["LIST", *["part.raw"] * 5])), b"")
    with pytest.raises(ImageError, match="several times"):
        read_image(path)


@pytest.mark.parametrize("suffix", DETACHED)
@pytest.mark.parametrize(
    "name",
    ["{folder}/other.raw", "../other.raw", "sub/other.raw", "..", ".", "..\\other.raw", "c:other.raw", "/etc/passwd"],
)
@pytest.mark.parametrize("way", ["{}", "LIST\n{}", "../{}%d 0 1 1"])
def test_voxels_elsewhere_are_never_read(tmp_path: Path, suffix, name, way) -> None:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path / "other.raw", folder / "sub" / "other.raw"):
        place.write_bytes(RAW)
    text = way.format(name.format(folder=tmp_path))
    path = write(folder / f"x.{suffix}", DETACHED[suffix][0].format(text), b"")
    with pytest.raises(ImageError, match="only from the folder of the header") as caught:
        read_image(path)
    assert caught.value.code == "E-IMAGE-HEADER"


@pytest.mark.parametrize("suffix", DETACHED)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("absent.raw", "not there"),
        ("LIST", "lists no files"),
        ("part%d.raw 0 999999999 1", "names 1000000000 files"),
        ("part%d.raw 4 0 1", "names 0 files"),
        ("part%n.raw 0 4 1", "not there"),
        ("part%99999d.raw 0 4 1", "not there"),
    ],
)
def test_odd_names_of_voxels_are_rejected(tmp_path: Path, suffix, text, message) -> None:
    path = write(tmp_path / f"x.{suffix}", DETACHED[suffix][0].format(text), b"")
    with pytest.raises(ImageError, match=message):
        read_image(path)


UNITS = {
    "NRRD": (edit(NRRD, "endian", 'space units: "um" "um" "um"\nendian'), ".nrrd", 1e-3),
    "NRRD without a space": (edit(WITHOUT_SPACE, "endian", 'units: "cm" "cm" "cm"\nendian'), ".nrrd", 10.0),
    "NRRD without a unit": (edit(WITHOUT_SPACE, "endian", 'units: "" "" ""\nendian'), ".nrrd", 1.0),
    "MetaImage": (edit(META, "DimSize", "DistanceUnits = um\nDimSize"), ".mha", 1e-3),
    "MetaImage without a unit": (edit(META, "DimSize", "DistanceUnits = ?\nDimSize"), ".mha", 1.0),
}


@pytest.mark.parametrize("name", UNITS)
def test_lengths_are_read_in_their_unit(tmp_path: Path, name: str) -> None:
    header, suffix, mm = UNITS[name]
    plain = {".mha": META}.get(suffix, WITHOUT_SPACE if "without" in name else NRRD)
    expected = read_grid(write(tmp_path / f"plain{suffix}", plain))[1]
    found = read_grid(write(tmp_path / f"x{suffix}", header))[1]
    np.testing.assert_allclose(found.matrix[:3], expected.matrix[:3] * mm, atol=1e-12)


@pytest.mark.parametrize(
    ("header", "suffix", "message"),
    [
        (edit(NRRD, "endian", 'space units: "mm" "mm" "furlong"\nendian'), ".nrrd", "the unit 'furlong'"),
        (edit(NRRD, "endian", 'space units: "mm" "mm"\nendian'), ".nrrd", "has 2 space units for 3 axes"),
        (edit(META, "DimSize", "DistanceUnits = furlong\nDimSize"), ".mha", "the unit 'furlong'"),
    ],
)
def test_unknown_units_are_refused(tmp_path: Path, header: str, suffix: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_grid(write(tmp_path / f"x{suffix}", header))


def test_a_line_of_spaces_is_no_field(tmp_path: Path) -> None:
    """It was read in a time that grew with the square of its length."""
    spaces = " " * (MAX_LINE // 2 - 10)
    with pytest.raises(ImageError, match="not a field and its value"):
        read_grid(write(tmp_path / "x.mha", f"{spaces}a{spaces}\n{META}"))
    assert read_grid(write(tmp_path / "y.mha", META.replace("NDims = 3", "  NDims:\t3  ")))[0] == 1
