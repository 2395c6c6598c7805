"""Write the pipeline of a model for Triton's Python backend: an image in, a label map on the image's own grid out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import decathlete
from decathlete.core.copy_folder import copy_folder
from decathlete.core.files import write_text
from decathlete.core.rng import stream
from decathlete.export.triton_config import WARMUP_FILES
from decathlete.models.bundle import ModelBundle

MODEL_FOLDER, CODE_FOLDER = "bundle", "code"
"""Names in the version's folder."""

_MODEL_PY = '''"""Pipeline of a Decathlete model for Triton's Python backend; written by `decathlete export triton`."""

import sys
from pathlib import Path

sys.path[:0] = [str(folder) for folder in [Path(__file__).parent / "code"] if folder.is_dir()]

from decathlete.serving.triton.pipeline_model import PipelineModel as TritonPythonModel  # noqa: E402, F401
'''


def write_pipeline(model: ModelBundle, version: Path, *, code: bool) -> None:
    """Write ``model.py``, the bundle and, if ``code``, Decathlete's source into the folder of a version."""
    version.mkdir(parents=True)
    write_text(version / "model.py", _MODEL_PY)
    copy_folder(model.folder, version / MODEL_FOLDER, without=(".*",))
    if code:
        source = Path(decathlete.__file__).parent
        copy_folder(source, version / CODE_FOLDER / source.name, without=("__pycache__", "*.pyc", ".*"))


def write_warmup(folder: Path, *, n_channels: int, shape_ZYX: Sequence[int]) -> None:
    """Write the image that a pipeline segments before it is ready: random numbers, on a plain grid."""
    volume_CZYX = stream(0, "triton warm-up").normal(size=(n_channels, *shape_ZYX)).astype(np.float32)
    contents = (volume_CZYX.tobytes(), np.eye(4).tobytes())
    (folder / "warmup").mkdir()
    for name, content in zip(WARMUP_FILES, contents, strict=True):
        (folder / "warmup" / name).write_bytes(content)
