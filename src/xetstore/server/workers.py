"""Workers: several processes that serve one address, and their parent, which starts, watches and ends them.

The parent binds the address and opens no store. Each worker is a fresh interpreter that inherits the listening socket
(:mod:`xetstore.server.http.listening`), the memory in which limits are shared (:mod:`xetstore.server.ops.shared`) and a
line to the parent (:mod:`xetstore.server.ops.crew`), which tells it what to serve. The parent

- announces the server once all workers accept connections; what goes wrong before ends the start, with one error;
- hands on SIGTERM and SIGINT, which drain, and at the second time end all of it at once;
- puts another worker in the place of one that ends by itself, after a pause that grows from one to the next, until it
  gives up: a service manager may know better;
- adds up the metrics of all. What one had counted when it was last asked stays counted after its end.

Where the parent is killed, the lines end, and the workers let go of the port and drain.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from socket import socketpair
from typing import TYPE_CHECKING, Any, Final

from xetstore.cas.parts import StoreParts
from xetstore.errors import UnavailableError, UsageError, XetError
from xetstore.extras import install_hint
from xetstore.platform.threads import start_thread
from xetstore.server.http.sockets import listen, tls_context
from xetstore.server.ops.crew import FAILED, MERGED, READY, REPORT, SCRAPE, STOP, Orders
from xetstore.server.ops.exposition import Exposition
from xetstore.server.ops.logs import logging_to
from xetstore.server.ops.shared import Shared
from xetstore.server.settings import ServerSettings
from xetstore.server.started import Started

if TYPE_CHECKING:
    from types import FrameType

REPORT_SECONDS: Final = 3.0
"""The wait for the metrics of a worker. After it those that it told last stand for them."""
FORCED_SECONDS: Final = 5.0
"""The wait for workers that were told a second time, before they are killed."""

_PACKAGES: Final = ("httptools", "jwt", "prometheus_client", "starlette", "uvicorn")
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_SIGNAL: Final = "signal"
_ENDED: Final = "ended"
# The path comes first: what a worker imports is to be what its parent has.
_START: Final = (
    "import sys; from multiprocessing.connection import Connection; line = Connection(int(sys.argv[1]));"
    " sys.path[:] = line.recv(); from xetstore.server.worker import main; sys.exit(main(line))"
)

_log = logging.getLogger("xetstore.server")


@dataclass(frozen=True)
class Replacing:
    """When a worker that has ended is replaced.

    The pause is ``first_seconds``, and twice as long each time, at most ``most_seconds``. One that has served for
    ``settled_seconds`` begins anew. After ``most_deaths`` in a row the server ends.
    """

    first_seconds: float = 0.1
    most_seconds: float = 30.0
    settled_seconds: float = 60.0
    most_deaths: int = 12

    def pause(self, deaths: int) -> float:
        """Seconds before the next one is started, after ``deaths`` in a row."""
        return min(self.most_seconds, self.first_seconds * 2.0 ** (deaths - 1))


def serve(
    parts: StoreParts, settings: ServerSettings, announce: Callable[[Started], None], replacing: Replacing | None = None
) -> int:
    """Serve a store as ``run.serve`` does, by ``settings.worker_count`` processes.

    Raises UnavailableError also if workers end again and again, and UsageError if a package is missing.
    """
    _require_packages()
    tls_context(settings)  # what is wrong with a certificate is said before anything is started
    with (
        closing(listen(settings.host, settings.port)) as listening,
        logging_to(log_format=settings.log_format, level=settings.log_level),
        closing(Shared.create(settings.worker_count)) as shared,
    ):
        assert shared.descriptor is not None
        first = Orders(parts, settings, 0, shared.workers, listening.fileno(), shared.descriptor, place=None)
        parent = _Parent(shared, first, replacing or Replacing())
        with _signals_to(parent.tell_signal):
            return parent.run(announce)


class _Worker:
    """A place among the workers, and the process that has it now."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.deaths = 0
        self.started_at = 0.0
        self.starts_at: float | None = None
        self.is_ready = False
        self.report: bytes | None = None
        self.reports = 0
        self._is_asked = False
        self._line: Connection | None = None
        self._turn = threading.Lock()

    def start(self, orders: Orders) -> Connection:
        """Start a process, and tell it what to do; returns the line to it."""
        if sys.platform == "win32":  # where no server starts
            raise NotImplementedError
        ours, theirs = socketpair()
        with ours, theirs:
            # From its first moment on it is deaf to signals that are meant for its parent.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            try:
                shown = f"worker {self.number + 1} of xet serve"
                self.process = subprocess.Popen(
                    [sys.executable, "-I" if sys.flags.isolated else "-P", "-c", _START, str(theirs.fileno()), shown],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), orders.listening, orders.memory),
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            line = self._line = Connection(ours.detach())
        self.starts_at, self.started_at, self.is_ready, self._is_asked = None, time.monotonic(), False, False
        self._send(sys.path)
        self._send(orders)
        return line

    def say(self, word: str, value: Any = None) -> None:
        """Tell the process, if there is one."""
        if self.process is not None:
            self._send((word, value))

    def hang_up(self) -> None:
        """Close the line, while no other thread says anything over it."""
        with self._turn:
            if self._line is not None:
                self._line.close()
                self._line = None

    def kill(self) -> None:
        """Kill the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def ask(self) -> bool:
        """Ask for a report, unless one is awaited still. True if one will come."""
        if self.process is None or not self.is_ready:
            return False
        if not self._is_asked:
            self._is_asked = True
            self.say(REPORT)
        return True

    def take_report(self, report: bytes) -> None:
        """Keep what it tells."""
        self.report = report
        self.reports += 1

    def answered(self) -> None:
        """It told what it was asked for."""
        self._is_asked = False

    def _send(self, said: object) -> None:
        with self._turn, suppress(OSError):
            if self._line is not None:
                self._line.send(said)


class _Parent:
    """The parent. Events come from a thread for each worker, and from signals; one thread acts on them."""

    def __init__(self, shared: Shared, orders: Orders, replacing: Replacing) -> None:
        self._shared = shared
        self._orders = orders
        self._replacing = replacing
        self._workers = [_Worker(number) for number in range(shared.workers)]
        self._events: SimpleQueue[tuple[str, _Worker | None, Any]] = SimpleQueue()
        self._scrapes: SimpleQueue[_Worker] = SimpleQueue()
        self._kept = Exposition()
        self._reported = threading.Condition()
        self._is_announced = False
        self._stops = 0
        self._killed_at: float | None = None
        self._failure: XetError | None = None

    def tell_signal(self) -> None:
        """SIGTERM or SIGINT came. For a signal handler."""
        self._events.put((_SIGNAL, None, None))

    def run(self, announce: Callable[[Started], None]) -> int:
        """Start the workers, and watch them until all have ended. Returns the exit code."""
        try:
            start_thread(self._answer_scrapes, name="metrics")
            for worker in self._workers:
                self._start(worker)
            while self._stops == 0 or any(worker.process for worker in self._workers):
                self._act(announce)
        except BaseException:
            self._kill()
            raise
        if self._is_announced:
            _log.info("stopped")
        if self._failure is not None:
            raise self._failure
        if self._stops > 1:
            raise KeyboardInterrupt
        return 0

    def _act(self, announce: Callable[[Started], None]) -> None:
        """Wait for an event, or the time at which something is due, and do what is to be done."""
        now = time.monotonic()
        due = [at for at in (self._killed_at, *(worker.starts_at for worker in self._workers)) if at is not None]
        try:
            what, worker, value = self._events.get(timeout=max(0.0, min(due) - now) if due else None)
        except Empty:
            self._do_what_is_due(time.monotonic())
            return
        if worker is None:
            self._stop()
        elif what == READY:
            worker.is_ready = True
            found: Started
            found, place = value
            if self._orders.place is None:
                self._orders = replace(self._orders, place=place)
            if all(each.is_ready for each in self._workers) and not self._is_announced and not self._stops:
                self._is_announced = True
                _log.info("serving", extra={"url": found.url, "store": str(found.store), "workers": len(self._workers)})
                announce(found)
        elif what == FAILED:
            self._fail(worker, value)
        elif what == _ENDED:
            self._bury(worker, f"by signal {-value}" if value < 0 else f"with exit code {value}")

    def _do_what_is_due(self, now: float) -> None:
        if self._killed_at is not None and now >= self._killed_at:
            self._killed_at = None
            self._kill()
        for worker in self._workers:
            if worker.starts_at is not None and now >= worker.starts_at:
                self._start(worker)

    def _start(self, worker: _Worker) -> None:
        try:
            line = worker.start(replace(self._orders, number=worker.number))
            start_thread(self._hear, worker, worker.process, line, name=f"worker {worker.number + 1}")
        except OSError as error:  # no process, no thread, no descriptor
            worker.kill()
            self._bury(worker, f"before it began, because the system refused it: {error}")

    def _stop(self) -> None:
        self._stops += 1
        for worker in self._workers:
            worker.starts_at = None
            if self._stops <= 2:
                worker.say(STOP)
        if self._stops == 2:
            self._killed_at = time.monotonic() + FORCED_SECONDS

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()

    def _fail(self, worker: _Worker, error: XetError) -> None:
        """A worker could not start."""
        if self._is_announced:
            _log.error("worker %d cannot start: %s", worker.number + 1, error)
        elif self._failure is None:
            self._failure = error
            if not self._stops:
                self._stop()

    def _bury(self, worker: _Worker, how: str) -> None:
        """A worker has ended, ``how`` says the log. Another is to take its place, unless all are to end."""
        worker.process = None
        self._shared.clear(worker.number)
        with self._reported:
            if worker.report is not None:
                self._kept.add(worker.report, worker.number + 1)
                self._kept.keep_counts()
                worker.report = None
            self._reported.notify_all()
        if self._stops:
            return
        if not self._is_announced:
            self._failure = UnavailableError(f"a worker ended {how}, before the server could begin", hint="see the log")
            self._stop()
            return
        has_settled = worker.is_ready and time.monotonic() - worker.started_at >= self._replacing.settled_seconds
        worker.deaths = 1 if has_settled else worker.deaths + 1
        worker.is_ready = False
        if worker.deaths >= self._replacing.most_deaths:
            self._failure = UnavailableError(
                f"worker {worker.number + 1} ended {how}: {worker.deaths} ends in a row",
                hint="see the log for why, and start the server again",
            )
            _log.error("giving up: %s", self._failure)
            self._stop()
            return
        pause = self._replacing.pause(worker.deaths)
        _log.warning("worker %d ended %s; another takes its place in %.1f seconds", worker.number + 1, how, pause)
        worker.starts_at = time.monotonic() + pause

    def _hear(self, worker: _Worker, process: subprocess.Popen[bytes], line: Connection) -> None:
        """Take what a process says, until it ends. In a thread of its own."""
        try:
            with suppress(EOFError, OSError):
                while True:
                    self._take(worker, *line.recv())
        finally:
            worker.hang_up()
            self._events.put((_ENDED, worker, process.wait()))

    def _take(self, worker: _Worker, word: str, value: Any) -> None:
        if word not in (REPORT, SCRAPE):
            self._events.put((word, worker, value))
            return
        with self._reported:
            worker.take_report(value)
            if word == REPORT:
                worker.answered()
            self._reported.notify_all()
        if word == SCRAPE:
            self._scrapes.put(worker)

    def _answer_scrapes(self) -> None:
        """Answer each worker that asks with what all have counted. In a thread of its own."""
        while True:
            asking = self._scrapes.get()
            with self._reported:
                before = {each: each.reports for each in self._workers if each is not asking and each.ask()}
                self._reported.wait_for(partial(_have_told, before), REPORT_SECONDS)
                merged = Exposition()
                for worker in self._workers:
                    if worker.report is not None:
                        merged.add(worker.report, worker.number + 1)
                merged.include(self._kept)
            asking.say(MERGED, merged.text())


def _have_told(before: Mapping[_Worker, int]) -> bool:
    """True if each of these workers has told more than before, or has ended."""
    return all(worker.reports > reports or worker.process is None for worker, reports in before.items())


def _require_packages() -> None:
    """Raises UsageError unless all is there that workers import, and this process does not."""
    for name in _PACKAGES:
        if find_spec(name) is None:
            hint = install_hint("server")
            raise UsageError(f"a server needs {name}, which is not installed", hint=hint)


@contextmanager
def _signals_to(tell: Callable[[], None]) -> Iterator[None]:
    def handle(_number: int, _frame: FrameType | None) -> None:
        tell()

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
