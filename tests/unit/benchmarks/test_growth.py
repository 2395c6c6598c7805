"""How growth is judged: on made-up figures, and on made-up data of every axis."""

import json
import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest

from benchmark_support import importable


@pytest.fixture(autouse=True)
def growth():
    """Its modules."""
    with importable("growth"):
        yield


def points(cost, amounts, *, peak=lambda n: 10**8):
    from fit import Point

    return [Point(amount=n, seconds=2 * cost(n), cpu_seconds=cost(n), peak_bytes=int(peak(n))) for n in amounts]


@pytest.mark.parametrize("power", [0.5, 1, 2])
def test_the_exponent_is_found_behind_a_large_fixed_cost(power):
    from fit import exponent

    amounts = [10, 100, 1_000, 10_000]
    found = exponent(amounts, [5 + 1e-4 * n**power for n in amounts])
    assert found == pytest.approx(power, abs=0.05)


def test_what_does_not_grow_has_exponent_0_and_a_single_size_has_none():
    from fit import exponent

    assert exponent([1, 10, 100], [3.0, 2.9, 2.8]) == 0
    assert exponent([1, 10], [1.0, 10.0]) is None


def test_memory_is_counted_from_the_size_where_the_limit_begins():
    from fit import bytes_per_unit

    found = points(lambda n: n, [10, 100, 10_000], peak=lambda n: {10: 1e6, 100: 50e6, 10_000: 90e6}[n])
    assert bytes_per_unit(found, start=100) == 4_000
    assert bytes_per_unit(found[:2], start=100) is None


def test_the_table_says_what_grows_too_much():
    from axes import AXES
    from tables import markdown

    axis, amounts = AXES["cases"], [10, 100, 1_000, 10_000]
    text = markdown(
        axis,
        axis.full,
        {
            "check": points(lambda n: 1 + 0.01 * n, amounts, peak=lambda n: 1e8 + 4e3 * n),
            "predict": points(lambda n: 1e-5 * n**2, amounts, peak=lambda n: 1e8 + 6e3 * n),
        },
        ["not run: nothing"],
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    assert ["check", "1,000", "22.00", "11.00", "11", "104 MB"] in rows
    (check,) = [row for row in rows if row[0] == "check" and len(row) == 5]
    (predict,) = [row for row in rows if row[0] == "predict" and len(row) == 5]
    assert check[1:] == ["1.00", "1.00", "3.96 kB per case (limit 5 kB)", "time linear or less; memory within limit"]
    assert float(predict[1]) == pytest.approx(2, abs=0.05)
    assert predict[4] == "TIME GROWS TOO MUCH; MEMORY GROWS TOO MUCH"
    assert "- not run: nothing" in text


def test_the_record_names_machine_versions_and_sizes():
    from axes import AXES
    from tables import record

    axis = AXES["classes"]
    found = {"check": points(lambda n: n, [2, 10, 20])}
    content = json.loads(record(axis, axis.small, found, [], python=Path(sys.executable), cores=[0]))
    assert "1 core" in content["machine"]
    assert "numpy" in content["versions"]
    assert [size["classes"] for size in content["sizes"]] == [2, 10, 20]
    assert content["commands"]["check"]["exponent"] == pytest.approx(1)


def test_the_plot_is_a_small_picture(tmp_path):
    from axes import AXES
    from plots import plot

    plot(tmp_path / "p.png", AXES["voxels"], {"check": points(lambda n: n, [10, 100]), "predict": []})
    assert 1_000 < (tmp_path / "p.png").stat().st_size < 60_000


def test_made_up_cases_differ_and_hold_every_class(tmp_path):
    from data import make_data

    make_data(tmp_path, cases=2, shape_ZYX=(12, 10, 8), classes=117, patch=[8, 8, 8])
    first, second = (
        np.asarray(nibabel.load(tmp_path / "dataset" / "imagesTr" / f"made_up_0000{i}.nii").dataobj) for i in (0, 1)
    )
    assert first.shape == (8, 10, 12)
    assert not np.array_equal(first, second)
    label = np.asarray(nibabel.load(tmp_path / "dataset" / "labelsTr" / "made_up_00001.nii").dataobj)
    assert len(np.unique(label)) == 117
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["made_up_00000.nii", "made_up_00001.nii"]


@pytest.mark.parametrize(("child_kb", "expected_kb"), [(5, 300), (4000, 4000)])
def test_the_peak_is_this_process_own_or_its_childs(child_kb, expected_kb, tmp_path, monkeypatch):
    """A forked process begins with its parent's peak in ``getrusage``: 9 MB here."""
    from common import processes

    peaks = {resource.RUSAGE_SELF: 9000, resource.RUSAGE_CHILDREN: child_kb}
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=peaks[who]))
    monkeypatch.setattr(processes, "STATUS", tmp_path / "status")
    assert processes.peak_bytes() == 9000 * 1024, "where there is no such file"
    (tmp_path / "status").write_text("VmPeak:\t  7000 kB\nVmHWM:\t   300 kB\nVmRSS:\t   200 kB\n")
    assert processes.peak_bytes() == expected_kb * 1024


def test_a_limit_below_every_size_is_told(monkeypatch):
    import run

    monkeypatch.setattr(sys, "argv", ["run.py", "--axis", "cases", "--up-to", "1"])
    with pytest.raises(SystemExit, match="--up-to 10 at least"):
        run.main()
