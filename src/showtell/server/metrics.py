"""What Prometheus is told. Several workers add their numbers up in files (prometheus_client's multiprocess mode)."""

from __future__ import annotations

import functools
import os

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
    multiprocess,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # which prometheus_client reads when it is imported
STAGES = ("body", "fetch", "decode", "wait", "encode", "first_word", "search", "request")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCHES = (1, 2, 4, 8, 12, 16, 24, 32)


class Metrics:
    """The counters, gauges and histograms of one process."""

    def __init__(self) -> None:
        self._shared = bool(os.environ.get(FOLDER))
        self._registry = CollectorRegistry()
        if not self._shared:
            ProcessCollector(registry=self._registry)
        counter = functools.partial(Counter, registry=self._registry)
        histogram = functools.partial(Histogram, registry=self._registry)
        gauge = functools.partial(Gauge, registry=self._registry, multiprocess_mode="livesum")
        self.requests = counter(
            "showtell_requests", "Requests by path, method and status", ["path", "method", "status"]
        )
        self.images = counter("showtell_images", "Images by what became of them", ["outcome"])
        self.refused = counter("showtell_refused", "Requests that were refused, by problem", ["problem"])
        self._batches = histogram(
            "showtell_batch_images", "Images that were captioned together", buckets=_BATCHES
        )
        self._stages = histogram(
            "showtell_stage_seconds", "Seconds of each stage", ["stage"], buckets=_SECONDS
        )
        self.queue = gauge("showtell_queue_images", "Images accepted and not yet answered")
        self.open_requests = gauge("showtell_open_requests", "Requests that are open")
        self.tasks = gauge("showtell_tasks", "Tasks of the event loop, of each worker when it was last asked")
        self.body_memory = gauge("showtell_body_bytes", "Bytes of request bodies in memory")
        self.cache = gauge("showtell_cache_bytes", "Bytes of captions that are kept")
        for stage in STAGES:
            self._stages.labels(stage)

    def batch(self, images: int, seconds: float) -> None:
        """Counts one batch, and how long its encoding took."""
        self._batches.observe(images)
        self.stage("encode", seconds)

    def stage(self, name: str, seconds: float) -> None:
        """Measures one stage."""
        self._stages.labels(name).observe(seconds)

    def render(self) -> bytes:
        """Returns everything in Prometheus's text format; of all workers, where there are several."""
        if not self._shared:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
