"""Server: one Xet server as a client knows it: its URL, its tokens, and the calls found to be missing there."""

from __future__ import annotations

import hashlib
import re
import time
import uuid
from collections.abc import Callable, Mapping, Set
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urljoin

from xetstore.cancellation import Cancellation
from xetstore.errors import DamagedError, IntegrityError, UnavailableError, UsageError, XetError
from xetstore.events import Emit, FellBack, Retrying
from xetstore.interfaces import MANY_CHUNKS, AnswerTooLongError
from xetstore.platform import forks
from xetstore.protocol.dedup import WIRE_QUERIES, QueryRule
from xetstore.protocol.headers import SESSION_HEADER
from xetstore.remote.exchange import Wait
from xetstore.remote.network import origin_of
from xetstore.remote.pace import Pace
from xetstore.remote.problems import problem_of
from xetstore.remote.redirects import SAME_METHOD, STATUSES, Redirects, follow
from xetstore.remote.retry import retrying
from xetstore.remote.transport import Answer, Transport

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from xetstore.remote.tokens import Token, TokenSource

T = TypeVar("T")

QUERY_FAILURES: Final = 3
QUERY_PAUSE_SECONDS: Final = 60.0
MAX_REDIRECTS: Final = 10
_ANNOUNCED: Final = re.compile(r"modulus=([0-9]{1,9}), most=([0-9]{1,9})")
_BINDS: Final = "answers say what they answer"


def _redirects(statuses: Set[int]) -> Redirects:
    """The rule of a server: redirects of these statuses lead anywhere."""

    def target(answer: Answer, url: str) -> str | None:
        location = answer.headers.get("location")
        return urljoin(url, location).partition("#")[0] if location and answer.status in statuses else None

    return Redirects(MAX_REDIRECTS, target, UnavailableError, "try again later")


_READS: Final = _redirects(STATUSES)
_WRITES: Final = _redirects(SAME_METHOD)


class Credentials:
    """The token of one call, with one renewal if it is refused. Not thread-safe."""

    def __init__(self, tokens: TokenSource | None, *, write: bool) -> None:
        self._tokens = tokens
        self._write = write
        self._token: Token | None = None
        self._fresh: Token | None = None
        self._is_renewed = False

    def headers(self) -> dict[str, str]:
        """The header to be sent now."""
        if self._tokens is None:
            return {}
        self._token, self._fresh = self._fresh or self._tokens.token(write=self._write), None
        return {} if self._token is None else {"authorization": f"Bearer {self._token.secret.reveal()}"}

    def renew(self, status: int) -> bool:
        """True if a call that got ``status`` is worth repeating with another token: once in its life."""
        refused = status == 401 or (status == 403 and self._write)
        if not refused or self._tokens is None or self._is_renewed:
            return False
        self._is_renewed = True
        self._fresh = self._tokens.renew(self._token, write=self._write)
        return self._fresh is not None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must be in no message, whatever a server says."""
        return () if self._token is None else (self._token.secret.reveal(),)


class Queries:
    """Dedup queries to a server: ``rule`` says which, and there are none for a while after some failed. Thread-safe.

    A server of ours announces its own rule with every answer to a query; others answer those of the protocol.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.rule = WIRE_QUERIES
        self._clock = clock
        self._lock = forks.lock()
        self._failures = 0
        self._paused_until = float("-inf")

    @property
    def are_paused(self) -> bool:
        """True if the client should do without."""
        return self._clock() < self._paused_until

    def succeeded(self, announced: str | None = None) -> None:
        """The server answered, yes or no, and announced its rule, or none."""
        rule = WIRE_QUERIES if announced is None else _announced_rule(announced)
        with self._lock:
            self._failures = 0
            self.rule = rule

    def failed(self, retry_after: float | None = None) -> None:
        """It did not, or wants to be asked later."""
        with self._lock:
            self._failures += 1
            now = self._clock()
            if self._failures >= QUERY_FAILURES:
                self._failures = 0
                self._paused_until = max(self._paused_until, now + QUERY_PAUSE_SECONDS)
            if retry_after:
                self._paused_until = max(self._paused_until, now + retry_after)


def _announced_rule(announced: str) -> QueryRule:
    """The rule of a header ``modulus=64, most=1024``; that of the protocol where it cannot be read."""
    found = _ANNOUNCED.fullmatch(announced)
    if found is None:
        return WIRE_QUERIES
    modulus, most = map(int, found.groups())
    if not (0 < modulus <= WIRE_QUERIES.modulus and most > 1):
        return WIRE_QUERIES
    return replace(
        WIRE_QUERIES, modulus=modulus, spacing_chunks=0, spacing_bytes=0, most_at_once=min(most, MANY_CHUNKS)
    )


