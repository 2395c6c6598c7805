"""Metrics of a service for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from decathlete.serving.dicom_node.node_job import NODE_JOB_STATES, NodeStatus

if TYPE_CHECKING:
    from decathlete.serving.service import Service

_SECONDS = (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class ServiceMetrics:
    """Counters of one service, in a registry of their own.

    Attributes:
        accepted: jobs by model.
        upload_bytes: received bytes.
        rejected: requests that were answered with an error, by its code.
    """

    def __init__(self, service: Service) -> None:
        self._registry = CollectorRegistry()
        self.accepted = self._counter("decathlete_jobs_accepted", "Accepted jobs.", "model")
        self.upload_bytes = self._counter("decathlete_upload_bytes", "Received bytes of images.")
        self.rejected = self._counter("decathlete_requests_rejected", "Requests answered with an error.", "code")
        self._finished = self._counter("decathlete_jobs_finished", "Jobs that ended, by state.", "state")
        self._seconds = Histogram(
            "decathlete_job_seconds", "Duration of finished jobs.", buckets=_SECONDS, registry=self._registry
        )
        self._registry.register(_StateCollector(service))
        ProcessCollector(registry=self._registry)

    def count_finished(self, state: str, seconds: float) -> None:
        """Count a job that ended."""
        self._finished.labels(state).inc()
        if state == "done":
            self._seconds.observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(name, help_, labels, registry=self._registry)


class _StateCollector(Collector):
    """Reads the queue and the models when the metrics are requested."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges."""
        jobs = GaugeMetricFamily("decathlete_jobs", "Jobs in the queue, by state.", labels=["state"])
        for state, n in self._service.store.count().items():
            jobs.add_metric([state], n)
        yield jobs
        models = self._service.models
        yield GaugeMetricFamily("decathlete_models_loaded", "Loaded models.", len(models.loaded_names))
        yield GaugeMetricFamily("decathlete_model_bytes", "Size of the loaded models.", models.loaded_bytes)
        yield GaugeMetricFamily("decathlete_model_loads", "How many times a model was loaded.", models.n_loads)
        if self._service.node is not None:
            yield from _node_metrics(self._service.node.status())


def _node_metrics(status: NodeStatus) -> Iterable[Metric]:
    jobs = GaugeMetricFamily("decathlete_dicom_node_jobs", "Jobs of the DICOM node, by state.", labels=["state"])
    for state in NODE_JOB_STATES:
        jobs.add_metric([state], status.jobs.get(state, 0))
    yield jobs
    for name, help_, value in (
        ("undelivered", "Results that their receiver did not accept yet.", status.n_undelivered),
        ("failed_copies", "Series of the archive that could not be copied yet.", len(status.failed_copies)),
        ("archive_problem", "1 if the last query of the archive failed.", status.archive_problem is not None),
    ):
        yield GaugeMetricFamily(f"decathlete_dicom_node_{name}", help_, int(value))
