"""What the service says about its DICOM node: in the API, and for Prometheus."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
from fastapi import FastAPI

from decathlete.serving.dicom_node.failures import FailedCopy
from decathlete.serving.dicom_node.node_job import NodeStatus
from decathlete.serving.http.service_routes import router
from decathlete.serving.metrics import ServiceMetrics

FAILED = FailedCopy(n_instances=30, attempts=2, next_attempt=1000.0, reason="HTTP status 500")
STATUS = NodeStatus(jobs={"sent": 4, "failed": 1}, n_undelivered=2, failed_copies=(FAILED,), archive_problem="Timeout")


def service_with(node: Any) -> Any:
    models = SimpleNamespace(loaded_names=[], loaded_bytes=0, n_loads=0)
    return SimpleNamespace(node=node, models=models, store=SimpleNamespace(count=dict))


def answer_of(service: Any) -> Any:
    app = FastAPI()
    app.state.service = service
    app.include_router(router)

    async def ask() -> Any:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return (await client.get("/api/v1/dicom-node")).json()

    return asyncio.run(ask())


def test_the_api_describes_the_node() -> None:
    assert answer_of(service_with(None)) is None
    assert answer_of(service_with(SimpleNamespace(status=lambda: STATUS))) == {
        "jobs": {"queued": 0, "computed": 0, "sent": 4, "skipped": 0, "failed": 1},
        "undelivered": 2,
        "failed_copies": [{"n_instances": 30, "attempts": 2, "next_attempt": 1000.0, "reason": "HTTP status 500"}],
        "archive_problem": "Timeout",
    }


def test_prometheus_counts_what_the_node_waits_for() -> None:
    assert b"dicom_node" not in ServiceMetrics(service_with(None)).text()
    lines = ServiceMetrics(service_with(SimpleNamespace(status=lambda: STATUS))).text().decode().splitlines()
    for line in ('jobs{state="sent"} 4.0', 'jobs{state="queued"} 0.0', "undelivered 2.0", "failed_copies 1.0"):
        assert f"decathlete_dicom_node_{line}" in lines
    assert "decathlete_dicom_node_archive_problem 1.0" in lines
