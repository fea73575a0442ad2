"""Bench: tries transfers against doubles that go wrong, a fault at a time, and tells which ended as they may not."""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from tests.support import double_faults as faults
from tests.support.double import Double, Fault, Kind
from tests.support.live import LiveServer, live_server
from tests.support.strategies import float32, splitmix64, text
from xetstore.cas.check import check
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import XetError
from xetstore.events import Event, Retrying
from xetstore.protocol.hashes import Hash
from xetstore.remote.http import HttpCas
from xetstore.remote.tokens import FixedToken
from xetstore.remote.transport import Patience, Transport
from xetstore.transfer.upload.context import UploadOptions
from xetstore.transfer.upload.session import put_files
from xetstore.transfer.upload.sizing import UploadSizes

KIB = 1 << 10
PATIENCE = Patience(
    connect=5,
    answer=0.8,
    idle=0.5,
    hedge=0.2,
    shard=0.8,
    attempts=3,
    base_delay=0.01,
    max_delay=0.05,
    max_retry_after=0.1,
)
XORB_BYTES = 256 * KIB
LANES = 10
"""So many doubles go wrong at the same time: most of it is waiting."""

OK, USAGE, MISSING, INTEGRITY, DENIED, AWAY, OTHER = 0, 2, 3, 4, 5, 6, 1


@dataclass(frozen=True)
class Row:
    """A fault on a call, and how the transfer may end if it happens once, and if it happens always. It begins with
    call number ``at`` of its kind.
    """

    kind: Kind
    fault: Fault
    once: frozenset[int]
    always: frozenset[int]
    at: int = 0


def row(kind: Kind, fault: Fault, once: Iterable[int], always: Iterable[int]) -> Row:
    return Row(kind, fault, frozenset(once), frozenset(always))


# --- What passes, and what does not, whatever the call ----------------------------------------------------------


def transient() -> list[Fault]:
    """Try again and it is gone."""
    return [
        faults.stall_before(),
        faults.reset_before(),
        faults.reset_after(),
        faults.close_before(),
        faults.status(500),
        faults.status(502, body=b"<html>Bad Gateway</html>"),
        faults.status(503, retry_after="0"),
        faults.status(503),
        faults.status(504),
        faults.status(429, retry_after="0"),
        faults.status(429),
        faults.status(408),
    ]


PERMANENT = {401: DENIED, 403: DENIED, 404: MISSING, 405: USAGE, 413: USAGE, 416: USAGE}


def of_any_call(kind: Kind, fine: Iterable[int] = ()) -> list[Row]:
    """Rows for a call without which there is no transfer; ``fine`` are statuses that it can do without."""
    rows = [row(kind, fault, {OK}, {AWAY}) for fault in transient()]
    for code, ends in PERMANENT.items():
        ok = {OK} if code in fine else {ends}
        # An answer that is too large is asked for in parts.
        is_smaller_next = code == 413 and kind in (Kind.RECONSTRUCTION_V1, Kind.RECONSTRUCTION_V2)
        rows.append(row(kind, faults.status(code), {OK, ends} if is_smaller_next else ok, ok))
    rows.append(
        row(
            kind,
            faults.status(501),
            {OK} if 501 in fine else {USAGE, OTHER, AWAY},
            {OK} if 501 in fine else {USAGE, OTHER, AWAY},
        )
    )
    rows.append(row(kind, faults.status(507), {OK, AWAY}, {AWAY}))
    rows.append(row(kind, faults.garbage(), {OK}, {AWAY}))
    rows.append(row(kind, faults.redirect_loop(), {OK, USAGE, AWAY}, {USAGE, AWAY}))
    return rows


def of_a_json_answer(kind: Kind) -> list[Row]:
    """What comes is not what was sent."""
    bad = {INTEGRITY, AWAY}
    return [
        row(kind, faults.html(), {OK, *bad}, bad),
        row(kind, faults.empty(), {OK, *bad}, bad),
        row(kind, faults.stall_within(), {OK}, {AWAY}),
        row(kind, faults.reset_within(), {OK}, {AWAY}),
        row(kind, faults.truncate(0.5, honest=False), {OK}, {AWAY}),
        row(kind, faults.truncate(0.5, honest=True), {OK, *bad}, bad),
        row(kind, faults.flip_length(), {OK}, {OK, AWAY}),
    ]


def of_an_upload(kind: Kind) -> list[Row]:
    """A body goes up."""
    return [
        row(kind, faults.reset_early(), {OK}, {AWAY}),
        row(kind, faults.reset_early(1000), {OK}, {AWAY}),
        row(kind, faults.stall_early(), {OK}, {AWAY}),
        row(kind, faults.status(500, early=True), {OK}, {AWAY}),
        row(kind, faults.status(413, early=True), {USAGE}, {USAGE}),
    ]


# --- One fault, one transfer --------------------------------------------------------------------------------------


@dataclass
class Try:
    """One transfer under way: with this double, to go wrong like this."""

    double: Double
    row: Row
    token: str
    events: list[Event] = field(default_factory=list)

    @property
    def patience(self) -> Patience:
        """Short where the double keeps still; else a busy machine would be taken for it."""
        return PATIENCE if "stalls" in self.row.fault.name else replace(PATIENCE, answer=10, idle=10, shard=10)

    @contextmanager
    def cas(self) -> Iterator[HttpCas]:
        """The client, to be closed after it."""
        with Transport(patience=self.patience) as transport:
            cas = HttpCas(self.double.url, tokens=FixedToken(self.token), transport=transport, emit=self.events.append)
            try:
                yield cas
            finally:
                cas.close()


Transfer: TypeAlias = Callable[[Try], None]


