"""DICOM: a folder of slices, and one enhanced file with all frames; values of elements change."""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from random import Random

import imagecodecs
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from robustness.byte_mutations import ByteMutation
from robustness.formats import FileMutation, Files, Format, byte_mutations, on_any_file, on_file
from robustness.phantom import ORIGIN_XYZ, SPACING_XYZ, make_phantom

_FOLDER, _ENHANCED = "mutant", "mutant.dcm"
_PREAMBLE = 132

TAGS: dict[str, tuple[int, int, str]] = {
    "Rows": (0x0028, 0x0010, "US"),
    "Columns": (0x0028, 0x0011, "US"),
    "BitsAllocated": (0x0028, 0x0100, "US"),
    "BitsStored": (0x0028, 0x0101, "US"),
    "HighBit": (0x0028, 0x0102, "US"),
    "PixelRepresentation": (0x0028, 0x0103, "US"),
    "SamplesPerPixel": (0x0028, 0x0002, "US"),
    "PhotometricInterpretation": (0x0028, 0x0004, "CS"),
    "PixelSpacing": (0x0028, 0x0030, "DS"),
    "NumberOfFrames": (0x0028, 0x0008, "IS"),
    "RescaleSlope": (0x0028, 0x1053, "DS"),
    "RescaleIntercept": (0x0028, 0x1052, "DS"),
    "SliceThickness": (0x0018, 0x0050, "DS"),
    "ImagePositionPatient": (0x0020, 0x0032, "DS"),
    "ImageOrientationPatient": (0x0020, 0x0037, "DS"),
    "SeriesInstanceUID": (0x0020, 0x000E, "UI"),
    "TransferSyntaxUID": (0x0002, 0x0010, "UI"),
    "PixelData": (0x7FE0, 0x0010, "OW"),
}
"""Elements that decide what is read: group, element, value representation."""

