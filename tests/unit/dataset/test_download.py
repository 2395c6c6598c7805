"""A Decathlon task over HTTP: from a good server, from bad ones, and what the user is told."""

from __future__ import annotations

import io
import shutil
import socket
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from decathlete import download, read_dataset
from decathlete.cli.download import byte_bar
from decathlete.cli.main import main
from decathlete.core.sizes import format_bytes
from decathlete.dataset import decathlon
from decathlete.dataset.decathlon import BUCKETS, DecathlonTask, find_task, locate_archive
from decathlete.dataset.find_dataset import resolve_task
from decathlete.errors import DownloadError, OptionError, OutputError
from decathlete.transfer.part_file import PartFile
from mirror import ARCHIVE, FILES, FOLDER, IMAGE, Mirror, md5, member, serving, tar_of

CONTENT = tar_of()
HALF = len(CONTENT) // 2
PART = f"{ARCHIVE}.part"
ANOTHER_MIRROR = "\n  → run the same command again to resume; or use --url with the address of a mirror"
CHECK_URL = "\n  → check --url: it is the address of the archive or of its folder"


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that a download made, which take no time here; no proxy stands before the servers of these tests."""
    taken: list[float] = []
    monkeypatch.setattr("decathlete.transfer.http.time.sleep", taken.append)
    monkeypatch.setenv("no_proxy", "*")
    return taken


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], bytes]:
    """Make these bytes the published archive of Task 04."""

    def published(content: bytes) -> bytes:
        monkeypatch.setattr(
            decathlon, "TASKS", (DecathlonTask(number=4, organ="Hippocampus", md5=md5(content)),), raising=True
        )
        return content

    return published


@pytest.fixture
def mirror(publish: Callable[[bytes], bytes]) -> Iterator[Mirror]:
    with serving(publish(CONTENT)) as server:
        yield server


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: Path) -> Callable[..., str]:
    """Run ``decathlete download`` with a mistake; returns the error as printed, without the line on documentation."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["decathlete", "download", "--data", str(data), *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        assert stop.value.code == 2, said.err
        assert said.out == ""
        assert "Traceback" not in said.err
        assert not (data / FOLDER).exists()
        assert not list(data.glob(".partial-*"))
        error, _, documentation = said.err[said.err.index("error E-") :].strip().rpartition("\n")
        code = error.removeprefix("error ").partition(":")[0]
        assert documentation == f"  (documentation: docs/reference/errors.md#{code.lower()})"
        return error

    return run


def assert_whole(data: Path) -> None:
    """The dataset is there as it was packed, and nothing else."""
    found = {str(p.relative_to(data)): p.read_bytes() for p in data.rglob("*") if p.is_file() or p.is_symlink()}
    assert found == FILES


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# A good server


def test_a_task_comes_whole_and_is_a_dataset(mirror: Mirror, data: Path) -> None:
    told: list[tuple[int, int | None]] = []
    folder = download("04", data=data, url=mirror.url, progress=lambda done, total: told.append((done, total)))
    assert folder == data / FOLDER
    assert_whole(data)
    assert read_dataset(resolve_task("04", data)).cases[0].id == "a"
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_a_second_call_asks_for_nothing_and_changes_nothing(mirror: Mirror, data: Path) -> None:
    download("04", data=data, url=mirror.url)
    (data / FOLDER / "mine.txt").write_text("kept")
    said: list[str] = []
    download("04", data=data, url=mirror.url, log=said.append)
    assert len(mirror.asked) == 1
    assert (data / FOLDER / "mine.txt").read_text() == "kept"
    assert said == [f"{data / FOLDER} exists already"]


def test_the_archives_own_address_may_carry_a_query(mirror: Mirror, data: Path) -> None:
    said: list[str] = []
    download("04", data=data, url=f"{mirror.url}/{ARCHIVE}?signature=secret", log=said.append)
    assert_whole(data)
    assert "secret" not in "".join(said)


def test_a_server_that_tells_no_length_is_enough(mirror: Mirror, data: Path) -> None:
    mirror.lengths = False
    download("04", data=data, url=mirror.url)
    assert_whole(data)


