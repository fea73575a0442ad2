"""Site: the common needs of all handlers, who the caller is, and the URL of this server from outside."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from xetstore.access.tenant import DedupDomain
from xetstore.access.tokens import Caller, Scope
from xetstore.errors import ForbiddenError, MissingTokenError, TooManyRequestsError, UsageError
from xetstore.protocol.hashes import Hash
from xetstore.server.ops.first_queries import FirstQueries
from xetstore.server.ops.holdings import Holdings
from xetstore.server.ops.peers import Peers
from xetstore.server.ops.soundness import SoundnessLook
from xetstore.server.ops.suspects import Suspects
from xetstore.server.settings import is_loopback

if TYPE_CHECKING:
    from starlette.requests import Request

    from xetstore.access.signed_urls import UrlSigner
    from xetstore.access.tokens import TokenAuthority
    from xetstore.blobs.direct import RangeUrls
    from xetstore.cas.service import EmbeddedCas
    from xetstore.hub.service import EmbeddedHub
    from xetstore.server.ops.budgets import Holders
    from xetstore.server.ops.limits import ServerLimits
    from xetstore.server.ops.metrics import Metrics
    from xetstore.server.settings import ServerSettings

ANONYMOUS: Final = Caller(namespace="default", scope=Scope.WRITE, token_id="anonymous")
"""The caller of a server that asks for no tokens."""

MAX_VIEWS: Final = 1024
"""Namespaces whose views of the store are kept. One is made in some microseconds."""

CAS_MOUNT: Final = "/cas"
"""The path below which the routes of the CAS are a second time, apart from those of the Hub."""

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
OWN_SITE: Final = frozenset({"same-origin", "none"})
"""Values of Sec-Fetch-Site: a page of this server, or the user. What is no browser sends none."""

_HASH = re.compile(r"[0-9a-f]{64}")
_HOST = re.compile(r"(?P<name>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_BEARER = re.compile(r"bearer +([!-~]+) *", re.IGNORECASE)


@dataclass(frozen=True)
class Site:
    """One server: the store behind it, who may call, the limits. ``hub`` is None on a bare CAS.

    ``clock`` gives unix seconds, ``exposition`` the metrics of all workers. ``draining`` is set once the server is told
    to stop: it is not ready any more. ``direct`` signs URLs of the object store, where clients read xorbs from that
    (``xorb_urls`` is direct).
    """

    cas: EmbeddedCas
    authority: TokenAuthority
    signer: UrlSigner
    settings: ServerSettings
    limits: ServerLimits
    metrics: Metrics
    exposition: Callable[[], bytes]
    clock: Callable[[], float] = time.time
    draining: threading.Event = field(default_factory=threading.Event)
    suspects: Suspects = field(default_factory=Suspects)
    first_queries: FirstQueries = field(default_factory=FirstQueries)
    direct: RangeUrls | None = None
    hub: EmbeddedHub | None = None
    _views: dict[str, EmbeddedCas] = field(default_factory=dict, init=False, repr=False)

    @property
    def asks_for_tokens(self) -> bool:
        """False for a server of this machine only, which takes each caller for its owner."""
        return self.settings.auth == "tokens"

    @cached_property
    def peers(self) -> Peers:
        """The proxies that are believed."""
        return Peers(self.settings.trusted_proxies)

    @cached_property
    def soundness(self) -> SoundnessLook:
        """The numbers of damaged objects."""
        return SoundnessLook(self.cas.index)

    @cached_property
    def holdings(self) -> Holdings:
        """The sums over the store, its namespaces, and the room on its disks."""
        return Holdings(self.cas, self.clock)

    def caller(self, request: Request, scope: Scope) -> Caller:
        """The caller of a request that needs ``scope``; also counts it against the rate of its token.

        Raises what :meth:`authenticate` does, and TooManyRequestsError.
        """
        caller = self.authenticate(request, scope)
        self.admit(caller)
        return caller

    def authenticate(self, request: Request, scope: Scope) -> Caller:
        """The caller of a request that needs ``scope``.

        Raises UnauthenticatedError without a valid token, ForbiddenError if its scope is too small. Where no token is
        asked for, one of this store still counts, because it acts in the namespace of a repository; without one see
        :func:`refuse_pages`.
        """
        if self.asks_for_tokens:
            caller = self.authority.verify(bearer_token(request))
        else:
            refuse_pages(request)
            caller = self._recognised(request) or ANONYMOUS
        request.scope.setdefault("state", {})["caller"] = caller
        if caller.scope < scope:
            raise ForbiddenError(f"this needs a token with scope {scope.value}, not {caller.scope.value}")
        return caller

    def _recognised(self, request: Request) -> Caller | None:
        found = _BEARER.fullmatch(request.headers.get("authorization", ""))
        return None if found is None else self.authority.recognise(found[1])

    def is_counted(self, caller: Caller) -> bool:
        """True if the requests of a caller count against the rate of its token: it has one."""
        return caller is not ANONYMOUS

    def admit(self, caller: Caller) -> None:
        """Count a request against the rate of its token. Raises TooManyRequestsError."""
        if self.is_counted(caller):
            try:
                self.limits.tokens.admit(caller.token_id)
            except TooManyRequestsError:
                self.metrics.rate_limited("token")
                raise

    def cas_for(self, caller: Caller) -> EmbeddedCas:
        """The store as one caller sees it."""
        view = self._views.get(caller.namespace)
        if view is None:
            view = self.cas.in_namespace(
                caller.namespace,
                dedup=DedupDomain(self.settings.dedup),
                private=frozenset(self.settings.private_namespaces),
            )
            if len(self._views) >= MAX_VIEWS:
                self._views.clear()
            self._views[caller.namespace] = view
        return view

    def base_url(self, request: Request) -> str:
        """The URL at which clients reach this server, without a slash at the end: what URLs in answers start with.

        Raises UsageError if that is taken from a Host header which is none.
        """
        if self.settings.public_url is not None:
            return self.settings.public_url
        host = request.headers.get("host", "")
        if not _HOST.fullmatch(host):
            raise UsageError("the Host header does not name a host")
        return f"{request.scope.get('scheme', 'http')}://{host}"

    def cas_url(self, request: Request) -> str:
        """The URL of the CAS for clients of the Hub's API. Raises as :meth:`base_url` does."""
        return self.base_url(request) + CAS_MOUNT


