"""Opening a store: a directory, a store file, the URL of a server, or a repository on a Hub, with its cache and tokens.

Nothing is imported that the kind at hand does not need: who talks to a server loads no database, and who opens a
directory or a store file no HTTP.
"""

from __future__ import annotations

import os
import pickle
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

from xetstore.cache_folder import cache_folder, chunks_folder, known_file
from xetstore.errors import NotPicklableError, UsageError
from xetstore.events import Emit, ignore
from xetstore.limits import NO_LIMITS, Limits

if TYPE_CHECKING:
    from xetstore.interfaces import Cas
    from xetstore.remote.hub.client import Hub
    from xetstore.remote.hub.locators import HubLocator
    from xetstore.remote.tokens import TokenCallback, TokenSource
    from xetstore.remote.transport import Transport
    from xetstore.transfer.download.reuse.chunk_cache import ChunkCache
    from xetstore.transfer.upload.known import KnownXorbs

    GivenToken: TypeAlias = str | TokenCallback | TokenSource | None

HUB_SCHEME: Final = "hf://"
ALLOW_HTTP_VARIABLE: Final = "XET_ALLOW_HTTP"

_HINT: Final = (
    "a store is a directory, a store file, the http:// or https:// URL of a server, or hf://models/NAMESPACE/NAME"
)
_PARTS: Final = ("s3", "gs", "az", "postgresql", "postgres")
_PARTS_HINT: Final = "that is a part of one: name the objects and the index in a store file, and that as the store"


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """The arguments of :func:`xetstore.open`, which says what they mean, but the place of the store."""

    create: bool = True
    token: GivenToken = field(default=None, repr=False)
    limits: Limits = NO_LIMITS
    cache: Path | bool | None = None
    allow_http: bool = False
    on_event: Emit = ignore


@dataclass(slots=True)
class Opened:
    """A Cas, and all that a store needs beside it. ``location`` says where it is, and holds no secret."""

    cas: Cas
    location: str
    is_local: bool = False
    cache: ChunkCache | None = None
    known: KnownXorbs | None = None
    hub: Hub | None = None
    repository: HubLocator | None = None
    closing: ExitStack = field(default_factory=ExitStack)


@dataclass(frozen=True, slots=True)
class Reopening:
    """The place and the options by which another process opens the same store.

    ``location`` and the folder of the cache are absolute, and there is no secret in it: of a store file the path
    travels, and it is read again. The store has to be there: it was, when it was opened first.
    """

    location: str
    options: OpenOptions
    has_token: bool
    """True if a token was given, beside those of the environment. It does not travel."""

    @classmethod
    def of(cls, opened: Opened, options: OpenOptions) -> Reopening:
        """That of a store that was opened with these options."""
        location = os.path.abspath(opened.location) if opened.is_local else opened.location  # noqa: PTH100
        cache = options.cache.absolute() if isinstance(options.cache, Path) else options.cache
        return cls(location, replace(options, create=False, token=None, cache=cache), options.token is not None)

    def check(self) -> None:
        """Raise NotPicklableError, which says what to do, for what does not travel."""
        if self.has_token:
            raise NotPicklableError(
                f"the store at {self.location} was opened with a token, which does not travel to another process",
                hint="put it into XET_TOKEN or XET_TOKEN_FILE (HF_TOKEN for a Hub), which workers inherit, and open the"
                " store without it; or open the store in the worker",
            )
        try:
            pickle.dumps(self.options.on_event)
        except Exception:
            raise NotPicklableError(
                f"the store at {self.location} tells its events to a function that does not travel to another process",
                hint="give on_event a function of a module, or open the store in the worker",
            ) from None


def scheme_of(where: Path | str) -> str:
    """``http``, ``https``, ``hf`` and the like; empty for a path.

    >>> scheme_of("hf://models/ns/name"), scheme_of("./store"), scheme_of("C:store")
    ('hf', '', '')
    """
    scheme, separator, _ = str(where).partition("://") if isinstance(where, str) else ("", "", "")
    return scheme.lower() if separator and scheme.isascii() and scheme[:1].isalpha() and "/" not in scheme else ""