@pytest.mark.parametrize("bound", ["largest", "room"])
def test_a_server_that_tells_no_length_does_not_fill_the_disk(
    mirror: Mirror, data: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str], bound: str
) -> None:
    mirror.lengths = False
    if bound == "largest":
        monkeypatch.setattr("decathlete.dataset.download.LARGEST", HALF)
    else:
        usage = namedtuple("usage", "free")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2 * HALF))
    said = fails("--task", "04", "--url", mirror.url)
    assert f"the file is larger than {format_bytes(HALF)}, and the server does not give its size" in said
    assert "\n  → free disk space, or use --url with the address of another mirror" in said
    assert names(data) == []


# A server that breaks off


def test_a_broken_connection_goes_on_where_it_broke(mirror: Mirror, data: Path, pauses: list[float]) -> None:
    mirror.breaks.extend([HALF, 1000])
    said: list[str] = []
    download("04", data=data, url=mirror.url, log=said.append)
    assert_whole(data)
    assert mirror.asked == ["", f"bytes={HALF}-", f"bytes={HALF + 1000}-"]
    assert mirror.served == len(CONTENT), "some bytes came twice"
    assert said.count("the connection was interrupted; next attempt in 1.0 s") == 2
    assert pauses == [1.0, 1.0], "each brought something new, so the pause does not grow"


def test_a_connection_that_brings_nothing_is_given_up_with_growing_pauses(
    mirror: Mirror, data: Path, pauses: list[float], fails: Callable[..., str]
) -> None:
    mirror.breaks.extend([HALF, 0, 0, 0, 0])
    said = fails("--task", "04", "--url", mirror.url)
    assert said == (
        f"error E-DOWNLOAD-NETWORK: {mirror.url}/{ARCHIVE}: the connection was interrupted, 5 times in a row; "
        f"the downloaded 153.6 kB of 307.2 kB are kept{ANOTHER_MIRROR}"
    )
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    download("04", data=data, url=mirror.url)
    assert_whole(data)
    assert mirror.served == len(CONTENT), "the second call fetched again what the first had"


def test_another_mirror_goes_on_with_what_the_first_brought(mirror: Mirror, data: Path) -> None:
    mirror.breaks.append(HALF)
    with serving(CONTENT) as other:
        other.etag = '"another server, another tag"'
        mirror.breaks.extend([0] * 4)
        with pytest.raises(DownloadError):
            download("04", data=data, url=mirror.url)
        download("04", data=data, url=other.url)
        assert (other.asked, other.served) == ([f"bytes={HALF}-"], len(CONTENT) - HALF)
    assert_whole(data)


def test_a_killed_download_goes_on(mirror: Mirror, data: Path) -> None:
    mirror.breaks.append(HALF)
    mirror.stalled = threading.Event()
    killed = subprocess.Popen([sys.executable, "-c", _PATCHED_MAIN, "--data", str(data), "--url", mirror.url])
    while PartFile(data / PART).size < HALF and killed.poll() is None:
        threading.Event().wait(0.02)
    killed.kill()
    killed.wait()
    mirror.stalled.set()
    mirror.stalled = None
    said: list[str] = []
    download("04", data=data, url=mirror.url, log=said.append)
    assert_whole(data)
    assert said[0] == f"resuming {mirror.url}/{ARCHIVE}"
    assert mirror.asked == ["", f"bytes={HALF}-"]
    assert mirror.served == len(CONTENT)


_PATCHED_MAIN = f"""
import sys
from decathlete.cli.download import byte_bar
from decathlete.cli.main import main
from decathlete.dataset import decathlon
decathlon.TASKS = (decathlon.DecathlonTask(number=4, organ="Hippocampus", md5="{md5(CONTENT)}"),)
sys.argv = ["decathlete", "download", "--task", "04", *sys.argv[1:]]
main()
"""


def test_a_call_killed_while_unpacking_goes_on_without_the_server(mirror: Mirror, data: Path) -> None:
    mirror.answers.append(404)
    data.mkdir()
    (data / PART).write_bytes(CONTENT)
    (data / f"{PART}.json").write_text(f'{{"size": {len(CONTENT)}, "validator": null, "source": null}}')
    (data / f".partial-0123abcd-{FOLDER}" / "imagesTr").mkdir(parents=True)
    download("04", data=data, url=mirror.url)
    assert mirror.asked == []
    assert_whole(data)
    assert names(data) == [FOLDER], "what the killed call left lies still there"


