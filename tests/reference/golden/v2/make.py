"""Make the files beside this script: the run of ``v1/stopped``, resumed by code that keys random changes by name.

The early version that wrote ``v1`` drew the random changes of augmentation from one stream per sample. Since each
transform has a stream of its own, the resumed run ends with other weights than ``v1/results``. Make them again only
where training is meant to change:

    OMP_NUM_THREADS=1 python tests/reference/golden/v2/make.py
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]

from test_golden_v1 import resume_stopped_run  # noqa: E402

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        run = resume_stopped_run(Path(folder))
        shutil.copy(run / "model" / "weights" / "3d_fold_0.safetensors", HERE / "resumed.safetensors")
        shutil.copy(run / "logs.json", HERE / "resumed_logs.json")
