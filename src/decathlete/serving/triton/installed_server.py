"""Find an installed Triton Inference Server: the program itself, or the one in the wheel of nvidia-pytriton."""

from __future__ import annotations

import shutil
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from decathlete.errors import TritonError

ENVIRONMENT = Path(".venv-triton")
"""Where ``make triton`` installs the wheel."""


@dataclass(frozen=True, kw_only=True)
class ServerInstallation:
    """A Triton Inference Server on this machine.

    Attributes:
        program: ``tritonserver``.
        backends: folder of its backends.
        libraries: folder of shared libraries that it needs; ``None``: the system's.
        caches: folder of its response caches; ``None``: its default.
        stubs: of the Python backend, by version of Python; ``None`` for a complete server, which has all backends.
    """

    program: Path
    backends: Path
    libraries: Path | None = None
    caches: Path | None = None
    stubs: Path | None = None


def find_server(named: Path | None = None) -> ServerInstallation:
    """Return a server.

    Args:
        named: the program ``tritonserver``, or a Python environment with nvidia-pytriton; ``None``: ``tritonserver`` on
            the PATH, or else nvidia-pytriton in this environment or in ``.venv-triton`` here.

    Raises:
        TritonError: there is none.
    """
    if named is not None:
        found = _in_environment(named) if named.is_dir() else _complete(named) if named.is_file() else None
        if found is None:
            raise _missing(f"{named} is neither tritonserver nor a Python environment with nvidia-pytriton")
        return found
    on_path = shutil.which("tritonserver")
    if on_path is not None:
        return _complete(Path(on_path))
    packages = Path(sysconfig.get_paths()["purelib"])
    found = _in_packages(packages) or _in_environment(ENVIRONMENT)
    if found is None:
        raise _missing("no Triton Inference Server is installed")
    return found


def _complete(program: Path) -> ServerInstallation:
    """Return a server with its own backends; in NVIDIA's container they are beside the folder of the program."""
    if _belongs_to_wheel(program):
        return _in_packages(program.resolve().parents[3]) or ServerInstallation(
            program=program, backends=program.parents[1] / "backends"
        )
    return ServerInstallation(program=program.resolve(), backends=program.resolve().parents[1] / "backends")


def _belongs_to_wheel(program: Path) -> bool:
    return (program.resolve().parents[1] / "python_backend_stubs").is_dir()


def _in_environment(folder: Path) -> ServerInstallation | None:
    for packages in sorted(folder.glob("lib/python3.*/site-packages")):
        found = _in_packages(packages)
        if found is not None:
            return found
    return None


def _in_packages(packages: Path) -> ServerInstallation | None:
    server = packages.resolve() / "pytriton" / "tritonserver"
    program = server / "bin" / "tritonserver"
    if not program.is_file():
        return None
    return ServerInstallation(
        program=program,
        backends=server / "backends",
        libraries=packages.resolve() / "nvidia_pytriton.libs",
        caches=server / "caches",
        stubs=server / "python_backend_stubs",
    )


def _missing(problem: str) -> TritonError:
    return TritonError(
        problem,
        remedy="run `make triton` in Decathlete's folder and name the environment that it makes, `--server "
        "DECATHLETE/.venv-triton`; or name another installation with --server; or start the repository in NVIDIA's "
        "container (docs: how-to/serve-with-triton)",
        code="E-TRITON-MISSING",
    )
