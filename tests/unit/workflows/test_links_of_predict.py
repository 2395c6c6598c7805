"""Series that lie mixed with others are predicted through links, whose places no message shows."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from decathlete.errors import CasesFailedError
from decathlete.workflows.predict import LinkFolders


def test_messages_name_the_folders_of_the_slices(tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "patient").mkdir(parents=True)
    (source / "patient" / "0.dcm").touch()
    with ExitStack() as stack:
        links = LinkFolders(tmp_path / "out", source, stack)
        folder = links.path("case")
        folder.mkdir()
        (folder / "0.dcm").symlink_to((source / "patient" / "0.dcm").resolve())
        with pytest.raises(CasesFailedError) as caught, links.named_by_sources():
            raise CasesFailedError({"case": f"{folder}: slices are missing", "b": "other"}, n_done=2, doing="predict")
    assert caught.value.failures == {"case": f"{source / 'patient'}: slices are missing", "b": "other"}
    assert "predict 2 of 4 cases" in str(caught.value)
    assert not folder.exists()


def test_a_folder_whose_name_starts_with_that_of_another_is_named(tmp_path: Path) -> None:
    failures = {}
    with ExitStack() as stack:
        links = LinkFolders(tmp_path / "out", tmp_path / "in", stack)
        for number in ("3", "31"):
            original, folder = tmp_path / "in" / f"series{number}", links.path(f"study_{number}")
            for made in (original, folder):
                made.mkdir(parents=True)
            (original / "0.dcm").touch()
            (folder / "0.dcm").symlink_to((original / "0.dcm").resolve())
            failures[number] = str(folder)
        with pytest.raises(CasesFailedError) as caught, links.named_by_sources():
            raise CasesFailedError(failures, n_done=0, doing="predict")
    assert caught.value.failures == {n: str(tmp_path / "in" / f"series{n}") for n in ("3", "31")}