def test_two_downloads_of_one_task_do_not_write_into_one_file(
    mirror: Mirror, data: Path, fails: Callable[..., str]
) -> None:
    data.mkdir()
    with PartFile(data / PART).lock():
        said = fails("--task", "04", "--url", mirror.url)
    assert said == (
        f"error E-OUTPUT-LOCKED: {data / PART}: is being downloaded by another process\n  → wait until it has finished"
    )


# A server without Range, or whose file changes


def test_a_server_that_ignores_range_starts_over(mirror: Mirror, data: Path) -> None:
    mirror.ranges = False
    mirror.breaks.append(HALF)
    download("04", data=data, url=mirror.url)
    assert_whole(data)
    assert mirror.served == HALF + len(CONTENT)


def test_a_server_that_ignores_range_and_breaks_off_is_given_up(
    mirror: Mirror, data: Path, fails: Callable[..., str]
) -> None:
    mirror.ranges = False
    mirror.breaks.extend([HALF] * 9)
    said = fails("--task", "04", "--url", mirror.url)
    assert "the connection was interrupted, 5 times in a row; the downloaded 153.6 kB of 307.2 kB are kept" in said


def test_a_file_that_changed_meanwhile_comes_anew(mirror: Mirror, data: Path) -> None:
    mirror.content, mirror.etag = b"?" * len(CONTENT), '"old"'
    _give_up_half_way(mirror, data)
    mirror.content, mirror.etag = CONTENT, '"new"'
    download("04", data=data, url=mirror.url)
    assert_whole(data)
    assert mirror.asked[-1] == f"bytes={HALF}-"
    assert mirror.served == HALF + len(CONTENT), "the old half was kept, or something came twice"


def test_without_a_tag_another_length_tells_of_a_change(mirror: Mirror, data: Path) -> None:
    mirror.content, mirror.etag = b"?" * (2 * HALF - 1), None
    _give_up_half_way(mirror, data)
    mirror.content = CONTENT
    said: list[str] = []
    download("04", data=data, url=mirror.url, log=said.append)
    assert_whole(data)
    assert "the file on the server has changed; next attempt in 1.0 s" in said


def test_without_a_tag_a_shorter_file_tells_of_a_change(mirror: Mirror, data: Path) -> None:
    mirror.content, mirror.etag = b"?" * 4 * len(CONTENT), None
    _give_up_half_way(mirror, data, 2 * len(CONTENT))
    mirror.content = CONTENT
    download("04", data=data, url=mirror.url)
    assert_whole(data)


def _give_up_half_way(mirror: Mirror, data: Path, half: int = HALF) -> None:
    mirror.breaks.extend([half, 0, 0, 0, 0])
    with pytest.raises(DownloadError, match="5 times in a row"):
        download("04", data=data, url=mirror.url)


def test_a_part_longer_than_the_file_is_dropped(mirror: Mirror, data: Path) -> None:
    data.mkdir()
    (data / PART).write_bytes(b"?" * (len(CONTENT) + 7))
    (data / f"{PART}.json").write_text(f'{{"size": {len(CONTENT)}, "validator": null, "source": null}}')
    download("04", data=data, url=mirror.url)
    assert_whole(data)


# Wrong bytes, wrong answers, nobody


def test_wrong_bytes_are_named_and_removed_so_that_the_next_call_starts_afresh(
    mirror: Mirror, data: Path, fails: Callable[..., str]
) -> None:
    mirror.content = wrong = CONTENT[:-1] + b"!"
    said = fails("--task", "04", "--url", mirror.url)
    assert said == (
        f"error E-DOWNLOAD-CHECKSUM: {mirror.url}/{ARCHIVE}: is not the published {ARCHIVE} "
        f"(its MD5 is {md5(wrong)}, not {md5(CONTENT)}); it was removed\n"
        "  → run the same command again; if this happens again, use --url with the address of a mirror"
    )
    assert names(data) == []
    mirror.content = CONTENT
    download("04", data=data, url=mirror.url)
    assert mirror.asked == ["", ""]
    assert_whole(data)


def test_a_missing_file_is_said_at_once(mirror: Mirror, data: Path, fails: Callable[..., str]) -> None:
    said = fails("--task", "04", "--url", f"{mirror.url}/elsewhere/")
    assert said == f"error E-DOWNLOAD: {mirror.url}/elsewhere/{ARCHIVE}: the server answers 404 Not Found{CHECK_URL}"
    assert len(mirror.asked) == 1
    assert names(data) == []