def open_cas(where: Path | str, options: OpenOptions) -> Opened:
    """Open the store that ``where`` names; see :func:`xetstore.store.open_store`."""
    scheme = scheme_of(where)
    if not scheme:
        return _open_here(Path(where), options)
    if scheme not in ("http", "https", "hf"):
        raise UsageError(f"{scheme}:// is no kind of store", hint=_PARTS_HINT if scheme in _PARTS else _HINT)
    limits, emit = options.limits, options.on_event
    folder = cache_folder(options.cache, emit)
    with ExitStack() as closing:
        from xetstore.remote.http import HttpCas
        from xetstore.remote.transport import Patience, Transport

        transport = Transport(
            patience=Patience(floor=limits.min_rate, commit=limits.commit_seconds),
            rate=limits.rate,
            most_bytes=limits.answer_bytes,
            allow_http=_http_allowed(options.allow_http),
        )
        closing.callback(transport.close)
        if scheme == "hf":
            opened = _open_repository(str(where), options, transport, closing)
        else:
            url = _server_url(str(where))
            opened = Opened(HttpCas(url, tokens=_tokens(options.token, emit), transport=transport, emit=emit), url)
            closing.callback(opened.cas.close)
        if folder is not None:
            _add_cache(opened, folder, emit, closing)
        opened.closing = closing.pop_all()
    return opened


def open_hub(*, token: GivenToken, allow_http: bool, emit: Emit) -> Hub:
    """The Hub that the environment names, to be closed by the caller; ``token`` is the user's there, or None."""
    from xetstore.remote.hub.client import Hub

    return Hub(token=_hub_token(token), allow_http=_http_allowed(allow_http), emit=emit)


def _http_allowed(allow_http: bool) -> bool:
    return allow_http or os.environ.get(ALLOW_HTTP_VARIABLE, "").lower() in ("1", "true", "yes", "on")


def _open_here(path: Path, options: OpenOptions) -> Opened:
    if options.token is not None:
        raise UsageError(
            f"{path} is a directory or a store file, which asks for no token",
            hint="leave the token out, or give the URL of a server",
        )
    from xetstore.cas.service import EmbeddedCas

    cas = EmbeddedCas.open(path, create=options.create)
    opened = Opened(cas, str(path), is_local=True)
    opened.closing.callback(cas.close)
    return opened


def _open_repository(where: str, options: OpenOptions, transport: Transport, closing: ExitStack) -> Opened:
    from xetstore.remote.http import HttpCas
    from xetstore.remote.hub.client import Hub
    from xetstore.remote.hub.locators import HubLocator

    locator = HubLocator.parse(where)
    if locator.path:
        raise UsageError(
            f"{where[:200]} is a file or folder, and no store", hint=f"the store of it is {locator.at('')}"
        )
    emit = options.on_event
    hub = Hub(token=_hub_token(options.token), transport=transport, emit=emit)
    closing.callback(hub.close)
    cas = HttpCas(hub.cas_url(locator), tokens=hub.tokens(locator), transport=transport, emit=emit)
    closing.callback(cas.close)
    return Opened(cas, str(locator), hub=hub, repository=locator)


def _add_cache(opened: Opened, folder: Path, emit: Emit, closing: ExitStack) -> None:
    from xetstore.remote.http import HttpCas
    from xetstore.transfer.download.reuse.chunk_cache import ChunkCache
    from xetstore.transfer.upload.known import KnownXorbs

    assert isinstance(opened.cas, HttpCas)
    opened.cache = ChunkCache(chunks_folder(folder), emit=emit)
    closing.callback(opened.cache.close)
    known = known_file(folder, opened.cas.url, emit)
    if known is not None:
        opened.known = KnownXorbs(known, emit=emit)
        closing.callback(opened.known.close)


def _server_url(text: str) -> str:
    """The URL as it may be shown. Raises UsageError for one that holds a secret, or is no server's."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if not host:
        raise UsageError("the URL of the store names no host", hint=_HINT)
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"the URL of the store at {host} holds a name or a password",
            hint="give a token instead: XET_TOKEN, XET_TOKEN_FILE, or the argument token",
        )
    if parts.query or parts.fragment:
        raise UsageError(f"the URL of the store at {host} has a query", hint="leave out what follows the path")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _tokens(token: GivenToken, emit: Emit) -> TokenSource | None:
    from xetstore.remote.tokens import CallbackTokens, FixedToken, token_from_environment

    if token is None:
        return token_from_environment()
    if isinstance(token, str):
        return FixedToken(token)
    return CallbackTokens(token, emit=emit) if callable(token) else token


def _hub_token(token: GivenToken) -> str | None:
    """The user's own token at the Hub, with which the Hub gives those for the server."""
    if token is None or isinstance(token, str):
        return token
    if callable(token):
        raise UsageError(
            "a Hub gives the tokens for its repositories itself", hint="give your token at the Hub, a text"
        )
    held = token.token(write=False)
    return None if held is None else held.secret.reveal()
