"""The folder of backends for a server that has only Triton's Python backend."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from ctypes.util import find_library
from pathlib import Path

import decathlete
from decathlete.core.copy_folder import copy_folder
from decathlete.core.files import write_text
from decathlete.errors import TritonError
from decathlete.serving.triton.installed_server import ServerInstallation

CLASSES = {"onnxruntime": "OnnxBackend", "openvino": "OpenVinoBackend", "pytorch": "TorchBackend"}
"""Backend -> class in :mod:`decathlete.serving.triton.network_backends` that takes its place."""
_STUB = "triton_python_backend_stub"

_MODEL_PY = '''"""The backend {name} in Python; written by `decathlete triton start`."""

import sys

sys.path.insert(0, {source!r})

from decathlete.serving.triton.network_backends import {cls} as TritonPythonModel  # noqa: E402, F401
'''


def write_backends(server: ServerInstallation, folder: Path) -> Path | None:
    """Write the backends that ``server`` lacks into ``folder``; return it, or ``None`` if nothing is missing.

    Raises:
        TritonError: the server has no Python backend for this version of Python.
    """
    if server.stubs is None:
        return None
    _copy_python_backend(server, folder / "python")
    source = str(Path(decathlete.__file__).parents[1])
    for name, cls in CLASSES.items():
        write_text(folder / name / "model.py", _MODEL_PY.format(name=name, source=source, cls=cls))
    return folder


def _copy_python_backend(server: ServerInstallation, folder: Path) -> None:
    version = python_version()
    assert server.stubs is not None  # for the type checker: only such a server needs the copy
    stub = server.stubs / version / _STUB
    if not stub.is_file():
        raise TritonError(
            f"has no Python backend for Python {version}",
            where=server.program,
            remedy="install Decathlete with another version of Python",
            code="E-TRITON-MISSING",
        )
    copy_folder(server.backends / "python", folder)
    shutil.copy2(stub, folder / _STUB)


def python_version() -> str:
    """Return the version of Python whose backend runs the models, for example ``3.11``."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def python_library_folder() -> Path | None:
    """Return the folder of Python's shared library, which the backend loads; ``None``: the system knows it.

    Raises:
        TritonError: there is none.
    """
    folder = Path(sysconfig.get_config_var("LIBDIR") or "")
    name = f"libpython{python_version()}.so.1.0"
    if (folder / name).is_file():
        return folder
    if find_library(f"python{python_version()}") is None:
        raise TritonError(
            f"needs the shared library of Python ({name}), which is not installed",
            where=sys.executable,
            remedy=f"install it (Debian: apt-get install libpython{python_version()})",
            code="E-TRITON-MISSING",
        )
    return None
