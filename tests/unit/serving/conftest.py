"""Fixtures of DICOM nodes that poll an archive without a network; see :mod:`dicom_node_support`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from decathlete.serving.dicom_node.node import DicomNode
from dicom_node_support import Clock, MakeNode, Web, polling_nodes, store_datasets


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def web() -> Web:
    return Web()


@pytest.fixture
def make_node(tmp_path: Path, clock: Clock, web: Web) -> Iterator[MakeNode]:
    with polling_nodes(tmp_path / "node", clock, web) as make:
        yield make


@pytest.fixture
def add(clock: Clock) -> Callable[[DicomNode, Sequence[Any]], int]:
    """Store instances as if they had arrived now."""

    def store(node: DicomNode, datasets: Sequence[Any]) -> int:
        return store_datasets(node.store, datasets, now=clock())

    return store