def test_a_busy_server_is_asked_again(mirror: Mirror, data: Path, pauses: list[float]) -> None:
    mirror.answers.extend([503, 429])
    download("04", data=data, url=mirror.url)
    assert_whole(data)
    assert pauses == [1.0, 2.0]


def test_a_server_that_stays_busy_is_given_up(mirror: Mirror, data: Path, fails: Callable[..., str]) -> None:
    mirror.answers.extend([503] * 9)
    said = fails("--task", "04", "--url", mirror.url)
    assert said == (
        f"error E-DOWNLOAD-NETWORK: {mirror.url}/{ARCHIVE}: "
        "the server answers 503 Service Unavailable, 5 times in a row; "
        f"the downloaded 0 bytes are kept{ANOTHER_MIRROR}"
    )


CHECK_NETWORK = (
    "\n  → check the network and its proxy; or use --url with the address of a mirror, or with file:///path of an "
    "archive that was downloaded elsewhere"
)


def test_without_a_network_the_error_says_what_else_to_do(
    data: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    def no_name(*_: object, **__: object) -> Any:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    said = fails("--task", "04", "--region", "eu")
    assert said == (
        f"error E-DOWNLOAD-NETWORK: {BUCKETS['eu']}/{ARCHIVE}: "
        f"cannot be reached (Temporary failure in name resolution){CHECK_NETWORK}"
    )
    assert pauses == [], "nobody waits for a network that is not there"
    assert names(data) == []


def test_a_server_that_is_not_there_is_said_by_the_program_itself(data: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "decathlete", "download", "--task", "4", "--data", str(data), "--url", url]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 2
    assert said.stdout == ""
    assert said.stderr == (
        f"downloading {url}/{ARCHIVE}\n"
        f"error E-DOWNLOAD-NETWORK: {url}/{ARCHIVE}: cannot be reached (Connection refused){CHECK_NETWORK}\n"
        "  (documentation: docs/reference/errors.md#e-download-network)\n"
    )


# The disk


def test_a_full_disk_is_said_before_anything_comes(
    mirror: Mirror, data: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 400_000))
    said = fails("--task", "04", "--url", mirror.url)
    assert said == (
        f"error E-DISK-FULL: {data}: 614.4 kB are needed to download and unpack it, but the disk has 400.0 kB free\n"
        "  → free disk space, or choose a folder on another disk with --data"
    )
    assert names(data) == []


def test_a_folder_that_is_something_else_is_left_alone(mirror: Mirror, data: Path) -> None:
    (data / FOLDER).mkdir(parents=True)
    (data / FOLDER / "notes.txt").touch()
    with pytest.raises(OutputError) as error:
        download("04", data=data, url=mirror.url)
    assert str(error.value) == f"{data / FOLDER}: exists, but contains no dataset.json\n  → move or remove it"
    assert mirror.asked == []
    assert names(data / FOLDER) == ["notes.txt"]


# Files instead of servers


