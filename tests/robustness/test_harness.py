"""The harness finds what it looks for: planted crashes, hangs, wrong readings and vague messages are seen."""

from __future__ import annotations

import dataclasses
import gzip

import numpy as np
import pytest

from decathlete.errors import ImageError
from robustness import folder_actions, pool
from robustness.actions import Input, Shared, read
from robustness.commands import CommandResult
from robustness.datasets import write_files
from robustness.folder_actions import check_cohort, predict_folder, read_structures
from robustness.formats import load_formats
from robustness.formats.nifti import set_field
from robustness.fuzz import add_seeds, choose_cases, read_seeds
from robustness.judging import judge_call, judge_command, judge_message
from robustness.outcomes import (
    CLEAN,
    CRASH,
    DIFFERENT,
    EQUAL,
    HANG,
    HARNESS,
    MEMORY,
    TRACEBACK,
    VAGUE,
    WRONG,
    Case,
    Outcome,
    causes,
    table,
)
from robustness.phantom import make_phantom
from robustness.pool import Child
from robustness.service_actions import judge_answer
from robustness.views import MustFailError, UnsureError, view
from robustness.views.structures import count_voxels

COMPRESSED = ("dicom_rle", "dicom_jpeg2000", "dicom_jpeg", "dicom_jpeg_lossless", "dicom_jpeg_ls")
"""Formats whose voxels the independent readers do not decode."""

IMAGES = [name for name, form in load_formats().items() if "read" in form.actions and name not in COMPRESSED]
SINGLE_SLICES = ("png", "png_colours", "png_palette", "bmp", "jpeg", "tiff_deflate")
"""Formats that hold one slice."""


def as_input(name: str, folder, kind: str = "honest", number: int = 0) -> Input:
    form = load_formats()[name]
    write_files(form.inputs(kind, number), folder)
    entry = folder / form.entry
    return Input(folder=folder, entry=entry, kind=kind, names={"mutant"}, honest=form.honest, shared=Shared(folder))


@pytest.mark.parametrize("name", IMAGES)
def test_honest_images_are_read_as_the_independent_reader_sees_them(name, tmp_path):
    assert read(as_input(name, tmp_path)).result == EQUAL
    found = view(tmp_path / load_formats()[name].entry)
    n_channels, n_slices = 3 if name == "png_colours" else 1, 1 if name in SINGLE_SLICES else 8
    assert found.array_CZYX.shape == (n_channels, n_slices, 10, 12)
    assert found.affines


@pytest.mark.parametrize("name", IMAGES)
def test_a_reader_that_returns_something_else_is_seen(name, tmp_path, monkeypatch):
    from decathlete.io import images

    real = images.read_image

    def mirrored(path):
        image = real(path)
        return type(image)(array_CZYX=image.array_CZYX[:, :, ::-1], geometry=image.geometry)

    monkeypatch.setattr(images, "read_image", mirrored)
    finding = read(as_input(name, tmp_path))
    assert (finding.result, finding.cause) == (WRONG, "read as something else: values")


@pytest.mark.parametrize(("name", "cut"), [("nifti", 100), ("nrrd", 100), ("mha", 100), ("dicom_enhanced", 0)])
def test_a_file_that_is_shorter_than_it_claims_must_fail(name, cut, tmp_path):
    case = as_input(name, tmp_path)
    if cut:
        case.entry.write_bytes(case.entry.read_bytes()[:-cut])
    else:
        case = as_input(name, tmp_path, "pixels", 0)
    with pytest.raises(MustFailError, match="declared"):
        view(case.entry)


@pytest.mark.parametrize("value", [0.0, float("nan"), 352.0, 1e-8])
def test_a_spacing_that_is_none_must_fail(value, tmp_path):
    case = as_input("nifti", tmp_path)
    data = case.entry.read_bytes()
    for field in ("srow[0]", "srow[4]", "srow[8]"):
        data = set_field(data, field, value)
    case.entry.write_bytes(data)
    with pytest.raises(MustFailError, match="spacing"):
        view(case.entry)


def test_what_the_independent_reader_does_not_know_is_not_judged(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"x" * 400))
    with pytest.raises(UnsureError):
        view(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("name", sorted(set(load_formats()) - {"store", "store_trained_on", "run", "run_resumed"}))
def test_inputs_are_repeatable_and_every_kind_changes_something(name):
    form = load_formats()[name]
    honest = form.inputs("honest", 0)
    for kind in form.mutations:
        assert form.inputs(kind, 3) == form.inputs(kind, 3)
        assert any(form.inputs(kind, number) != honest for number in range(6)), kind


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("error E-IMAGE-DAMAGED: mutant.nii: truncated", CLEAN),
        ("error E-IMAGE-DAMAGED: truncated", VAGUE),
        ("error: mutant.nii: truncated", VAGUE),
        ("error E-NOT-A-CODE: mutant.nii", VAGUE),
        ("error E-MEMORY: mutant.nii: out of memory", MEMORY),
        ("error E-IMAGE: mutant: name \x1b[31m", VAGUE),
    ],
)
def test_messages(text, result):
    assert judge_message(text, {"mutant"}).result == result


