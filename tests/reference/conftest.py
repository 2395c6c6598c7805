"""Lets the tests of this folder import the scripts for the peers and the fingerprints of the planning tests."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "peers"), str(HERE.parent / "unit" / "planning")]