@pytest.mark.parametrize("form", ["file address", "folder's file address", "path", "folder"])
def test_an_archive_on_this_machine_is_unpacked_and_stays(
    form: str, publish: Callable[[bytes], bytes], data: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "my files" / ARCHIVE
    archive.parent.mkdir()
    archive.write_bytes(publish(CONTENT))
    url = {
        "file address": archive.as_uri(),
        "folder's file address": archive.parent.as_uri(),
        "path": str(archive),
        "folder": str(archive.parent),
    }[form]
    download("04", data=data, url=url)
    assert_whole(data)
    assert archive.read_bytes() == CONTENT


def test_a_wrong_archive_on_this_machine_is_named_and_stays(
    publish: Callable[[bytes], bytes], tmp_path: Path, data: Path, fails: Callable[..., str]
) -> None:
    publish(CONTENT)
    archive = tmp_path / "other.tar"
    archive.write_bytes(b"other")
    assert fails("--task", "04", "--url", archive.as_uri()) == (
        f"error E-DOWNLOAD-CHECKSUM: {archive}: is not the published {ARCHIVE} "
        f"(its MD5 is {md5(b'other')}, not {md5(CONTENT)})\n  → download it again, or from another mirror"
    )
    assert archive.read_bytes() == b"other"


def test_a_file_that_is_not_there_is_named(data: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    assert fails("--task", "04", "--url", (tmp_path / "gone.tar").as_uri()) == (
        f"error E-DOWNLOAD: {tmp_path}/gone.tar: there is no such file\n"
        f"  → set --url to a folder with {ARCHIVE}, or to its address"
    )


# Hostile archives (they can pass the digest only if the published one is hostile)


def _hostile() -> dict[str, tuple[bytes, str]]:
    leaves = "contains a member that leaves its folder: "
    sparse = {"GNU.sparse.map": "0,4", "GNU.sparse.size": str(10**12)}
    return {
        "traversal": (tar_of(member(f"{FOLDER}/../../evil", b"x")), f"{leaves}'{FOLDER}/../../evil'"),
        "hidden traversal": (tar_of(member("../._evil", b"x")), f"{leaves}'../._evil'"),
        "absolute": (tar_of(member("/tmp/evil", b"x")), f"{leaves}'/tmp/evil'"),
        "windows": (tar_of(member("C:\\evil", b"x")), f"{leaves}'C:\\\\evil'"),
        "terminal codes": (tar_of(member(f"{FOLDER}/\x1b[2J", b"x")), f"{leaves}'{FOLDER}/\\x1b[2J'"),
        "bomb": (tar_of(member("bomb", b"1234", pax_headers=sparse)), "would unpack to more than 307.2 kB"),
        "twice": (tar_of(member(f"{FOLDER}/dataset.json", b"{}")), "contains 'dataset.json' twice"),
        "file and folder": (tar_of(member(f"{FOLDER}/imagesTr", b"x")), "contains 'imagesTr' twice"),
        "another dataset": (tar_of(files={"Task09_Spleen/dataset.json": b"{}"}), f"contains no {FOLDER}/dataset.json"),
    }


@pytest.mark.parametrize("kind", _hostile())
def test_a_hostile_archive_is_refused_whole(
    kind: str, publish: Callable[[bytes], bytes], data: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    content, problem = _hostile()[kind]
    code = "E-ARCHIVE" if kind == "another dataset" else "E-ARCHIVE-UNSAFE"
    with serving(publish(content)) as mirror:
        said = fails("--task", "04", "--url", mirror.url)
    assert said == (
        f"error {code}: {data / PART}: {problem}\n"
        "  → do not use this file; download the archive again from its publisher"
    )
    assert [p.name for p in tmp_path.rglob("*")] == ["data"], "something of it was kept"


def test_a_compressed_bomb_is_not_even_opened(
    publish: Callable[[bytes], bytes], data: Path, fails: Callable[..., str]
) -> None:
    bomb = tar_of(member(f"{FOLDER}/zeros", bytes(20_000_000)), mode="w:gz")
    with serving(publish(bomb)) as mirror:
        assert "is damaged, or not a plain tar file" in fails("--task", "04", "--url", mirror.url)
    assert names(data) == []


IGNORED = {
    "apple's": member(f"{FOLDER}/imagesTr/._a.nii.gz", b"resource fork"),
    "apple's folder": member(f"./._{FOLDER}", b"resource fork"),
    "symbolic link": member(f"{FOLDER}/imagesTr/b.nii.gz", type=b"2", linkname="/etc/passwd"),
    "hard link": member(f"{FOLDER}/imagesTr/b.nii.gz", type=b"1", linkname="/etc/passwd"),
    "device": member(f"{FOLDER}/null", type=b"3", devmajor=1, devminor=3),
    "pipe": member(f"{FOLDER}/pipe", type=b"6"),
    "stray": member("README", b"beside the dataset"),
}


@pytest.mark.parametrize("kind", IGNORED)
def test_what_is_no_file_of_the_dataset_is_ignored(kind: str, publish: Callable[[bytes], bytes], data: Path) -> None:
    with serving(publish(tar_of(IGNORED[kind]))) as mirror:
        download("04", data=data, url=mirror.url)
    assert_whole(data)


def test_no_file_is_written_through_a_link(publish: Callable[[bytes], bytes], data: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = member(f"{FOLDER}/imagesTr", type=b"2", linkname=str(outside))
    with serving(publish(tar_of(link))) as mirror:
        download("04", data=data, url=mirror.url)
    assert names(outside) == []
    assert (data / FOLDER / "imagesTr" / "a.nii.gz").read_bytes() == IMAGE
    assert_whole(data)


def test_a_program_in_the_archive_cannot_be_run(publish: Callable[[bytes], bytes], data: Path) -> None:
    with serving(publish(tar_of(member(f"{FOLDER}/run.sh", b"#!/bin/sh", mode=0o6777)))) as mirror:
        download("04", data=data, url=mirror.url)
    assert (data / FOLDER / "run.sh").stat().st_mode & 0o7111 == 0


# What is asked for


@pytest.mark.parametrize(
    "text", ["04", "4", 4, "Task04_Hippocampus", "hippocampus", "task04", "Task4", "HIPPOCAMPUS", "task04-hippocampus"]
)
def test_a_task_has_many_names(text: str | int) -> None:
    assert find_task(text).folder == FOLDER


def test_there_are_ten_tasks_with_digests_of_their_own() -> None:
    assert [find_task(f"{number:02d}").number for number in range(1, 11)] == list(range(1, 11))
    assert find_task("hepatic vessel").archive == "Task08_HepaticVessel.tar"
    assert len({task.md5 for task in decathlon.TASKS}) == 10


@pytest.mark.parametrize("text", ["11", "0", "brain", "", "Task04_Heart"])
def test_what_is_no_task_is_refused_with_the_list(text: str) -> None:
    with pytest.raises(OptionError, match="04 Hippocampus") as error:
        find_task(text)
    assert str(error.value).startswith(f"--task {text!r} is not a task of the Medical Segmentation Decathlon\n")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        (None, "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task04_Hippocampus.tar"),
        ("https://host:8443", "https://host:8443/Task04_Hippocampus.tar"),
        ("http://host/msd/", "http://host/msd/Task04_Hippocampus.tar"),
        ("http://host/other name.tar?a=b", "http://host/other%20name.tar?a=b"),
        ("http://host/données/", "http://host/donn%C3%A9es/Task04_Hippocampus.tar"),
    ],
)
def test_an_address_is_of_the_archive_or_its_folder(url: str | None, address: str) -> None:
    assert locate_archive(find_task("04"), url=url) == address


@pytest.mark.parametrize(
    "url", ["ftp://host/x.tar", "https://", "http://host:port/", "http://[::1/", "file://elsewhere/x.tar", "s3://a/b"]
)
def test_what_is_no_address_is_refused(url: str, fails: Callable[..., str]) -> None:
    assert fails("--task", "04", "--url", url) == (
        f"error E-OPTION-SYNTAX: --url {url!r} is not an address that can be read\n"
        "  → use https://, http:// or file:///path of a "
        "folder with the archive, or of the archive itself (without user and password)"
    )


def test_a_password_is_not_repeated(fails: Callable[..., str]) -> None:
    said = fails("--task", "04", "--url", "https://me:secret@host/")
    assert "is not an address" in said
    assert "secret" not in said


def test_a_region_and_a_mirror_exclude_each_other(data: Path) -> None:
    with pytest.raises(OptionError, match="--region chooses a public bucket, --url a mirror"):
        download("04", data=data, region="eu", url="https://host")


def test_the_command_prints_the_folder_and_shows_how_it_goes(
    mirror: Mirror, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["download", "--task", "hippocampus", "--data", str(data), "--url", mirror.url]
    monkeypatch.setattr("sys.argv", ["decathlete", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr()
    assert stop.value.code == 0
    assert said.out == f"{data / FOLDER}\n"
    lines = said.err.splitlines()
    assert lines[0] == f"downloading {mirror.url}/{ARCHIVE}"
    assert lines[1].startswith("download 307.2 kB/307.2 kB in ")
    assert lines[2:] == ["checking the archive", f"unpacking to {data / FOLDER}"]


def test_a_terminal_gets_a_bar_that_goes_away_with_the_work() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=110, legacy_windows=False)

    def breaks_off() -> None:
        with byte_bar(console) as bar:
            bar.bytes(1_000_000, 4_000_000)
            bar.bytes(3_000_000, 4_000_000)
            raise DownloadError("broke off")

    with pytest.raises(DownloadError):
        breaks_off()
    assert "3.0/4.0 MB" in screen.getvalue()
    assert screen.getvalue().rstrip().endswith("\x1b[?25h"), "the cursor stayed hidden"
