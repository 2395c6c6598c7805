"""The warnings of a job are those of its own image, whoever has read it before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom

from decathlete.io.images import read_grid, read_image
from decathlete.serving.private_log import collect_warnings, private_logging
from dicom_support import write_series


def test_a_request_that_reads_an_image_does_not_use_up_its_warnings(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", np.zeros((4, 5, 6), np.int16))
    path = folder / "14_series.dcm"  # the third slice
    slice_ = pydicom.dcmread(path)
    slice_.ImagePositionPatient[2] += 0.1
    slice_.save_as(path)
    with private_logging():
        read_image(folder)  # for a request, while the job waits
        for _ in range(2):  # also if it is computed again
            with collect_warnings() as collected:
                read_grid(folder)
                read_image(folder)
            assert [("not quite evenly spaced" in text) for text in collected] == [True]
