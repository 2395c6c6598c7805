"""Images that a viewer uploads once and uses in several requests: the sessions of MONAI Label.

Only the suffixes of file names are kept, since names may contain the name of a patient.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from decathlete.core.documents import read_json
from decathlete.core.files import move_synced, remove, translate_os_error, write_json
from decathlete.errors import DecathleteError, ServiceError
from decathlete.io.format_lookup import suffix_of
from decathlete.serving.inputs import ReceivedFile
from decathlete.serving.storage import copy_file, make_private_folder

DEFAULT_SECONDS = 3600
"""How long a session lives after its last use, unless the viewer asks for another time."""

_ID = re.compile(r"[0-9a-f]{32}")
_RECORD = "session.json"


class ImageSessions:
    """Sessions in a folder; they survive a restart of the service.

    Args:
        root: folder of all sessions.
        longest_seconds: limit of the time that a viewer may ask for.
        clock: seconds since 1970.
    """

    def __init__(self, root: Path, *, longest_seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._root, self._longest, self._clock = root, longest_seconds, clock
        with translate_os_error("cannot be written", where=root, remedy="use a --data folder of the same user"):
            make_private_folder(root)

    def add(self, files: Sequence[ReceivedFile], folder: Path, *, seconds: int = 0) -> dict[str, Any]:
        """Keep the files of one image; return the description of the new session.

        Args:
            files: in ``folder``; they are moved away.
            folder: of an upload.
            seconds: time until the session expires; 0: :data:`DEFAULT_SECONDS`.

        Raises:
            ServiceError: there is no file.
        """
        if not files:
            raise ServiceError("the upload has no file", remedy="send an image", code="E-SERVICE-REQUEST")
        self.remove_expired()
        session_id, now = secrets.token_hex(16), int(self._clock())
        whole = folder / "session"
        (whole / "files").mkdir(parents=True)
        names = [f"{number:05d}{suffix_of(file.name) or ''}" for number, file in enumerate(files)]
        for file, name in zip(files, names, strict=True):
            file.path.rename(whole / "files" / name)
        record = {
            "name": session_id,
            "path": session_id,
            "image": names[0] if len(names) == 1 else "files",
            "meta": {},
            "create_ts": now,
            "last_access_ts": now,
            "expiry": int(min(seconds if seconds > 0 else DEFAULT_SECONDS, self._longest)),
        }
        write_json(whole / _RECORD, record)
        move_synced(whole, self._root / session_id)
        return record

    def get(self, session_id: str, *, is_use: bool = True) -> dict[str, Any]:
        """Return the description of a session.

        Args:
            is_use: this is a use of the session, so that it lives longer.

        Raises:
            ServiceError: it does not exist or has expired.
        """
        self.remove_expired()
        record = self._read(session_id)
        if record is None:
            raise ServiceError(
                "there is no such session, or it has expired",
                remedy="upload the image again",
                code="E-SERVICE-DATASTORE",
            )
        if is_use:
            record["last_access_ts"] = int(self._clock())
            write_json(self._root / session_id / _RECORD, record)
        return record

    def copy_files(self, session_id: str, folder: Path) -> list[ReceivedFile]:
        """Copy the image of a session into ``folder``.

        Raises:
            ServiceError: it does not exist or has expired.
            OutputError: the disk is too full.
        """
        self.get(session_id)
        copied = []
        for path in sorted((self._root / session_id / "files").iterdir()):
            copied.append(ReceivedFile(name=path.name, path=copy_file(path, folder / f"session-{path.name}")))
        return copied

    def remove(self, session_id: str) -> dict[str, Any]:
        """Delete a session with its image; return what it was.

        Raises:
            ServiceError: it does not exist or has expired.
        """
        record = self.get(session_id, is_use=False)
        remove(self._root / session_id)
        return record

    def remove_expired(self) -> None:
        """Delete the sessions that were not used for longer than their time."""
        for folder in self._root.iterdir():
            record = self._read(folder.name)
            if record is None or record["last_access_ts"] + record["expiry"] <= self._clock():
                remove(folder)

    def _read(self, session_id: str) -> dict[str, Any] | None:
        if not _ID.fullmatch(session_id):
            return None
        try:
            record: dict[str, Any] = read_json(self._root / session_id / _RECORD)
        except DecathleteError:
            return None
        return record
