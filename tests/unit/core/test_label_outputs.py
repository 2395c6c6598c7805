"""The output channels of exclusive classes and of overlapping regions."""

from __future__ import annotations

import ast
from pathlib import Path

import decathlete
from decathlete.core.labels import LabelSet, Region

SOURCE = Path(decathlete.__file__).parent
CLASSES = LabelSet.from_names(["liver", "tumour"])
REGIONS = CLASSES.revised(
    regions=(Region(name="whole", values=(1, 2)), Region(name="core", values=(2,))), region_order=(1, 2)
)


def test_classes_have_an_output_for_the_background() -> None:
    assert (CLASSES.kind, CLASSES.n_background_outputs) == ("classes", 1)
    assert CLASSES.output_names == ("background", "liver", "tumour")


def test_regions_have_one_output_each() -> None:
    assert (REGIONS.kind, REGIONS.n_background_outputs) == ("regions", 0)
    assert REGIONS.output_names == ("whole", "core")


def test_no_other_package_decides_by_whether_there_are_regions() -> None:
    """Except where a file has another form for regions: manifests of datasets and nnU-Net's folders."""
    deciding = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            decisions = [node.test] if isinstance(node, ast.If | ast.IfExp) else []
            if isinstance(node, ast.BoolOp):
                decisions = node.values
            elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
                decisions = [node.operand]
            if any(ast.unparse(decision).endswith("labels.regions") for decision in decisions):
                deciding.add(str(path.relative_to(SOURCE)))
    assert {name for name in deciding if not name.startswith("dataset/")} == {
        "interop/nnunet_export_plan.py",
        "interop/nnunet_plan.py",
    }
