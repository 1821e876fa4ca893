"""The process behind ``metrics_listen``: the counters of the scoreboard in Prometheus' text format, over HTTP.

It reads shared memory and nothing else, and is on nobody's way. Names, labels and help come from the table in
``proto.counts``; the only labels besides are a service, and a policy class with its callbacks. prometheus_client is
imported here alone, and this module in no process but its own.

Known limits: HTTP/1.1 of one request a connection, GET and HEAD, no TLS; put it on an address that only the monitoring
reaches.
"""

from __future__ import annotations

import math
import re
import socket
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from pop3gw import __version__
from pop3gw.answering import Question
from pop3gw.ledger import Gauge
from pop3gw.messages import Message
from pop3gw.proto.counts import FAMILIES, RELOADS
from pop3gw.times import NEVER
from pop3gw.view import Overview, ServiceState

_PREFIX = "pop3gw_"
_HOST = re.compile(rb"\A[Hh][Tt][Tt][Pp]://[^/?]*")  # what an address has before its path, where a proxy asks


class GatewayCollector(Collector):
    """What prometheus_client asks for the metrics."""

    def __init__(self, overview: Overview) -> None:
        self._overview = overview

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now."""
        overview = self._overview
        yield GaugeMetricFamily(f"{_PREFIX}start_time_seconds", "When the master started.", value=overview.began)
        info = GaugeMetricFamily(f"{_PREFIX}info", "The version of the gateway; always 1.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        yield self._reloads()
        yield from self._gauges()
        yield from self._counters()

    def _reloads(self) -> Metric:
        totals = self._overview.gateway.totals(())[0]
        metric = CounterMetricFamily(_PREFIX + RELOADS.name, RELOADS.about, labels=[name for name, _ in RELOADS.labels])
        for values, at in RELOADS.rows():
            metric.add_metric(values, totals[at])
        return metric

    def _gauges(self) -> Iterator[Metric]:
        def gauge(name: str, about: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(_PREFIX + name, about, labels=["service", *labels])

        running = gauge("sessions_running", "Sessions that run now.")
        workers = gauge("workers", "Workers now, by what they do.", "state")
        most = gauge("workers_max", "The most workers that there may be (max_workers).")
        free = gauge("free_seats", "Free seats of the workers that take sessions.")
        accepting = gauge("accepting", "1 while new clients are let in; 0 while drained, stopping or removed.")
        for service in self._overview.services:
            now = service.workers()
            running.add_metric([service.name], service.running())
            for state, number in (("busy", now.busy), ("idle", now.idle), ("starting", now.starting)):
                workers.add_metric([service.name, state], number)
            most.add_metric([service.name], now.most)
            free.add_metric([service.name], service.ledger.shown(Gauge.FREE_SEATS))
            accepting.add_metric([service.name], float(service.state is ServiceState.SERVING))
        yield from (running, workers, most, free, accepting)

    def _counters(self) -> Iterator[Metric]:
        services = [(service.name, service.totals()) for service in self._overview.services]
        for family in FAMILIES:
            name = _PREFIX + family.name
            if family.buckets:
                histogram = HistogramMetricFamily(name, family.about, labels=["service"])
                for service, totals in services:
                    rows, seconds = totals.histogram(family)
                    histogram.add_metric([service], [(_bound(bound), below) for bound, below in rows], seconds)
                yield histogram
                continue
            counter = CounterMetricFamily(name, family.about, labels=["service", *(name for name, _ in family.labels)])
            for service, totals in services:
                for values, at in family.rows():
                    counter.add_metric([service, *values], totals[at])
            yield counter
        errors = CounterMetricFamily(
            f"{_PREFIX}callback_errors", "Callbacks that failed.", labels=["service", "class", "callback"]
        )
        for service, totals in services:
            for (policy, callback), number in totals.callback_errors.items():
                errors.add_metric([service, policy, callback], number)
        yield errors


def _bound(seconds: float) -> str:
    return "+Inf" if math.isinf(seconds) else str(seconds)


class Metrics:
    """The responder of this process (``answering.Responder``)."""

    mark = b"\r\n\r\n"
    limit = 8192

    def __init__(self, overview: Overview) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(GatewayCollector(overview))
        self.too_long = _response("431 Request Header Fields Too Large", b"")

    def refusal(self, _connection: socket.socket) -> bytes | None:
        """Who reaches the address may ask."""
        return None

    def ask(self, question: Question) -> None:
        """Answer a request."""
        method, _, rest = bytes(question.text).partition(b"\r\n")[0].partition(b" ")
        path = _HOST.sub(b"", rest.partition(b" ")[0], 1).partition(b"?")[0]
        head = method == b"HEAD"
        if method not in (b"GET", b"HEAD"):
            question.answer(_response("405 Method Not Allowed", b"", ["Allow: GET, HEAD"]))
        elif path not in (b"", b"/", b"/metrics"):
            question.answer(_response("404 Not Found", b"The metrics are at /metrics.\n", head=head))
        else:
            text = generate_latest(self._registry)
            question.answer(_response("200 OK", text, [f"Content-Type: {CONTENT_TYPE_LATEST}"], head=head))

    def hear(self, message: Message) -> None:
        """The master says nothing that matters here."""

    def tick(self, _now: float) -> float:
        """Nothing is ever due."""
        return NEVER


def _response(status: str, body: bytes, headers: Iterable[str] = (), *, head: bool = False) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + (b"" if head else body)
