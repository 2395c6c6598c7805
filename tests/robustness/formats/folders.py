"""Folders as people keep them: images without a manifest, inputs of many kinds, cohorts with odd cases, own folds."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from random import Random

from robustness.byte_mutations import BYTE_MUTATIONS
from robustness.datasets import make_dataset, nifti_bytes
from robustness.formats import FileMutation, Files, Format, on_any_file, on_file
from robustness.formats.dicom import FORMATS as DICOM_FORMATS
from robustness.formats.meta_image import header
from robustness.formats.nifti import set_field
from robustness.formats.pictures import slice_picture
from robustness.json_mutations import mutate_json, mutate_json_text
from robustness.phantom import make_phantom

_SPLITS = "mutant/splits_final.json"
_HIDDEN = (".DS_Store", "Thumbs.db", "._case_0.png", "desktop.ini", ".~lock.x#", "notes.txt")
_NAMES = (
    *("case_0 (copy)", "Zoë Müller 頭部", "case\x1b[31m0", "1.2.840.113", "x" * 200, "-rf", "case_0_0000", "a b", "%s"),
    *("CON", "case_0.nii", ".hidden", "case_00", "Case_0", "cas\u0065\u0308_0", "case_0\u202e", "~", "$HOME", "a;b"),
)
_SUFFIXES = (".nii", ".nii.gz", ".NII", ".png", ".PNG", ".tif", ".mha", ".nrrd", ".dcm", ".jpg", "", ".txt", ".gz")


def _plain() -> Files:
    files: Files = {}
    for number in range(4):
        image, label = make_phantom(number)
        files |= {f"mutant/images/case_{number}.png": slice_picture(image)}
        files |= {f"mutant/labels/case_{number}.png": slice_picture(label)}
    return files


def _volumes() -> Files:
    files: Files = {}
    for number in range(4):
        image, label = make_phantom(number)
        files |= {f"mutant/images/case_{number}.nii": nifti_bytes(image)}
        files |= {f"mutant/labels/case_{number}.nii": nifti_bytes(label)}
    return files


def rename(files: Files, random: Random) -> Files:
    """Give one file another name or another suffix."""
    name = random.choice(sorted(files))
    folder, _, own = name.rpartition("/")
    stem, _, suffix = own.partition(".")
    changed = random.choice(
        (random.choice(_NAMES) + "." + suffix, stem + random.choice(_SUFFIXES), own.upper(), f"sub/{own}", stem)
    )
    return {other: content for other, content in files.items() if other != name} | {f"{folder}/{changed}": files[name]}


def lose(files: Files, random: Random) -> Files:
    """Remove or empty one to three files."""
    lost = random.sample(sorted(files), random.choice((1, 1, 2, 3)))
    kept = {name: content for name, content in files.items() if name not in lost}
    return kept | (dict.fromkeys(lost, b"") if random.random() < 0.5 else {})


def add_files(files: Files, random: Random) -> Files:
    """Add files that other programs leave, copies, and files of other kinds."""
    name = random.choice(sorted(files))
    folder = name.rpartition("/")[0]
    added = random.choice(
        (
            {f"{folder}/{random.choice(_HIDDEN)}": b"x"},
            {f"{folder}/copy{random.choice(_SUFFIXES)}": files[name]},
            {f"{folder}/{random.choice(_NAMES)}.nii.gz": b"\x1f\x8b"},
            {name.rpartition(".")[0] + random.choice(_SUFFIXES): files[name]},
            {f"{folder}/more/{random.choice(_NAMES)}.png": files[name]},
        )
    )
    return {**added, **files}


def exchange(files: Files, random: Random) -> Files:
    """Put the content of one file into another."""
    one, other = random.sample(sorted(files), 2)
    return files | {one: files[other], other: files[one] if random.random() < 0.5 else files[other]}


_FOLDER_MUTATIONS: dict[str, FileMutation] = {
    "rename": rename,
    "lose": lose,
    "add": add_files,
    "exchange": exchange,
    **{kind: on_any_file(BYTE_MUTATIONS[kind]) for kind in ("flip_bits", "truncate", "insert")},
}


def _cohort() -> Files:
    return {f"mutant/{name}": content for name, content in make_dataset(6).items()}


def _images(files: Files, random: Random, *, most: int = 2) -> list[str]:
    return random.sample(sorted(n for n in files if "imagesTr" in n), random.choice(range(1, most + 1)))


def _with_label(name: str) -> tuple[str, str]:
    return name, name.replace("imagesTr", "labelsTr")


def scale_spacing(files: Files, random: Random) -> Files:
    """Make the voxels of one or two cases, images and labels, much too large or too small."""
    factor = random.choice((0.001, 0.01, 10.0, 0.05))
    changed = {}
    for image in _images(files, random):
        for name in _with_label(image):
            data = files[name]
            for axis in (1, 2, 3):
                (old,) = struct.unpack_from("<f", data, 76 + 4 * axis)
                data = set_field(data, f"pixdim[{axis}]", old * factor)
                data = set_field(data, f"srow[{5 * (axis - 1)}]", old * factor)
            changed[name] = data
    return files | changed


def _rebuild(change: Callable[..., object], label_too: bool) -> FileMutation:
    """Write one case anew; ``change`` gets the arrays (X, Y, Z) of its image and label, and a random generator."""

    def mutate(files: Files, random: Random) -> Files:
        changed = {}
        for image in _images(files, random, most=1):
            number = int(image.rpartition("_")[2].removesuffix(".nii"))
            arrays = make_phantom(number, (16, 14, 12))
            one, other = change(*arrays, random)  # type: ignore[misc]
            names = _with_label(image)
            changed |= {names[0]: nifti_bytes(one)} | ({names[1]: nifti_bytes(other)} if label_too else {})
        return files | changed

    return mutate


def _other_values(image, label, random):  # type: ignore[no-untyped-def]
    value = random.choice((float("nan"), float("inf"), 3e38, 0.0, -1e30))
    changed = image.astype("<f4")
    changed[: random.choice((1, 8, 16))] = value
    return changed, label


def _other_labels(image, label, random):  # type: ignore[no-untyped-def]
    choices = (label * 0, label * 3, label.astype("<f4") + 0.3, label.astype("<i8") - 1, label[:, :, :-1], label * 100)
    return image, random.choice(choices)


def _other_size(image, label, random):  # type: ignore[no-untyped-def]
    cut = random.choice(((slice(0, 1),) * 3, (slice(None), slice(None), slice(0, 1)), (slice(0, 3),)))
    return image[cut], label[cut]


def _folds() -> Files:
    ids = [f"case_{k}" for k in range(6)]
    folds = [{"train": [i for i in ids if i not in held], "val": held} for held in (ids[:2], ids[2:4], ids[4:])]
    return _cohort() | {_SPLITS: json.dumps(folds, indent=1).encode()}


def _mixed() -> Files:
    """Images of several kinds in one folder, all of one channel."""
    image, _ = make_phantom()
    series = next(form for form in DICOM_FORMATS if form.name == "dicom_series").make()
    voxels = image.transpose(2, 1, 0).astype("<i2").tobytes()
    return {
        "mutant/one.nii": nifti_bytes(image),
        "mutant/two.mha": header("LOCAL") + voxels,
        "mutant/three.mhd": header("three.raw"),
        "mutant/three.raw": voxels,
        **{f"mutant/series/{name.rpartition('/')[2]}": content for name, content in series.items()},
    }


def in_list(data: bytes, random: Random) -> bytes:
    """Change values of a JSON list."""
    inner = mutate_json(b'{"x": ' + data + b"}", random)
    try:
        return json.dumps(json.loads(inner).get("x")).encode()
    except ValueError:
        return inner


FORMATS = (
    Format(
        name="plain_pictures",
        make=_plain,
        entry="mutant",
        mutations=_FOLDER_MUTATIONS,
        actions=("convert_plain", "understand_plain"),
        weight=0.5,
    ),
    Format(
        name="plain_volumes",
        make=_volumes,
        entry="mutant",
        mutations=_FOLDER_MUTATIONS,
        actions=("convert_plain", "understand_plain"),
        weight=0.5,
    ),
    Format(
        name="cohort",
        make=_cohort,
        entry="mutant",
        mutations={
            "spacing": scale_spacing,
            "values": _rebuild(_other_values, False),
            "labels": _rebuild(_other_labels, True),
            "size": _rebuild(_other_size, True),
            "files": _FOLDER_MUTATIONS["add"],
            "exchange": exchange,
        },
        actions=("check_cohort", "preprocess"),
        weight=0.5,
    ),
    Format(
        name="folds",
        make=_folds,
        entry="mutant",
        mutations={"json": on_file(_SPLITS, in_list), "json_text": on_file(_SPLITS, mutate_json_text)},
        actions=("check_folder", "preprocess"),
        weight=0.4,
    ),
    Format(
        name="mixed_inputs",
        make=_mixed,
        entry="mutant",
        mutations=_FOLDER_MUTATIONS,
        actions=("predict_folder",),
        weight=0.7,
    ),
)