def site_of(request: Request) -> Site:
    """The site a request came to."""
    site: Site = request.app.state.site
    return site


def holders_of(request: Request) -> Holders:
    """The holders of what a request takes of a budget: its address and, where known, its namespace and token."""
    state = request.scope["state"]
    address = f"address {state.get('address', 'unknown')}"
    caller: Caller | None = state.get("caller")
    return (address,) if caller is None else (address, f"namespace {caller.namespace}", f"token {caller.token_id}")


def parse_hash(text: str) -> Hash:
    """A hash in a path or a body: 64 lower-case hexadecimal digits, in the order of 6.5. Raises UsageError."""
    if not _HASH.fullmatch(text):
        raise UsageError(f"{text[:80]!r} is not a hash", hint="a hash is 64 lower-case hexadecimal digits")
    return Hash.parse(text)


def bearer_token(request: Request) -> str:
    """The token behind ``Bearer`` in the Authorization header (11.1). Raises MissingTokenError if there is none."""
    found = _BEARER.fullmatch(request.headers.get("authorization", ""))
    if found is None:
        raise MissingTokenError("a token is needed", hint="send it as `Authorization: Bearer TOKEN`")
    return found[1]


def refuse_pages(request: Request) -> None:
    """Raise ForbiddenError for what a page of another site may have made a browser send, where no token is asked for.

    The Host header has to name this machine as itself: a page can make its own name resolve to 127.0.0.1, but not
    send another. And what may change something has to come from no page, or one of this very server: a page can send
    a POST anywhere, though it does not see the answer. The browser tells where it comes from.
    """
    if not names_loopback(request.headers.get("host")):
        raise ForbiddenError("without tokens this server answers to localhost only")
    if changes_from_a_page(request):
        raise ForbiddenError("without tokens this server takes nothing from web pages", hint="serve it with tokens")


def changes_from_a_page(request: Request) -> bool:
    """True if a page of another site made a browser send this, and it may change something."""
    if request.method in SAFE_METHODS:
        return False
    headers = request.headers
    origin = headers.get("origin")
    own = f"{request.scope.get('scheme', 'http')}://{headers.get('host')}"
    is_foreign = origin is not None and origin.lower() != own.lower()
    return is_foreign or headers.get("sec-fetch-site", "none") not in OWN_SITE


def names_loopback(host: str | None) -> bool:
    """True if a Host header names this machine as only itself can: localhost, 127.0.0.0/8 or ::1."""
    found = _HOST.fullmatch(host or "")
    return found is not None and is_loopback(found["name"].lower().strip("[]"))
