"""The ten tasks of the Medical Segmentation Decathlon: names, addresses and checksums of their archives.

The archives are public in the AWS Open Data buckets ``msd-for-monai`` (USA) and ``msd-for-monai-eu`` (Europe), readable
over plain HTTPS without credentials. The data are the Decathlon's (Antonelli et al., Nature Communications 13, 4128,
2022), under CC BY-SA 4.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import url2pathname

from decathlete.core.choices import BucketRegion
from decathlete.core.digits import parse_digits
from decathlete.errors import DownloadError, OptionError

BUCKETS: dict[BucketRegion, str] = {
    "us": "https://msd-for-monai.s3-us-west-2.amazonaws.com",
    "eu": "https://msd-for-monai-eu.s3.eu-west-2.amazonaws.com",
}
_URL_SAFE = "/?%~!$&'()*+,;=:@"


@dataclass(frozen=True, kw_only=True)
class DecathlonTask:
    """One task of the Decathlon.

    Attributes:
        number: 1 to 10.
        organ: as in the folder's name, e.g. ``Hippocampus``.
        md5: MD5 of the archive, hexadecimal, as MONAI publishes it.
    """

    number: int
    organ: str
    md5: str

    @property
    def folder(self) -> str:
        """Name of the dataset's folder, which is the only folder in the archive: ``Task04_Hippocampus``."""
        return f"Task{self.number:02d}_{self.organ}"

    @property
    def archive(self) -> str:
        """File name of the archive: ``Task04_Hippocampus.tar``."""
        return f"{self.folder}.tar"


TASKS: tuple[DecathlonTask, ...] = (
    DecathlonTask(number=1, organ="BrainTumour", md5="240a19d752f0d9e9101544901065d872"),
    DecathlonTask(number=2, organ="Heart", md5="06ee59366e1e5124267b774dbd654057"),
    DecathlonTask(number=3, organ="Liver", md5="a90ec6c4aa7f6a3d087205e23d4e6397"),
    DecathlonTask(number=4, organ="Hippocampus", md5="9d24dba78a72977dbd1d2e110310f31b"),
    DecathlonTask(number=5, organ="Prostate", md5="35138f08b1efaef89d7424d2bcc928db"),
    DecathlonTask(number=6, organ="Lung", md5="8afd997733c7fc0432f71255ba4e52dc"),
    DecathlonTask(number=7, organ="Pancreas", md5="4f7080cfca169fa8066d17ce6eb061e4"),
    DecathlonTask(number=8, organ="HepaticVessel", md5="641d79e80ec66453921d997fbf12a29c"),
    DecathlonTask(number=9, organ="Spleen", md5="410d4a301da4e5b2f6f86ec3ddba524e"),
    DecathlonTask(number=10, organ="Colon", md5="bad7a188931dc2f6acf72b08eb6202d0"),
)


def find_task(text: str | int) -> DecathlonTask:
    """Find a task by number or name: ``4``, ``04``, ``Task04_Hippocampus``, ``Task04``, ``hippocampus``.

    Raises:
        OptionError: there is no such task.
    """
    name = _letters(str(text))
    for task in TASKS:
        names = {_letters(task.folder), _letters(task.organ), f"task{task.number:02d}", f"task{task.number}"}
        if name in names or parse_digits(name) == task.number:
            return task
    raise OptionError(
        f"--task {str(text)!r} is not a task of the Medical Segmentation Decathlon",
        remedy="use a number or a name: " + ", ".join(f"{t.number:02d} {t.organ}" for t in TASKS),
    )


def _letters(text: str) -> str:
    return re.sub(r"[\s_-]", "", text).lower()


def locate_archive(task: DecathlonTask, *, region: BucketRegion = "us", url: str | None = None) -> str | Path:
    """Return the address of a task's archive (``http(s)://``), or the path of a local file.

    Args:
        url: a mirror instead of the bucket: the folder that holds the archive or the archive itself, as ``https://``,
            ``http://``, ``file://`` or a path.

    Raises:
        OptionError: ``url`` is none of these.
        DownloadError: the local file does not exist.
    """
    address = BUCKETS[region] if url is None else url
    if "://" not in address:
        return _local_archive(Path(address).expanduser(), task)
    try:
        parts = urlsplit(address)
        is_valid = parts.port is None or parts.port > 0
        is_valid &= parts.netloc.isascii() and not re.search(r"[\s@]", parts.netloc)
    except ValueError:
        raise _address_error(address) from None
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return _local_archive(Path(url2pathname(parts.path)), task)
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_valid:
        raise _address_error(address)
    path = parts.path if parts.path.endswith(".tar") else f"{parts.path.rstrip('/')}/{task.archive}"
    encoded = parts._replace(path=quote(path, safe=_URL_SAFE), query=quote(parts.query, safe=_URL_SAFE), fragment="")
    return urlunsplit(encoded)


def _address_error(address: str) -> OptionError:
    without_password = re.sub(r"//[^/@]*@", "//...@", address)
    return OptionError(
        f"--url {without_password!r} is not an address that can be read",
        remedy="use https://, http:// or file:///path of a folder with the archive, or of the archive itself "
        "(without user and password)",
        code="E-OPTION-SYNTAX",
    )


def _local_archive(path: Path, task: DecathlonTask) -> Path:
    archive = path / task.archive if path.is_dir() else path
    if not archive.is_file():
        raise DownloadError(
            "there is no such file",
            where=archive,
            remedy=f"set --url to a folder with {task.archive}, or to its address",
        )
    return archive