_SHORTS = (0, 1, 2, 7, 8, 12, 15, 16, 32, 64, 255, 1000, 65535)
_DECIMALS = (
    *("", "0", "-1", "nan", "inf", "1e400", "1e38", "x", "9" * 3000),
    *("1\\1", "1\\2", "0\\1", "1\\-1", "1e-9\\1e-9", "1\\2\\3\\4", "nan\\0\\0", "0\\0\\1e30", "3\\3\\3"),
    *("1\\0\\0\\0\\1", "0\\0\\0\\0\\0\\0", "1\\0\\0\\1\\0\\0"),
)
_TEXTS = {
    "DS": _DECIMALS,
    "IS": ("", "0", "-1", "1", "7", "9", "1000000", "2147483647", "x", "9" * 3000),
    "CS": ("", "MONOCHROME1", "RGB", "PALETTE COLOR", "YBR_FULL_422", "X" * 3000),
    "UI": (
        *("", "1.2.3", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2"),
        *("1.2.840.10008.1.2.1.99", "x" * 300),
    ),
}


def find_element(data: bytes, name: str, *, last: bool = False) -> tuple[int, int, int] | None:
    """Return where an element of explicit little endian starts, where its value starts, and its length."""
    group, element, kind = TAGS[name]
    kinds = (b"OW", b"OB") if kind == "OW" else (kind.encode(),)
    marks = [struct.pack("<HH", group, element) + name for name in kinds]
    at = max(data.rfind(mark) if last else data.find(mark) for mark in marks)
    if at < 0:
        return None
    if kind == "OW":
        length = struct.unpack_from("<I", data, at + 8)[0]
        return at, at + 12, min(length, len(data) - at - 12)  # without a length: to the end
    return at, at + 8, struct.unpack_from("<H", data, at + 6)[0]


def set_element(data: bytes, name: str, value: bytes) -> bytes:
    """Replace the value of an element, with its length."""
    found = find_element(data, name)
    if found is None:
        return data
    _, start, length = found
    value += b"\0" * (len(value) % 2)
    size = struct.pack("<I", len(value)) if TAGS[name][2] == "OW" else struct.pack("<H", len(value))
    return data[: start - len(size)] + size + value + data[start + length :]


def remove_element(data: bytes, name: str) -> bytes:
    """Remove an element."""
    found = find_element(data, name)
    return data if found is None else data[: found[0]] + data[found[1] + found[2] :]


def change_element(data: bytes, random: Random) -> bytes:
    """Remove one element, or set it to an extreme value, another number of values, or nonsense."""
    name = random.choice([n for n in TAGS if n != "PixelData"])
    if random.random() < 0.2:
        return remove_element(data, name)
    kind = TAGS[name][2]
    if kind == "US":
        return set_element(data, name, struct.pack("<H", random.choice(_SHORTS)))
    return set_element(data, name, random.choice(_TEXTS[kind]).encode()[:65534])


def change_length(data: bytes, random: Random) -> bytes:
    """Declare another length than an element has; the value stays."""
    name = random.choice(list(TAGS))
    found = find_element(data, name)
    if found is None:
        return data
    if TAGS[name][2] == "OW":
        size = struct.pack("<I", random.choice((0, 1, 2, found[2] - 2, found[2] + 2, 2**31, 2**32 - 2, 2**32 - 1)))
    else:
        size = struct.pack("<H", random.choice((0, 1, found[2] + 2, 65534, 65535)))
    return data[: found[1] - len(size)] + size + data[found[1] :]


def shorten_pixels(data: bytes, random: Random) -> bytes:
    """Keep fewer bytes of pixels than rows, columns and bits say; the file itself is consistent."""
    found = find_element(data, "PixelData")
    assert found is not None
    length = random.choice((0, 2, 100, found[2] // 2, found[2] - 2)) // 2 * 2
    return set_element(data, "PixelData", data[found[1] : found[1] + length])


def _slice(k: int) -> bytes:
    image_XYZ, _ = make_phantom()
    return _write(_common(CTImageStorage, k + 1), image_XYZ[:, :, k].T, positions=lambda d: _place(d, k))


def _place(dataset: Dataset, k: int) -> None:
    x, y, z = ORIGIN_XYZ
    dataset.ImagePositionPatient = [x, y, z + k * SPACING_XYZ[2]]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [SPACING_XYZ[1], SPACING_XYZ[0]]
    dataset.SliceThickness = SPACING_XYZ[2]
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024


def _common(storage: str, number: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = storage
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["slice", str(number)])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID = dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=["study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series"])
    dataset.Modality, dataset.InstanceNumber = "CT", number
    return dataset


def _write(dataset: Dataset, pixels: np.ndarray, *, positions: Callable[[Dataset], None]) -> bytes:
    positions(dataset)
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.PixelData = (pixels + 1024).astype("<i2").tobytes()
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _open_ended(items: list[Dataset]) -> Sequence:
    """A sequence whose items have no declared length, so that a value inside may change its own."""
    for item in items:
        item.is_undefined_length_sequence_item = True
    return Sequence(items)


def _frame(k: int, *, place: int) -> Dataset:
    frame, position, content = Dataset(), Dataset(), Dataset()
    x, y, z = ORIGIN_XYZ
    position.ImagePositionPatient = [x, y, z + k * SPACING_XYZ[2]]
    content.StackID, content.InStackPositionNumber = "1", place + 1
    frame.PlanePositionSequence = _open_ended([position])
    frame.FrameContentSequence = _open_ended([content])
    return frame


def make_enhanced(order: list[int]) -> bytes:
    """An enhanced CT whose frames are stored in ``order``."""
    image_XYZ, _ = make_phantom()
    dataset, shared = _common(EnhancedCTImageStorage, 1), Dataset()
    measures, orientation, values = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [SPACING_XYZ[1], SPACING_XYZ[0]]
    measures.SliceThickness = measures.SpacingBetweenSlices = SPACING_XYZ[2]
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, -1024, "HU"
    shared.PixelMeasuresSequence = _open_ended([measures])
    shared.PlaneOrientationSequence = _open_ended([orientation])
    shared.PixelValueTransformationSequence = _open_ended([values])
    dataset.NumberOfFrames = len(order)
    dataset.SharedFunctionalGroupsSequence = _open_ended([shared])
    dataset.PerFrameFunctionalGroupsSequence = _open_ended([_frame(k, place=k) for k in order])
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        dataset[name].is_undefined_length = True
        for item in dataset[name].value:
            for element in item:
                element.is_undefined_length = True
    pixels = np.stack([image_XYZ[:, :, k].T for k in order])
    return _write(dataset, pixels, positions=lambda d: None)


def _series() -> Files:
    return {f"{_FOLDER}/{k}.dcm": _slice(k) for k in range(make_phantom()[0].shape[2])}


def _compressed(syntax: str) -> Callable[[], Files]:
    """Return a maker of the series with each slice compressed."""

    def make() -> Files:
        return {name: _compress(content, syntax) for name, content in _series().items()}

    make.__name__ = f"make_{syntax}"  # honest inputs are kept by this name
    return make


def _compress(content: bytes, syntax: str) -> bytes:
    dataset, stream = pydicom.dcmread(BytesIO(content)), BytesIO()
    if syntax == RLELossless:
        dataset.compress(syntax, generate_instance_uid=False)
    else:
        dataset.PixelData = encapsulate([_encode(dataset, syntax)])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _encode(dataset: Dataset, syntax: str) -> bytes:
    """Compress the pixels, unsigned and with as many bits as the encoder has."""
    pixels = dataset.pixel_array
    if syntax == JPEG2000Lossless:  # pydicom's encoder needs larger slices
        return imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", resolutions=1)
    dataset.PixelRepresentation = 0
    if syntax == JPEGBaseline8Bit:
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit = 7
        return imagecodecs.jpeg8_encode((pixels // 16).astype(np.uint8), level=95)
    encode = imagecodecs.jpegls_encode if syntax == JPEGLSLossless else imagecodecs.ljpeg_encode
    return encode(pixels.astype(np.uint16))


def damage_codestream(data: bytes, random: Random) -> bytes:
    """Change some bytes of the compressed pixels, most of them in the header of the codestream."""
    found = find_element(data, "PixelData", last=True)
    if found is None or found[2] < 20:
        return data
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 8))):
        last = min(found[2], 16 + random.choice((40, 120, 700, 10**6)))
        at = found[1] + random.randrange(16, max(last, 17))  # after the table of offsets, and the head of the fragment
        changed[at] = random.choice((0, 255, 127, 128, changed[at] ^ 1 << random.randrange(8), random.randrange(256)))
    return bytes(changed)


def _enhanced() -> Files:
    return {_ENHANCED: make_enhanced(list(range(make_phantom()[0].shape[2])))}


def shuffle_frames(files: Files, random: Random) -> Files:
    """Store the frames in another order than they lie in space; positions stay true."""
    order = list(range(make_phantom()[0].shape[2]))
    random.shuffle(order)
    return files | {_ENHANCED: make_enhanced(order)}


def lose_slice(files: Files, random: Random) -> Files:
    """Remove, empty or repeat one slice."""
    name = random.choice(sorted(files))
    choice = random.randrange(3)
    if choice == 0:
        return {other: content for other, content in files.items() if other != name}
    return files | ({name: b""} if choice == 1 else {f"{_FOLDER}/copy.dcm": files[name]})


def move_slice(files: Files, random: Random) -> Files:
    """Move one slice, or each a little more than the last, in its plane or along the normal."""
    axis, drift = random.randrange(3), random.choice((0.5, 1.0, 5.0, 40.0, -3.0))
    moved = set(files) if random.random() < 0.5 else {random.choice(sorted(files))}
    changed = {}
    for k, name in enumerate(sorted(files)):
        place = [*ORIGIN_XYZ]
        place[2] += k * SPACING_XYZ[2]
        share = k**2 / len(files) if len(moved) > 1 else 1.0  # a constant drift would be a tilted gantry
        place[axis] += drift * share * (name in moved)
        changed[name] = set_element(files[name], "ImagePositionPatient", "\\".join(f"{v:g}" for v in place).encode())
    return changed


def change_all(mutation: ByteMutation) -> FileMutation:
    """Apply one and the same mutation to all slices."""

    def mutate(files: Files, random: Random) -> Files:
        seed = random.randrange(2**32)
        return {name: mutation(content, Random(seed)) for name, content in files.items()}

    return mutate


_ELEMENTS = {"element": change_element, "length": change_length, "pixels": shorten_pixels}
_IN_SERIES: dict[str, FileMutation] = {
    **{f"{kind}_of_all": change_all(m) for kind, m in _ELEMENTS.items()},
    **{kind: on_any_file(m) for kind, m in _ELEMENTS.items()},
    **{kind: on_any_file(lambda d, r, m=m: m({"x": d}, r)["x"]) for kind, m in byte_mutations("x").items()},
    "slices": lose_slice,
    "positions": move_slice,
}
_IN_ENHANCED: dict[str, FileMutation] = {
    **byte_mutations(_ENHANCED),
    **{kind: on_file(_ENHANCED, m) for kind, m in _ELEMENTS.items()},
    "frames": shuffle_frames,
}

_COMPRESSED: dict[str, FileMutation] = {
    **_IN_SERIES,
    "codestream": on_any_file(damage_codestream),
    "codestream_of_all": change_all(damage_codestream),
}

_ACTIONS = ("read", "check", "predict")
_SYNTAXES = {
    "dicom_rle": RLELossless,
    "dicom_jpeg2000": JPEG2000Lossless,
    "dicom_jpeg": JPEGBaseline8Bit,
    "dicom_jpeg_lossless": JPEGLosslessSV1,
    "dicom_jpeg_ls": JPEGLSLossless,
}
FORMATS = (
    Format(name="dicom_series", make=_series, entry=_FOLDER, mutations=_IN_SERIES, actions=_ACTIONS),
    *(
        Format(name=name, make=_compressed(syntax), entry=_FOLDER, mutations=_COMPRESSED, actions=_ACTIONS, weight=0.5)
        for name, syntax in _SYNTAXES.items()
    ),
    Format(name="dicom_enhanced", make=_enhanced, entry=_ENHANCED, mutations=_IN_ENHANCED, actions=_ACTIONS),
)
