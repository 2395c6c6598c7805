"""Where the folders of a workspace lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from decathlete.workflows.workspace import Workspace


def test_folders_may_be_given_as_texts(tmp_path: Path) -> None:
    texts: dict[str, Any] = {"data": f"{tmp_path}/d", "prepared": f"{tmp_path}/p", "results": f"{tmp_path}/r"}
    paths = Workspace(data=tmp_path / "d", prepared=tmp_path / "p", results=tmp_path / "r")
    assert Workspace(**texts) == paths
