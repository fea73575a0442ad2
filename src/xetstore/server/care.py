"""Care: the chores of a store, done in the background by one of all the servers that share it."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from xetstore.cancellation import Cancellation
from xetstore.cas.grace import Grace
from xetstore.cas.index import Index
from xetstore.cas.index.queries.chores import ChoreRow
from xetstore.cas.lease import COLLECT, LEASE_SECONDS, SCRUB, Lease
from xetstore.cas.throttle import Throttle
from xetstore.errors import InterruptedCallError, LeaseLostError, XetError
from xetstore.platform.threads import start_thread

if TYPE_CHECKING:
    from xetstore.server.site import Site

LOOK_SECONDS: Final = 30.0
"""The longest time between two looks at which chores are due."""
FIRST_LOOK_SECONDS: Final = 5.0
"""The time before the first look: a server that has just started has other things to do."""
SCRUB_SECONDS: Final = 60.0
"""The pause between two runs of the scrub, which are short."""
LONGEST_PAUSE_SECONDS: Final = 3600.0
END_SECONDS: Final = 1.0
"""The longest wait for a chore when the server stops. One that is cut off is gone on with by the next runner."""
CLOCK_TOLERANCE_SECONDS: Final = 300.0
"""The time by which an end may lie ahead of now; one that lies further ahead was told by a wrong clock."""

_log = logging.getLogger("xetstore.care")

Report = Mapping[str, Any]
"""The work that a chore did: numbers and texts by name, for JSON."""


@dataclass(frozen=True, slots=True)
class Chore:
    """A chore that is due ``every_seconds`` after its last end, by the clock of the index.

    ``work`` rests by the throttle between short steps, and asks the lease in each transaction that destroys something.
    It returns its report. One that was cut off is gone on with at once, at the position of the lease.
    """

    name: str
    every_seconds: float
    work: Callable[[Lease, Throttle], Report]

    def due_in(self, row: ChoreRow | None, now: float) -> float:
        """Seconds until it is due; 0 or less if it is. While a runner has it, the time of that runner."""
        if row is not None and now < row.expires_at <= now + LEASE_SECONDS + CLOCK_TOLERANCE_SECONDS:
            return row.expires_at - now
        if row is None or row.ended_at is None or row.position is not None:
            return 0.0
        if row.ended_at > now + CLOCK_TOLERANCE_SECONDS:
            return 0.0
        return row.ended_at + self.every_seconds - now


def chores_of(site: Site) -> tuple[Chore, ...]:
    """The chores of a server, in the order in which they are done if several are due. What is never due is left out."""
    settings = site.settings
    table = (
        Chore(COLLECT, settings.collect_seconds, partial(_collect, site)),
        Chore("snapshot", settings.snapshot_seconds, partial(_snapshot, site)),
        Chore(SCRUB, SCRUB_SECONDS if settings.scrub_days else 0, partial(_scrub, site)),
    )
    return tuple(chore for chore in table if chore.every_seconds)


def _collect(site: Site, lease: Lease, throttle: Throttle) -> Report:
    """Delete what nothing names any more. What a chore needs is loaded when it is due, and not at the start."""
    from xetstore.cas.collecting import collect_all
    from xetstore.cas.rewriting import LOOKS
    from xetstore.hub.collecting import names_to_collect

    settings = site.settings
    grace = Grace(unused=settings.grace, undelete=settings.undelete)
    names = names_to_collect(site.cas)
    return collect_all(site.cas, lease, grace, throttle, names=names, looks=LOOKS, listing_seconds=grace.offer)


def _snapshot(site: Site, lease: Lease, throttle: Throttle) -> Report:
    """Write down the names and grants of the index, if something has changed."""
    from xetstore.cas.snapshots.take import take_snapshot_if_due
    from xetstore.hub.snapshot import NAMES

    return take_snapshot_if_due(site.cas, [NAMES], lease, throttle)


def _scrub(site: Site, lease: Lease, throttle: Throttle) -> Report:
    """Read stored bytes that were not checked for long."""
    from xetstore.cas.checking.scrub import scrub

    report = scrub(site.cas, lease, throttle, days=site.settings.scrub_days)
    site.metrics.scrubbed(report)
    return asdict(report)


class Care:
    """Does chores in a thread of its own. Each server process has one; a lease makes it one runner for all of them.

    An error of a chore is one line in the log, and its next time is later. ``share`` is the part of the time that a
    chore takes. Thread-safe.
    """

    def __init__(self, index: Index, chores: tuple[Chore, ...], share: float = 1.0) -> None:
        self._index = index
        self._share = share
        self.chores = chores
        self.rows: Mapping[str, ChoreRow] = {}
        """The rows of the chores, as they were at the last look."""
        self.running: str | None = None
        """The chore that this process does now."""
        self._cancellation = Cancellation()
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._thread: Thread | None = None

    def start(self) -> None:
        """Begin, unless there is nothing to do."""
        if self.chores:
            self._thread = start_thread(self._run, name="care")

    def cancel(self) -> None:
        """Have it end soon. May be called from a signal handler."""
        self._cancellation.cancel()

    def close(self) -> None:
        """Have it end, and wait for it, at most a second."""
        self.cancel()
        if self._thread is not None:
            self._thread.join(END_SECONDS)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its chores."""
        return tuple(chore.name for chore in self.chores)

    @property
    def _shortest(self) -> float:
        return min(chore.every_seconds for chore in self.chores)

    def _run(self) -> None:
        pause = min(FIRST_LOOK_SECONDS, self._shortest)
        with suppress(InterruptedCallError):
            while True:
                # Not all workers at the same moment.
                self._cancellation.wait(pause * random.uniform(0.5, 1))
                pause = self._do_what_is_due()

    def _do_what_is_due(self) -> float:
        """Do the chores that are due; seconds until the next look."""
        pause = min(LOOK_SECONDS, self._shortest)
        try:
            if not self._index.is_writable:
                return pause
            for chore in self.chores:
                with self._index.snapshot() as reader:
                    self.rows = {row.name: row for row in reader.chores()}
                due_in = max(
                    chore.due_in(self.rows.get(chore.name), self._index.clock()),
                    self._not_before.get(chore.name, 0.0) - time.monotonic(),
                )
                if due_in <= 0 and not self._do(chore):
                    continue
                pause = min(pause, max(due_in, 0.0))
        except InterruptedCallError:
            raise
        except XetError as error:  # of the index, which others complain of, too
            _log.debug("cannot look for chores: %s", error)
        return pause

    def _do(self, chore: Chore) -> bool:
        """Do a chore; False if another runner has it."""
        began = time.monotonic()
        try:
            lease = Lease.take(self._index, chore.name)
            if lease is None:
                return False
            with lease:
                self.running = chore.name
                report = dict(chore.work(lease, Throttle(self._share, self._cancellation)))
                report["seconds"] = round(time.monotonic() - began, 3)
                lease.finish(json.dumps(report))
        except InterruptedCallError:
            raise
        except LeaseLostError as error:
            _log.info("%s", error)
        except Exception as error:
            self._fail(chore, error)
            return True
        finally:
            self.running = None
        self._failures.pop(chore.name, None)
        self._not_before.pop(chore.name, None)
        return True

    def _fail(self, chore: Chore, error: Exception) -> None:
        count = self._failures[chore.name] = self._failures.get(chore.name, 0) + 1
        pause = min(max(chore.every_seconds, 1.0) * 2 ** min(count - 1, 12), LONGEST_PAUSE_SECONDS)
        self._not_before[chore.name] = time.monotonic() + pause
        if isinstance(error, XetError):
            _log.warning("the %s did not get done, and is tried again in %.0f s: %s", chore.name, pause, error)
        else:
            _log.error("the %s failed, and is tried again in %.0f s", chore.name, pause, exc_info=error)
