"""Every metric of the server, in a registry of its own. Labels come from closed sets, so their number is bounded."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from xetstore.cas.audit import AUDIT, KINDS
from xetstore.cas.lease import COLLECT, SCRUB

if TYPE_CHECKING:
    from xetstore.cas.checking.scrub import ScrubReport
    from xetstore.cas.index.queries.chores import ChoreRow
    from xetstore.server.ops.budgets import Budget
    from xetstore.server.ops.connection_limit import ConnectionLimit
    from xetstore.server.ops.holdings import Holdings
    from xetstore.server.ops.soundness import SoundnessLook

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_CLIENT_SECONDS: Final = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600)


COLLECTED: Final = (
    ("doomed_xorbs", "Xorbs that no file is made of, which wait for the end of their grace."),
    ("doomed_bytes", "Bytes of their objects."),
    ("abandoned_objects", "Objects that no row names, of uploads that were cut off."),
)
"""The numbers that are shown of the report of a collection."""


class Watched(Protocol):
    """The chores of a server, as metrics see them."""

    @property
    def names(self) -> Iterable[str]:
        """Those that it does."""

    @property
    def running(self) -> str | None:
        """The one that this process does now."""

    @property
    def rows(self) -> Mapping[str, ChoreRow]:
        """Their rows, as they were a while ago."""


class _Counter(logging.Handler):
    """Counts the records of the audit."""

    def __init__(self, things: Counter, nbytes: Counter) -> None:
        super().__init__()
        self._things, self._bytes = things, nbytes

    def emit(self, record: logging.LogRecord) -> None:
        """Count one."""
        fields = vars(record)
        if (kind := fields.get("kind")) in KINDS:
            self._things.labels(kind).inc()
            self._bytes.labels(kind).inc(fields.get("bytes", 0))


class Metrics:
    """Counts what happens. Thread-safe; every method is cheap enough to be called for each request."""

    def __init__(self, version: str = "") -> None:
        self.registry = registry = CollectorRegistry(auto_describe=False)
        # process_start_time_seconds and process_resident_memory_bytes are among these.
        ProcessCollector(registry=registry)
        build = Gauge("xetstore_build_info", "The version that runs.", ["version"], registry=registry)
        build.labels(version).set(1)

        self._requests = Counter(
            "xetstore_http_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self._seconds = Histogram(
            "xetstore_http_request_seconds",
            "From the request's headers to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._received = Counter(
            "xetstore_http_received_bytes", "Bytes of request bodies.", ["route"], registry=registry
        )
        self._sent = Counter("xetstore_http_sent_bytes", "Bytes of answers' bodies.", ["route"], registry=registry)
        self._refused = Counter(
            "xetstore_http_rate_limited", "Requests that came too often.", ["by"], registry=registry
        )
        self._too_large = Counter(
            "xetstore_http_answers_too_large", "Answers refused for the memory they would take.", registry=registry
        )
        self.in_flight = 0
        Gauge("xetstore_http_requests_in_flight", "Requests being answered.", registry=registry).set_function(
            lambda: self.in_flight
        )

        self._xorbs = Counter("xetstore_xorbs_received", "Xorbs uploaded.", ["is_new"], registry=registry)
        self._xorb_bytes = Counter("xetstore_xorb_received_bytes", "Bytes of uploaded xorbs.", registry=registry)
        self._shards = Counter("xetstore_shards_received", "Shards uploaded.", ["is_new"], registry=registry)
        self._files = Counter("xetstore_files_received", "Files named in uploaded shards.", registry=registry)
        self._dedup = Counter("xetstore_dedup_queries", "Chunks asked for.", ["found"], registry=registry)
        self._dedup_children = {found: self._dedup.labels(_yes(found)) for found in (False, True)}
        self._served = Counter("xetstore_xorb_served_bytes", "Bytes of xorbs sent to clients.", registry=registry)

        self._damaged_reads = Counter(
            "xetstore_damaged_reads",
            "Reads of stored objects that ended because bytes are not as they were stored.",
            registry=registry,
        )
        self._scrubbed = Counter("xetstore_scrub_bytes", "Stored bytes that the scrub has read.", registry=registry)
        self._scrub_problems = Counter(
            "xetstore_scrub_problems", "Damaged objects that the scrub has found.", registry=registry
        )

        self._client_events = Counter(
            "xetstore_client_events", "Reports of clients on their transfers.", ["event", "outcome"], registry=registry
        )
        self._client_sums = Counter(
            "xetstore_client_reported", "Sums of what clients reported.", ["event", "what"], registry=registry
        )
        self._client_seconds = Histogram(
            "xetstore_client_transfer_seconds",
            "How long transfers took, as clients reported.",
            ["event"],
            buckets=_CLIENT_SECONDS,
            registry=registry,
        )
        self._budgets: dict[str, Gauge] = {
            what: Gauge(f"xetstore_budget_{what}", text, ["budget"], registry=registry)
            for what, text in (
                ("bytes", "Bytes that may be in memory at once, or places to work in."),
                ("used_bytes", "Of these in use."),
                ("waiting", "Requests that wait for a part of it."),
            )
        }
        self._busy = Counter(
            "xetstore_budget_refused", "Requests that got no part of it in time.", ["budget"], registry=registry
        )
        self._deleted = Counter("xetstore_deleted", "Things deleted for good.", ["kind"], registry=registry)
        self._deleted_bytes = Counter("xetstore_deleted_bytes", "Bytes of these.", ["kind"], registry=registry)
        for kind in KINDS:
            self._deleted.labels(kind)
            self._deleted_bytes.labels(kind)
        # Looking a child up by its label values costs more than counting.
        self._request_children: dict[tuple[str, str, int], Counter] = {}
        self._route_children: dict[str, tuple[Histogram, Counter, Counter]] = {}

    def watch(self, budget: Budget) -> None:
        """Show the state of this budget."""
        shown: dict[str, Callable[[], float]] = {
            "bytes": lambda: budget.total,
            "used_bytes": lambda: budget.used,
            "waiting": lambda: budget.waiting,
        }
        budget.on_refused = self._busy.labels(budget.name).inc
        for what, value in shown.items():
            self._budgets[what].labels(budget.name).set_function(value)

    def watch_connections(self, limit: ConnectionLimit) -> None:
        """Show how many connections there are, and count those that were closed or refused for want of a place."""
        for name, text, value in (
            ("xetstore_connections", "Open connections.", lambda: len(limit)),
            ("xetstore_connections_idle", "Those on which no request is being answered.", lambda: limit.idle),
            ("xetstore_connections_max", "Connections that may be open.", lambda: limit.most),
        ):
            Gauge(name, text, registry=self.registry).set_function(value)
        lacking = Counter(
            "xetstore_connections_lacking_room", "Closed while idle, or refused.", ["how"], registry=self.registry
        )
        limit.told = lambda event: lacking.labels(event).inc()

    def watch_care(self, care: Watched) -> None:
        """Show which chores run, when they last ended, and what a collection found.

        The collection and the scrub are shown where this server does neither, too: another one may, or `xet gc`.
        """

        def shown(name: str, text: str, value: Callable[[str], float]) -> None:
            gauge = Gauge(f"xetstore_chore_{name}", text, ["chore"], registry=self.registry)
            for chore in dict.fromkeys((*care.names, COLLECT, SCRUB)):
                gauge.labels(chore).set_function(partial(value, chore))

        shown("running", "Processes that do it now: one at most.", lambda chore: care.running == chore)
        shown("last_end_seconds", "When it last ended, in unix seconds; 0 if never.", lambda chore: _end(care, chore))
        shown("duration_seconds", "How long it took then.", lambda chore: _told(care, chore, "seconds"))
        for name, text in COLLECTED:
            gauge = Gauge(f"xetstore_{name}", text, registry=self.registry)
            gauge.set_function(partial(_told, care, "collect", name))

    def watch_soundness(self, look: SoundnessLook) -> None:
        """Show how many objects are marked as damaged, and how old the oldest check is."""
        for name, text, value in look.gauges():
            Gauge(f"xetstore_{name}", text, registry=self.registry).set_function(value)

    def watch_holdings(self, holdings: Holdings) -> None:
        """Show the sums over the store, and the room on its disks."""
        self.registry.register(holdings)

    def read_damage(self) -> None:
        """A read came to bytes that are not as they were stored."""
        self._damaged_reads.inc()

    def scrubbed(self, report: ScrubReport) -> None:
        """A run of the scrub ended."""
        self._scrubbed.inc(report.bytes_read)
        self._scrub_problems.inc(report.problems)

    @contextmanager
    def counting_audit(self) -> Iterator[None]:
        """While this is open, count all that this process deletes for good."""
        counter = _Counter(self._deleted, self._deleted_bytes)
        AUDIT.addHandler(counter)
        try:
            yield
        finally:
            AUDIT.removeHandler(counter)

    # HTTP

    def answered(
        self, route: str, method: str, status: int, *, seconds: float, received_bytes: int, sent_bytes: int
    ) -> None:
        """One exchange is over. ``route`` is the template of the path, never the path."""
        key = (route, method if method in METHODS else "other", status)
        requests = self._request_children.get(key)
        if requests is None:
            requests = self._request_children[key] = self._requests.labels(route, key[1], str(status))
        requests.inc()
        children = self._route_children.get(route)
        if children is None:
            children = (self._seconds.labels(route), self._received.labels(route), self._sent.labels(route))
            self._route_children[route] = children
        latency, received, sent = children
        latency.observe(seconds)
        if received_bytes:
            received.inc(received_bytes)
        if sent_bytes:
            sent.inc(sent_bytes)

    def answer_refused(self) -> None:
        """An answer would have been too large."""
        self._too_large.inc()

    def rate_limited(self, by: str) -> None:
        """A request was refused by the rate of its ``address`` or its ``token``."""
        self._refused.labels(by).inc()

    # The protocol

    def xorb_received(self, n_bytes: int, *, is_new: bool) -> None:
        """A xorb was uploaded and accepted."""
        self._xorbs.labels(_yes(is_new)).inc()
        self._xorb_bytes.inc(n_bytes)

    def shard_received(self, n_files: int, *, is_new: bool) -> None:
        """A shard was uploaded and accepted."""
        self._shards.labels(_yes(is_new)).inc()
        self._files.inc(n_files)

    def dedup_answered(self, *, found: bool, chunks: int = 1) -> None:
        """Chunks were asked for, and found or not."""
        self._dedup_children[found].inc(chunks)

    def xorb_served(self, n_bytes: int) -> None:
        """Bytes of a xorb were sent."""
        self._served.inc(n_bytes)

    # What clients report

    def client_event(self, event: str, outcome: str, *, seconds: float | None, sums: Mapping[str, float]) -> None:
        """A report of a client. ``event``, ``outcome`` and the names in ``sums`` are of closed sets."""
        self._client_events.labels(event, outcome).inc()
        if seconds is not None:
            self._client_seconds.labels(event).observe(seconds)
        for what, value in sums.items():
            self._client_sums.labels(event, what).inc(value)

    def exposition(self) -> bytes:
        """All of it in the text format of Prometheus."""
        return generate_latest(self.registry)


def _end(care: Watched, chore: str) -> float:
    row = care.rows.get(chore)
    return 0.0 if row is None else row.ended_at or 0.0


def _told(care: Watched, chore: str, name: str) -> float:
    """A number in the last report of a chore."""
    row = care.rows.get(chore)
    report: Any = json.loads(row.report) if row is not None and row.report else {}
    return float(report.get(name) or 0.0)


def _yes(flag: bool) -> str:
    return "true" if flag else "false"
