"""A stand-in for ``child``: a process that crashes, hangs or answers, as the kind of the case says."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import asdict

from robustness.outcomes import EQUAL, Case, Outcome


def main() -> None:
    """Answer, or misbehave."""
    for line in sys.stdin:
        case = Case(**json.loads(line))
        if case.kind == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        while case.kind == "busy":
            pass
        if case.kind == "broken":
            raise ValueError("no such mutation")
        if case.kind == "blocked":
            time.sleep(10_000)
        print(json.dumps(asdict(Outcome(case=case, result=EQUAL))), flush=True)


if __name__ == "__main__":
    main()
