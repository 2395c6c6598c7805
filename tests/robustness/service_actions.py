"""What is done with requests: they are sent to a service in this process, over a real connection."""

from __future__ import annotations

import json
import os
import socket
import time
from functools import cache
from pathlib import Path

from decathlete.core.error_codes import CODES
from robustness.actions import Action, Input
from robustness.formats.requests import TOKEN
from robustness.judging import ACCEPTED, Finding
from robustness.outcomes import CLEAN, DIFFERENT, HANG, LEFT, TRACEBACK, VAGUE

_ANSWER_S = 30.0
_LIMIT = 1_000_000
_FINAL = ("done", "failed", "cancelled")


@cache
def _service(folder: Path, model: Path):  # type: ignore[no-untyped-def]
    """Start a service that ends with this process, and return its client."""
    from service_support import service_client, settings_for

    settings = settings_for(model, folder, token=TOKEN, limits={"upload_bytes": _LIMIT, "image_bytes": 8 * _LIMIT})
    running = service_client(settings)
    client = running.__enter__()
    client.running = running  # type: ignore[attr-defined] - a context that is collected would end the server
    return client


def send_request(case: Input) -> Finding:
    """Send the bytes, read the answer, and wait for the job, if there is one."""
    folder = case.shared.folder / "service"
    folder.mkdir(exist_ok=True)
    client = _service(folder, case.shared.model)
    try:
        status, body = _exchange(client.base_url.host, client.base_url.port, case.entry.read_bytes())
    except TimeoutError:
        return Finding(result=HANG, cause="no answer in 30 s")
    finding = judge_answer(status, body)
    if status == 202:
        finding = _wait(client, json.loads(body)["id"])
    time.sleep(0.01)
    for _ in range(100):
        # os.walk, unlike rglob, ignores folders that the service removes meanwhile.
        left = [name for _, _, names in os.walk(folder / "incoming") for name in names]
        if not left:
            break
        time.sleep(0.02)
    else:
        return Finding(result=LEFT, cause="files of an upload stay", detail=", ".join(left[:3]))
    if client.get("/health/ready").status_code != 200:
        return Finding(result=TRACEBACK, cause="the service is not ready afterwards")
    return finding


def _exchange(host: str, port: int, data: bytes) -> tuple[int, bytes]:
    """Send a request and return status and body of the answer; status 0: the connection was closed."""
    with socket.create_connection((host, port), timeout=_ANSWER_S) as connection:
        answer = b""
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(1 << 16):
                answer += piece
        except (BrokenPipeError, ConnectionResetError):
            pass
    head, _, body = answer.rpartition(b"HTTP/1.1 ")[2].partition(b"\r\n\r\n")
    return (int(head[:3]) if head[:3].isdigit() else 0), body


def judge_answer(status: int, body: bytes) -> Finding:
    """Judge an answer: it accepts the request, or says with a known code why not; status 0: closed without one."""
    if status >= 500 and status not in (503, 507):
        return Finding(result=TRACEBACK, cause=f"status {status}", detail=body.decode(errors="replace"))
    if status < 400:
        return Finding(result=CLEAN if status == 0 else DIFFERENT, cause="" if status else "connection closed")
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):  # the parser of HTTP answers in plain text
        plain = b"Invalid HTTP request" in body or b"Unsupported" in body
        return Finding(result=CLEAN if plain else VAGUE, cause=f"status {status}: {body[:60]!r}")
    if error["code"] not in CODES or not error["message"]:
        return Finding(result=VAGUE, cause=f"no known code: {error['code']}", detail=str(error))
    return Finding(result=CLEAN, cause=error["code"], detail=str(error))


def _wait(client, job: str) -> Finding:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + _ANSWER_S
    while time.monotonic() < deadline:
        status = client.get(f"/api/v1/jobs/{job}").json()
        if status["state"] in _FINAL:
            error = status["error"]
            known = error is None or (error["code"] in CODES and error["code"] != "E-SERVICE")
            return ACCEPTED if known else Finding(result=VAGUE, cause=f"job: {error['code']}", detail=str(error))
        time.sleep(0.02)
    return Finding(result=HANG, cause="the job does not end in 30 s")


SERVICE_ACTIONS: dict[str, Action] = {"send_request": send_request}
