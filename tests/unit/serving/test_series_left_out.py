"""The DICOM node logs what it does not segment, and nothing of the patient."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from decathlete.serving.private_log import private_logging
from dicom_node_support import Clock, MakeNode, slices, states, store_datasets
from dicom_support import PATIENT, uid

SKIPPED = "1 file (a localizer); 2 files (slices of another direction or size than the other 6 of their series)"


def ct_of(folder: Path) -> list[Any]:
    """A CT, in its series a localizer and two slices of another size."""
    in_series = {"SeriesInstanceUID": uid("series", "ct")}
    scout = slices(folder, "a scout", n_slices=1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **in_series)
    part = slices(folder, "part", n_slices=2, Rows=2, Columns=10, **in_series)
    return scout + slices(folder, "ct", n_slices=6, SeriesDescription=PATIENT) + part


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "not segmented" in record.getMessage()]


@pytest.mark.parametrize(
    ("channels", "series"),
    [(("CT",), ""), (("CT", "PET"), "series 5: MR, axial, 3 slices (no channel of the model); ")],
)
def test_what_is_left_out_is_logged(
    make_node: MakeNode,
    clock: Clock,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    channels: tuple[str, ...],
    series: str,
) -> None:
    caplog.set_level(logging.INFO)
    node = make_node(channels=channels)
    of_study = ct_of(tmp_path)
    if len(channels) > 1:
        of_study += slices(tmp_path, "pet", modality="PT", SeriesNumber=4, SeriesDescription=PATIENT)
        of_study += slices(tmp_path, "mr", modality="MR", SeriesNumber=5, SeriesDescription=PATIENT)
    store_datasets(node.store, of_study, now=clock(), origin="store")
    clock.now += 11
    with private_logging():
        assert node.compute_next()
    assert states(node) == ["computed"]
    (text,) = logged(caplog)
    parts = text.removeprefix("job 1: not segmented: ").split("; ")
    assert sorted(parts) == sorted(f"{series}{SKIPPED}".split("; "))
    assert not any(part in caplog.text for part in PATIENT.split("^"))


def test_nothing_is_logged_where_nothing_is_left_out(
    make_node: MakeNode, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    node = make_node()
    store_datasets(node.store, slices(tmp_path, "ct"), now=clock(), origin="store")
    clock.now += 11
    assert node.compute_next()
    assert (states(node), logged(caplog)) == (["computed"], [])
