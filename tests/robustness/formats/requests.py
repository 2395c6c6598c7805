"""Requests to the service, byte by byte: an upload as a form, and one of a zip file as the body."""

from __future__ import annotations

import gzip
import io
import zipfile
from random import Random

from robustness.byte_mutations import BYTE_MUTATIONS, ByteMutation, change_line, change_number
from robustness.datasets import nifti_bytes
from robustness.formats import FileMutation, Files, Format, byte_mutations, on_file
from robustness.formats.archives import NAMES
from robustness.formats.nifti import change_fields
from robustness.phantom import make_phantom

TOKEN = "a-token-of-enough-characters"
_FORM, _BODY = "mutant.form", "mutant.body"
_PATH = "/api/v1/jobs?model=tiny"
_HEAD_END = b"\r\n\r\n"
_HEADERS = (
    b"Content-Length: -1",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: x",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip",
    b"Content-Encoding: gzip",
    b"Content-Type: multipart/form-data; boundary=" + b"b" * 300,
    b'Content-Type: multipart/form-data; boundary="',
    b"Content-Type: \xff\xfe",
    b"X-File-Name: ..%2f..%2fetc%2fpasswd",
    b"X-File-Name: %00%ff%.nii",
    b"X-File-Name: " + b"a" * 9000,
    b"Expect: 100-continue",
    b"Range: bytes=0-1",
    b"Host: evil.example",
    b"Authorization: Bearer \xff",
    b"Cookie: decathlete_session=" + b"9" * 5000,
    b"Upgrade: websocket\r\nConnection: Upgrade",
    b"X: " + b"a" * 70_000,
)
_TARGETS = (
    b"POST /api/v1/jobs",
    b"POST /api/v1/jobs?model=%00",
    b"POST /api/v1/jobs?model=tiny&model=tiny&file_name=%ff",
    b"PUT /api/v1/jobs?model=tiny",
    b"POST /api/v1/login",
    b"POST /infer/tiny?image=../../etc/passwd",
    b"POST /monai/infer/tiny",
    b"PUT /monai/session/",
    b"GET /api/v1/jobs/%2e%2e/input?channel=-1",
    b"DELETE /api/v1/jobs/" + b"0" * 32,
    b"POST //api//v1//jobs?model=tiny",
    b"POST http://evil.example/api/v1/jobs?model=tiny",
    b"OPTIONS *",
    b"POST /api/v1/jobs?" + b"a=1&" * 5000,
    b"\x00 /api",
)


def pack_request(body: bytes, content_type: str, *, head: str = "") -> bytes:
    """Return an upload as the bytes of a request."""
    lines = (
        f"POST {_PATH} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {TOKEN}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        *filter(None, (head,)),
        "Connection: close",
    )
    return "\r\n".join(lines).encode() + _HEAD_END + body


def _form_of(files: dict[str, bytes]) -> bytes:
    parts = [
        b'--bound\r\nContent-Disposition: form-data; name="files"; filename="'
        + name.encode("utf-8", "replace")
        + b'"\r\nContent-Type: application/octet-stream\r\n\r\n'
        + content
        + b"\r\n"
        for name, content in files.items()
    ]
    return b"".join(parts) + b"--bound--\r\n"


def _image() -> bytes:
    return nifti_bytes(make_phantom()[0])


def _form(image: bytes | None = None) -> bytes:
    form = _form_of({"scan.nii": _image() if image is None else image})
    return pack_request(form, "multipart/form-data; boundary=bound")


def _zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as packed:
        for name, content in members.items():
            packed.writestr(zipfile.ZipInfo(name), content, method)
    return pack_request(stream.getvalue(), "application/zip", head="X-File-Name: scan.zip")


def _form_files() -> Files:
    return {_FORM: _form()}


def _zip_files() -> Files:
    return {_BODY: _zipped({"scan.nii": _image()})}


def _in_head(mutation: ByteMutation) -> ByteMutation:
    def mutate(data: bytes, random: Random) -> bytes:
        head, _, body = data.partition(_HEAD_END)
        return mutation(head, random) + _HEAD_END + body

    return mutate


