"""The notebooks run from the first cell to the last; what they must reach, they assert themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guards import HANG_S
from notebooks import NOTEBOOKS, is_parameters


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat

    _at_home_in(tmp_path / "home", monkeypatch)
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    (parameters,) = [cell for cell in notebook.cells if is_parameters(cell)]
    parameters.source += '\nFOLDER = Path("work")'
    (tmp_path / "here").mkdir()
    _execute(notebook, tmp_path / "here")
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "no problems found" in printed
    assert ("with TTA" if path.stem == "brats_recipe" else "mean Dice") in printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert [p.name for p in (tmp_path / "here").iterdir()] == ["work"], "all that it writes is in its folder"
    assert len(list((tmp_path / "here").rglob("report.html"))) == 1


def _at_home_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no kernel or setting of the user's own be found."""
    folder.mkdir()
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(folder / name.lower()))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # else it warns


def _execute(notebook: Any, folder: Path) -> None:
    from nbclient import NotebookClient

    client = NotebookClient(
        notebook, timeout=HANG_S, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