class Server:
    """A server, as the calls under one cancellation see it: what is learnt of it they share. Thread-safe.

    Raises UsageError for a URL that cannot be one, and for plain http where that is not allowed.
    """

    def __init__(self, url: str, tokens: TokenSource | None, transport: Transport, emit: Emit) -> None:
        self.cancellation = Cancellation()
        self.origin = origin_of(url)
        if "?" in url or "#" in url:
            raise UsageError("the URL of a server has no query and no fragment", hint="give it without ? and #")
        self.url = url.rstrip("/")
        transport.check_scheme(url)
        self.tokens = tokens
        self.transport = transport
        self.emit = emit
        self.queries = Queries()
        self._session = str(uuid.uuid4())
        # Calls that do not exist there; and BINDS once an answer says what it answers: from then on all do.
        self._learnt: set[str] = set()
        self._paces: dict[str, Pace] = {}

    def under(self, cancellation: Cancellation) -> Server:
        """The same server, whose calls end with another cancellation."""
        server = copy(self)
        server.cancellation = cancellation
        server.tokens = None if self.tokens is None else self.tokens.under(cancellation)
        return server

    def credentials(self, *, write: bool) -> Credentials:
        """Those of a call that begins now."""
        return Credentials(self.tokens, write=write)

    def pace_of(self, host: str) -> Pace:
        """The pace of the ranges from a host that this server sends its clients to."""
        return self._paces.setdefault(host, Pace())

    def lacks(self, name: str) -> bool:
        """True if a call turned out not to exist here."""
        return name in self._learnt

    def fall_back(self, name: str, used: str) -> None:
        """Remember that a call does not exist here, and tell so the first time."""
        if name not in self._learnt:
            self._learnt.add(name)
            self.emit(FellBack(name, used))

    def send(
        self,
        method: str,
        path: str,
        *,
        credentials: Credentials,
        headers: Mapping[str, str] = {},
        body: Buffer | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """The answer to a call, whatever its status. Where the token is refused it is made with another one, once.

        Redirects are followed, without the token where they lead to another origin.
        """
        return self.follow(
            method,
            f"{self.url}{path}",
            credentials=credentials,
            headers=headers,
            body=body,
            timeout=timeout,
            takes_token=lambda url: origin_of(url) == self.origin,
        )

    def follow(
        self,
        method: str,
        url: str,
        *,
        credentials: Credentials,
        headers: Mapping[str, str],
        body: Buffer | None = None,
        timeout: float | None = None,
        wait: Wait | None = None,
        takes_token: Callable[[str], bool],
    ) -> Answer:
        """The answer of wherever redirects lead to. A URL gets the token if ``takes_token`` says so."""

        def ask(url: str) -> Answer:
            has_token = takes_token(url)
            while True:
                token = credentials.headers() if has_token else {}
                answer = self.send_to(method, url, headers={**headers, **token}, body=body, timeout=timeout, wait=wait)
                try:
                    is_final = not (has_token and answer.status in (401, 403) and credentials.renew(answer.status))
                except BaseException:
                    answer.close()
                    raise
                if is_final:
                    return answer
                answer.close()

        return follow(url, ask, _READS if method in ("GET", "HEAD") else _WRITES)

    def send_to(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: Buffer | None = None,
        timeout: float | None = None,
        wait: Wait | None = None,
    ) -> Answer:
        """A request to any URL, with no token but one that ``headers`` has. A header with no value is left out."""
        named = {"accept": "*/*", SESSION_HEADER: self._session, **headers}
        sent = {name: value for name, value in named.items() if value}
        return self.transport.request(
            method,
            url,
            headers=sent,
            body=body,
            timeout=timeout,
            cancellation=self.cancellation,
            wait=wait,
        )

    def retrying(self, name: str, work: Callable[[], T]) -> T:
        """Do ``work``, with as many attempts as it takes and patience allows; return its result."""
        return retrying(name, work, patience=self.transport.patience, cancellation=self.cancellation, emit=self.emit)

    def asked_twice(self, name: str, ask: Callable[[], T]) -> T:
        """The result of ``ask``, :meth:`retrying`; of a second time if the first answer was wrong."""
        try:
            return self.retrying(name, ask)
        except AnswerTooLongError:
            raise
        except IntegrityError as error:
            # What came may have been damaged on its way; what the server means to say is the same again.
            self.emit(Retrying(name, str(error), 1, 0.0))
            try:
                return self.retrying(name, ask)
            except IntegrityError as last:
                if not isinstance(last, DamagedError):  # which the server found itself
                    last.hint = "the server, or something before it, gives wrong answers: tell who runs it"
                raise

    def read_bound(self, answer: Answer, limit: int, question: str) -> bytes:
        """The body of the answer to ``question``. Raises IntegrityError as :meth:`expect_binding`, and as a read."""
        self.expect_binding(answer)
        body = answer.read(limit, question)
        if answer.is_bound:
            self._learnt.add(_BINDS)
        return body

    def check_bound(self, answer: Answer, question: str, content: bytes) -> None:
        """Raise IntegrityError if a head is the answer to another question; ``content`` is what it says."""
        self.expect_binding(answer)
        if answer.is_bound:
            answer.check_binding(question, hashlib.sha256(content).digest())
            self._learnt.add(_BINDS)

    def expect_binding(self, answer: Answer) -> None:
        """Raise IntegrityError if an answer does not say what it answers, and others of this server did."""
        if _BINDS in self._learnt and not answer.is_bound:
            raise IntegrityError(
                f"the answer of {answer.peer} does not say what it answers, as others did", hint="try again"
            )

    def refused(
        self, answer: Answer, what: str, credentials: Credentials, *, bad_request: type[XetError] = UsageError
    ) -> XetError:
        """The error that an answer stands for. ``what`` names the thing; the server is added."""
        return problem_of(
            answer, f"{what} at {self.origin.address}", bad_request=bad_request, secrets=credentials.secrets
        )
