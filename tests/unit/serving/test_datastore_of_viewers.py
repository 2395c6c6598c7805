"""The datastore of viewers after a kill: it is whole, and nothing unfinished stays."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decathlete.core.files import temporary_name
from decathlete.errors import ServiceError
from decathlete.io.images import write_label
from decathlete.io.reading import Reading
from decathlete.serving.inputs import ReceivedFile
from decathlete.serving.monai_label.datastore import Datastore
from decathlete.serving.monai_label.image_sources import FolderImages
from factories import make_oblique_geometry
from service_support import image_bytes

SHAPE = (6, 7, 8)


@pytest.fixture
def store(tmp_path: Path) -> Datastore:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "case.nii.gz").write_bytes(image_bytes(SHAPE))
    return open_store(tmp_path)


def open_store(folder: Path) -> Datastore:
    return Datastore(
        folder / "datastore",
        FolderImages(folder / "studies"),
        image_bytes=10**9,
        image_lock=threading.Lock(),
        reading=Reading(),
    )


def save(store: Datastore, folder: Path) -> None:
    folder.mkdir()
    path = folder / "label.nii.gz"
    write_label(path, np.ones(SHAPE, np.uint8), make_oblique_geometry(SHAPE))
    target, images = store.new_label_path("case", "final"), store.fetch("case", folder)
    store.save_label(target, ReceivedFile(name=path.name, path=path), images, {"saved": 1})


def labels_of(store: Datastore) -> Any:
    return store.describe()["objects"]["case"]["labels"]


@pytest.mark.parametrize("killed_at", ["write_json", "write_label"])
def test_a_kill_while_a_correction_is_stored_leaves_no_correction(
    store: Datastore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    def kill(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"decathlete.serving.monai_label.datastore.{killed_at}", kill)
        with pytest.raises(KeyboardInterrupt):
            save(store, tmp_path / "first")
    assert labels_of(store) == {}
    save(store, tmp_path / "second")
    assert labels_of(store)["final"]["info"] == {"saved": 1}


def test_a_correction_without_its_record_stops_no_list(store: Datastore, tmp_path: Path) -> None:
    save(store, tmp_path / "upload")
    (tmp_path / "datastore" / "labels" / "final" / "case.json").unlink()  # as an earlier version left it
    assert labels_of(store) == {"final": {"ext": ".nii.gz", "info": {}}}


def test_unfinished_files_are_removed_at_the_start(store: Datastore, tmp_path: Path) -> None:
    save(store, tmp_path / "upload")
    root = tmp_path / "datastore"
    (root / "images").mkdir()
    dead = temporary_name("case.nii.gz").replace("-p", "-p9", 1)
    for folder in (root / "images", root / "labels" / "final"):
        (folder / dead).write_bytes(b"of a patient")
    assert open_store(tmp_path).ids() == ["case"]
    assert sorted(path.name for path in root.rglob("*") if path.is_file()) == ["case.json", "case.nii.gz"]


@pytest.mark.parametrize("image_id", ["../x", ".hidden", "a/b", "", "a\0", "中" * 60, "a" * 129])
def test_an_id_that_is_no_file_name_is_rejected(store: Datastore, tmp_path: Path, image_id: str) -> None:
    sent = tmp_path / "sent"
    sent.write_bytes(image_bytes(SHAPE))
    with pytest.raises(ServiceError, match="too long, or has characters") as caught:
        store.add_image(image_id, ReceivedFile(name="a.nii.gz", path=sent))
    assert caught.value.code == "E-SERVICE-REQUEST"
    assert store.ids() == ["case"]
