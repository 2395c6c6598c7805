"""Programs of others that tests run. Without one, its tests are skipped; ``make test-full`` lists the missing ones.

``make debian-packages`` installs them.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from decathlete.errors import TritonError
from decathlete.serving.triton.backend_folder import python_library_folder, python_version

ORTHANC_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ORTHANC = ("Orthanc", "orthanc")


@dataclass(frozen=True)
class ExternalProgram:
    """A program of others.

    Attributes:
        package: Debian's name of it.
        tests: what is tested with it.
        is_installed: whether it is.
    """

    package: str
    tests: str
    is_installed: Callable[[], bool]


def find_chromium() -> str | None:
    """Return the path of Chromium or Chrome; ``None``: neither is installed."""
    return _find(_CHROMIUM)


def find_orthanc() -> str | None:
    """Return the path of Orthanc; ``None``: it is not installed."""
    return _find(_ORTHANC)


def _find(names: tuple[str, ...]) -> str | None:
    return next((found for name in names if (found := shutil.which(name))), None)


def _has_python_library() -> bool:
    try:
        python_library_folder()
    except TritonError:
        return False
    return True


PROGRAMS = (
    ExternalProgram("chromium", "the page of the service, and OHIF", lambda: find_chromium() is not None),
    ExternalProgram("orthanc", "the DICOM node with an archive, and OHIF", lambda: find_orthanc() is not None),
    ExternalProgram("orthanc-dicomweb", "the same by DICOMweb", ORTHANC_PLUGIN.is_file),
    ExternalProgram("plastimatch", "the voxels of RT structure sets", lambda: _find(("plastimatch",)) is not None),
    ExternalProgram(f"libpython{python_version()}", "the Triton server", _has_python_library),
)


def missing_programs() -> Iterator[str]:
    """Yield a line for each program that is not installed."""
    for program in PROGRAMS:
        if not program.is_installed():
            yield f"not installed, so not tested: {program.package} ({program.tests}); see make debian-packages"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in missing_programs())