@dataclass
class Bench:
    """A server with files, and doubles of it, to try rows with."""

    server: LiveServer
    contents: Sequence[bytes]
    files: Sequence[Hash]
    folder: Path
    wrong: list[str] = field(default_factory=list)
    _lane: threading.local = field(default_factory=threading.local)
    _made: list[Double] = field(default_factory=list)

    @property
    def content(self) -> bytes:
        """The first file."""
        return self.contents[0]

    @property
    def file(self) -> Hash:
        """The first file's hash."""
        return self.files[0]

    def peek(self, xorb: str, start: int, end: int) -> bytes:
        stored = self.server.site.cas.stored_xorb(Hash.parse(xorb[:64]), visible=False)
        with stored.read(start, min(end, stored.size)) as stream:
            parts = []
            while count := stream.readinto(block := memoryview(bytearray(1 << 20))):
                parts.append(bytes(block[:count]))
        return b"".join(parts)

    def double(self) -> Double:
        """The one of this thread."""
        if not hasattr(self._lane, "double"):
            self._lane.double = Double(self.server.url, peek=self.peek, issue=self.server.token).__enter__()
            self._made.append(self._lane.double)
        found: Double = self._lane.double
        found.hang_up()
        found.clear()
        return found

    def close(self) -> None:
        for double in self._made:
            double.__exit__()

    def try_all(
        self,
        rows: Iterable[Row],
        transfer: Transfer,
        *,
        how_often: Iterable[int | None] = (1, None),
        **options: bool,
    ) -> None:
        """Each row twice, once and always; what is not as it should be is gathered, and told together.

        ``options`` are set on the doubles: ``hashes``, ``grants``, ``compressed``, ``digests``.
        """
        self.wrong.clear()
        with ThreadPoolExecutor(LANES) as pool:
            for item in rows:
                for times in how_often:
                    pool.submit(self._guarded, item, times, transfer, options)
        assert not self.wrong, f"{len(self.wrong)} are wrong:\n" + "\n".join(sorted(self.wrong)[:50])

    def _guarded(self, item: Row, times: int | None, transfer: Transfer, options: dict[str, bool]) -> None:
        name = f"{item.kind.value}, {item.fault.name}, {'once' if times else 'always'}"
        try:
            self._try(name, item, times, transfer, options)
        except BaseException as error:
            self.wrong.append(f"{name}: {type(error).__name__}: {error}")

    def _try(
        self,
        name: str,
        item: Row,
        times: int | None,
        transfer: Transfer,
        options: dict[str, bool],
    ) -> None:
        double = self.double()
        double.hashes = options.get("hashes", True)
        double.grants = options.get("grants", False)
        double.compressed = options.get("compressed", False)
        double.digests = options.get("digests", False)
        if item.kind is Kind.RECONSTRUCTION_V1:
            double.plan(Kind.RECONSTRUCTION_V2, faults.status(404), times=None)
        if item.kind is Kind.SHARD_V1:
            double.plan(Kind.SHARD_V2, faults.status(404), times=None)
        planned = double.plan(item.kind, item.fault, at=item.at, times=times)
        trying = Try(double, item, self.server.token("write"))
        code, said = 0, ""
        try:
            transfer(trying)
        except XetError as error:
            code, said = error.exit_code, f"{type(error).__name__}: {error} ({error.hint})"
            problem = problem_of(error, trying.token)
            if problem:
                self.wrong.append(f"{name}: {problem}: {said}")
        allowed = item.once if times else item.always
        if not planned.hits and not item.at:
            self.wrong.append(f"{name}: the call was never made")
        retries = sum(isinstance(event, Retrying) for event in trying.events)
        if times and code == OK and retries:
            return  # on a busy machine the answer that would end it may come too late
        if code not in allowed:
            self.wrong.append(f"{name}: ended with {code}, not {sorted(allowed)}, after {retries} retries: {said}")
        if trying.token in repr(trying.events) or _QUERY.search(repr(trying.events)):
            self.wrong.append(f"{name}: a secret is in an event")


_QUERY = re.compile(r"X-Xet-(?:Signature|Signed|Expires|Key)|[?&]\w+=")


def problem_of(error: XetError, secret: str) -> str | None:
    """What is wrong with what an error says."""
    message, hint = str(error), error.hint or ""
    if not message or "\n" in message + hint or len(message) > 600:
        return "the message is not a sentence"
    if message.endswith((".", "!")) or "Traceback" in message:
        return "the message is not written as all are"
    if hint in ("", "the destination was not touched") or " ;" in hint:
        return "no hint says what to do"
    if secret in message + hint + repr(error) or _QUERY.search(message + hint):
        return "a secret, or the query of a URL, is in the message"
    return None


@contextmanager
def bench_with_a_file() -> Iterator[Bench]:
    """One whose server holds a file of six xorbs, with chunks of all kinds."""
    content = splitmix64(1, 350 * KIB) + text(200 * KIB) + float32(200 * KIB) + splitmix64(2, 250 * KIB)
    with bench_with_files([content]) as made:
        yield made


@contextmanager
def bench_with_files(contents: Sequence[bytes]) -> Iterator[Bench]:
    """One whose server holds these files, in xorbs of 256 KiB."""
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedCas.open(Path(folder, "store")) as cas,
        live_server(cas, rate_per_address=0, rate_per_token=0, log_level="error") as server,
    ):
        sources = [Path(folder, f"source{number}") for number in range(len(contents))]
        for source, content in zip(sources, contents, strict=True):
            source.write_bytes(content)
        files = [report.info.hash for report in put_files(cas, sources, UploadOptions(sizes=UploadSizes(XORB_BYTES)))]
        made = Bench(server, contents, files, Path(folder))
        try:
            yield made
        finally:
            made.close()
        assert check(cas, read_data=True).problems == ()