def change_header(head: bytes, random: Random) -> bytes:
    """Replace or add one header."""
    line = random.choice(_HEADERS)
    lines = head.split(b"\r\n")
    name = line.partition(b":")[0]
    if random.random() < 0.7:
        lines = [other for other in lines if not other.startswith(name)]
    return b"\r\n".join([*lines, line])


def change_target(head: bytes, random: Random) -> bytes:
    """Send the body to another route."""
    _, _, rest = head.partition(b"\r\n")
    return random.choice(_TARGETS) + b" HTTP/1.1\r\n" + rest


def chunk_body(data: bytes, random: Random) -> bytes:
    """Send the body in chunks, whose lengths may lie."""
    head, _, body = data.partition(_HEAD_END)
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    length = random.choice((b"%x" % len(body), b"-1", b"fffffffff", b"0", b"x", b"%x;a=b" % len(body)))
    return (
        b"\r\n".join([*lines, b"Transfer-Encoding: chunked"]) + _HEAD_END + length + b"\r\n" + body + b"\r\n0\r\n\r\n"
    )


def change_parts(data: bytes, random: Random) -> bytes:
    """Send another form: no file, many, hostile names, a field instead of a file, or two images."""
    image, name = _image(), random.choice(NAMES).replace('"', "").encode("utf-8", "replace").decode()
    forms = (
        {},
        {f"{k}.nii": image[:400] for k in range(300)},
        {name: image},
        {"": image},
        {"a.nii": image, "b.nii": image},
        {"a_0000.nii": image, "a_0001.nii": image},
        {"scan.mhd": b"ObjectType = Image\nElementDataFile = /etc/passwd\n"},
        {"scan.nii.gz": gzip.compress(b"\0" * 2**24)},
        {"scan.png": b"\x89PNG"},
        {"x" * 5000: image},
    )
    return pack_request(_form_of(random.choice(forms)), "multipart/form-data; boundary=bound")


def change_image(data: bytes, random: Random) -> bytes:
    """Send an image whose header or bytes are damaged, in an honest form."""
    mutation = random.choice((change_fields, *BYTE_MUTATIONS.values()))
    return _form(mutation(_image(), random))


def change_members(data: bytes, random: Random) -> bytes:
    """Send a zip with hostile, many, nested or large members."""
    image, name = _image(), random.choice([n for n in NAMES if n])
    members = random.choice(
        (
            {name.encode("utf-8", "replace").decode(): image},
            {f"{k}.dcm": b"x" for k in range(3000)},
            {"d/" * 2000 + "scan.nii": image},
            {"scan.nii": image + b"\0" * 2**26},
            {"inner.zip": _zipped({"scan.nii": image}).partition(_HEAD_END)[2]},
            {"a/scan.nii": image, "b/scan.nii": image},
            {"__MACOSX/._scan.nii": b"Mac", "scan.nii": image},
            {},
        )
    )
    return _zipped(members, random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)))


def _head_mutations(name: str) -> dict[str, FileMutation]:
    found = {
        "header": change_header,
        "target": change_target,
        "head_line": change_line,
        "head_number": change_number,
        "head_bytes": BYTE_MUTATIONS["set_bytes"],
    }
    return {kind: on_file(name, _in_head(mutation)) for kind, mutation in found.items()}


_IN_FORM: dict[str, FileMutation] = {
    **byte_mutations(_FORM),
    **_head_mutations(_FORM),
    "chunks": on_file(_FORM, chunk_body),
    "parts": on_file(_FORM, change_parts),
    "image": on_file(_FORM, change_image),
}
_IN_BODY: dict[str, FileMutation] = {
    **byte_mutations(_BODY),
    "members": on_file(_BODY, change_members),
    "chunks": on_file(_BODY, chunk_body),
}
FORMATS = (
    Format(
        name="upload_form", make=_form_files, entry=_FORM, mutations=_IN_FORM, actions=("send_request",), weight=0.7
    ),
    Format(name="upload_zip", make=_zip_files, entry=_BODY, mutations=_IN_BODY, actions=("send_request",), weight=0.4),
)
