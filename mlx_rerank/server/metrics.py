"""What the server counts, for Prometheus."""

from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mlx_rerank.device.memory import usage
from mlx_rerank.server.handler import Work
from mlx_rerank.server.pool import Pool
from mlx_rerank.server.served import Served

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self, pool: Pool) -> None:
        """Start at nothing."""
        disable_created_metrics()  # a time beside each counter, which nobody asks for
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._registry.register(_PoolCollector(pool))
        made = {"registry": self._registry, "namespace": "mlx_rerank"}
        self._requests = Counter("requests", "Requests answered.", ["route", "status"], **made)
        self._seconds = Histogram("request_seconds", "From header to answer.", ["route"], buckets=_SECONDS, **made)
        self._queue = Histogram("queue_seconds", "Until the first batch.", ["model"], buckets=_SECONDS, **made)
        self._inference = Histogram("inference_seconds", "From there to the last.", ["model"], buckets=_SECONDS, **made)
        self._pairs = Counter("pairs", "Pairs scored.", ["model"], **made)
        self._truncated = Counter("truncated_pairs", "Pairs of which not all was read.", ["model"], **made)

    def answered(self, route: str, status: int, seconds: float, work: Work | None) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if work:
            self._queue.labels(work.model).observe(work.queue_seconds)
            self._inference.labels(work.model).observe(work.inference_seconds)
            self._pairs.labels(work.model).inc(work.pairs)
            self._truncated.labels(work.model).inc(work.truncated)

    def text(self) -> bytes:
        """Return everything, as Prometheus reads it."""
        return generate_latest(self._registry)


class _PoolCollector(Collector):
    """The state of models, queues and memory when it is asked for."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        """Yield the figures of each model, and MLX's memory."""
        for kind, name, text, value in (
            (GaugeMetricFamily, "loaded", "Whether the weights are in memory.", lambda m: float(m.in_memory)),
            (GaugeMetricFamily, "waiting_pairs", "Pairs that wait or are computed.", lambda m: m.pairs),
            (CounterMetricFamily, "batches", "Batches computed.", lambda m: _of_queue(m, "batches")),
            (CounterMetricFamily, "computed_tokens", "Tokens, without padding.", lambda m: _of_queue(m, "tokens")),
            (CounterMetricFamily, "padded_tokens", "Tokens, with padding.", lambda m: _of_queue(m, "padded_tokens")),
        ):
            family = kind(f"mlx_rerank_{name}", text, labels=["model"])
            for served in self._pool:
                family.add_metric([served.spec.name], value(served))
            yield family
        yield GaugeMetricFamily("mlx_rerank_mlx_active_bytes", "Of MLX's arrays.", value=usage().mlx_active)


def _of_queue(served: Served, name: str) -> float:
    """Return a figure of a model's queue; 0 before it is first loaded."""
    return getattr(served.scheduler, name, 0)