def test_ends_of_commands_and_calls():
    ends = {
        TRACEBACK: CommandResult(code=None, output="", error="...", signature="KeyError in io/x.py:f"),
        DIFFERENT: CommandResult(code=0, output="fine"),
        CLEAN: CommandResult(code=2, output="error E-OPTION: mutant: wrong"),
    }
    assert [judge_command(end, {"mutant"}).result for end in ends.values()] == list(ends)
    printed = CommandResult(code=0, output="Traceback (most recent call last)\n  in a thread")
    assert judge_command(printed, {"mutant"}).result == TRACEBACK

    def fail(problem):
        raise problem

    calls = {
        CLEAN: ImageError("bad", where="mutant.nii", remedy="fix it"),
        TRACEBACK: KeyError("x"),
        MEMORY: MemoryError(),
    }
    assert [judge_call(lambda p=p: fail(p), {"mutant"}).result for p in calls.values()] == list(calls)


@pytest.mark.parametrize(
    ("kind", "result"),
    [("crash", CRASH), ("busy", HANG), ("blocked", HANG), ("broken", HARNESS), ("fine", EQUAL)],
)
def test_a_process_that_crashes_or_hangs_is_seen(kind, result, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "HANG_S", 0.3)
    child = Child(tmp_path, "robustness.misbehaving_child")
    try:
        case = Case(format="nifti", kind=kind, number=0, action="read")
        assert child.run(case).result == result
        assert child.is_alive == (result == EQUAL)
    finally:
        child.close()


def test_the_table_counts_and_groups():
    cases = [Case(format="nifti", kind="x", number=n, action="read") for n in range(3)]
    outcomes = [
        Outcome(case=cases[0], result=CLEAN),
        *(Outcome(case=case, result=TRACEBACK, cause="KeyError in a.py:f") for case in cases[1:]),
    ]
    assert "| nifti | 3 |" in table(outcomes)
    assert causes(outcomes).startswith("traceback x2: KeyError in a.py:f\n    nifti; e.g. nifti/x/1/read")


def test_seeds_are_kept_and_read_again(tmp_path):
    case = Case(format="nifti", kind="fields", number=7, action="read")
    faults = [Outcome(case=case, result=TRACEBACK, cause="same")] * 5
    add_seeds([*faults, Outcome(case=case, result=CLEAN)], tmp_path / "seeds.json")
    assert read_seeds(tmp_path / "seeds.json") == [case, case]


def test_inputs_are_shared_by_formats_and_kinds():
    cases = choose_cases(2000)
    inputs = {(c.format, c.kind, c.number) for c in cases if c.kind != "honest"}
    assert len(inputs) >= 1900
    assert {name for name, _, _ in inputs} == set(load_formats())
    kinds = {(name, kind) for name, kind, _ in inputs}
    for name, form in load_formats().items():
        if form.weight == 1:
            assert {kind for other, kind in kinds if other == name} == set(form.mutations)
    assert np.isclose(sum(name == "nifti" for name, _, _ in inputs), sum(name == "mha" for name, _, _ in inputs))


@pytest.mark.parametrize("name", ["dicom_seg", "rtstruct"])
def test_voxels_of_structures_are_counted_independently(name, tmp_path, monkeypatch):
    from decathlete.io import dicom_label

    case = as_input(name, tmp_path)
    assert read_structures(case).result == DIFFERENT
    counts = count_voxels(case.entry / "label.dcm")
    assert {n: c - (make_phantom()[1] == v).sum() for v, (n, (c, _)) in enumerate(counts.items(), 1)} == {
        "ball": 0,
        "cube": 0,
    }
    real = dicom_label.read_structure_label

    def without_first_class(*arguments):
        label = real(*arguments)
        return type(label)(array_ZYX=label.array_ZYX * (label.array_ZYX > 1), geometry=label.geometry)

    monkeypatch.setattr(dicom_label, "read_structure_label", without_first_class)
    assert read_structures(case).result == WRONG


def test_what_is_not_said_about_folders_is_seen(tmp_path, monkeypatch):
    silent = CommandResult(code=0, output="no problems found")
    monkeypatch.setattr(folder_actions, "run_command", lambda arguments: silent)
    assert predict_folder(as_input("mixed_inputs", tmp_path / "a")).cause == "a file is neither used nor named"
    case = dataclasses.replace(as_input("cohort", tmp_path / "b", "spacing", 0), names={"case_3.nii"})
    assert check_cohort(case).cause == "check does not name a case with another spacing"


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (500, b"", TRACEBACK),
        (422, b'{"error": {"code": "E-SERVICE-REQUEST", "message": "x"}}', CLEAN),
        (422, b'{"error": {"code": "E-NOT-A-CODE", "message": "x"}}', VAGUE),
        (404, b"Not Found", VAGUE),
        (400, b"Invalid HTTP request received.", CLEAN),
        (202, b"{}", DIFFERENT),
    ],
)
def test_answers_of_the_service_are_judged(status, body, result):
    assert judge_answer(status, body).result == result
