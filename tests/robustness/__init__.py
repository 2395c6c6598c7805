"""The robustness harness: malformed inputs, kills and faults, and a table of what became of them.

``python -m tests.robustness.run`` (``make robustness``) runs it whole; ``make test`` replays the seeds of what once
failed (``seeds.json``) and a small sample of each format.
"""

import sys
from pathlib import Path

# The tests' own modules (factories) are imported by their plain names, however this package is started.
_TESTS = str(Path(__file__).parents[1])
if _TESTS not in sys.path:
    sys.path.insert(0, _TESTS)
