"""Opening a store: a directory, a store file, the URL of a server, or a repository on a Hub, with its cache and tokens;
and the names of its repositories.

Nothing is imported that the kind at hand does not need: who talks to a server loads no database, and who opens a
directory or a store file no HTTP.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar
from urllib.parse import urlsplit

from xetstore.errors import NotPicklableError, RevisionNotFoundError, UsageError, WrongTypeError
from xetstore.limits import NO_LIMITS, Limits
from xetstore.platform import forks
from xetstore.silence import ignore

if TYPE_CHECKING:
    from xetstore.cas.index import Reader
    from xetstore.cas.service import EmbeddedCas
    from xetstore.events import Emit
    from xetstore.hub.local import LocalNames
    from xetstore.interfaces import Cas, Names
    from xetstore.protocol.hashes import Hash
    from xetstore.records import RepositoryId
    from xetstore.remote.hub.client import Hub
    from xetstore.remote.hub.locators import HubLocator
    from xetstore.remote.hub.names import HttpNames
    from xetstore.remote.tokens import TokenCallback, TokenSource
    from xetstore.remote.transport import Transport
    from xetstore.transfer.download.reuse.chunk_cache import ChunkCache
    from xetstore.transfer.upload.known import KnownXorbs
    from xetstore.transfer.upload.remembered import RememberedFiles

    GivenToken: TypeAlias = str | TokenCallback | TokenSource | None

HUB_SCHEME: Final = "hf://"
ALLOW_HTTP_VARIABLE: Final = "XET_ALLOW_HTTP"
DEFAULT_REVISION: Final = "main"
MOST_OPEN: Final = 256
"""Repositories of a store whose files are open at a time."""

N = TypeVar("N", bound="Names")

_HINT: Final = (
    "a store is a directory, a store file, the http:// or https:// URL of a server, or hf://models/NAMESPACE/NAME"
)
# A host with a port, or a scheme whose slashes are not all there. One letter is a drive of Windows.
_ADDRESS: Final = re.compile(r"https?:|(?:[A-Za-z0-9-][A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}(?:/|$)")
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

    def __post_init__(self) -> None:
        if not isinstance(self.limits, Limits):
            raise WrongTypeError.of("limits", self.limits, "an xetstore.Limits")
        if not (
            self.token is None or isinstance(self.token, str) or callable(self.token) or hasattr(self.token, "renew")
        ):
            raise WrongTypeError.of("token", self.token, "a text, a function that gives one, or None")
        if not isinstance(self.cache, Path | bool | None):
            raise WrongTypeError.of("cache", self.cache, "a folder, False for none, or None")
        if not callable(self.on_event):
            raise WrongTypeError.of("on_event", self.on_event, "a function of an event")


@dataclass(slots=True)
class Opened:
    """A Cas, and all that a store needs beside it. ``location`` says where it is, and holds no secret. ``remembered``
    opens what this machine remembers of files, to be closed by the caller; None where there is no cache.
    """

    cas: Cas
    location: str
    is_local: bool = False
    cache: ChunkCache | None = None
    known: KnownXorbs | None = None
    hub: Hub | None = None
    repository: HubLocator | None = None
    repositories: OpenedNames | None = None
    remembered: Callable[[], RememberedFiles | None] = lambda: None
    closing: ExitStack = field(default_factory=ExitStack)


class OpenedNames:
    """The names of a store, and the files of each of its repositories, opened where they are first asked for.

    Thread-safe. What is opened is closed with the store. Files that are not ``kept`` are opened each time: they cost
    nothing, and another process may have deleted a repository and made one of the same name.
    """

    def __init__(
        self,
        open_names: Callable[[], N],
        open_files: Callable[[N, RepositoryId, str], Opened],
        *,
        kept: bool,
    ) -> None:
        self._open_names: Callable[[], Any] = open_names
        self._open_files: Callable[[Any, RepositoryId, str], Opened] = open_files
        self._kept = kept
        self.closing = ExitStack()
        self._guard = forks.rlock()
        self._names: Names | None = None
        self._files: dict[tuple[RepositoryId, str], Opened] = {}

    def names(self) -> Names:
        """The names."""
        with self._guard:
            if self._names is None:
                self._names = self._open_names()
            return self._names

    def files(self, repo: RepositoryId, revision: str) -> Opened:
        """The files of a repository. Its tokens are for its branch main, or for ``revision`` where it has no such."""
        if not self._kept:
            return self._open_files(self.names(), repo, revision)
        with self._guard:
            for one in (DEFAULT_REVISION, revision):
                if (repo, one) in self._files:
                    return self._files[repo, one]
            try:
                opened, used = self._open_files(self.names(), repo, DEFAULT_REVISION), DEFAULT_REVISION
            except RevisionNotFoundError:
                opened, used = self._open_files(self.names(), repo, revision), revision
            if len(self._files) >= MOST_OPEN:
                self._files.pop(next(iter(self._files)))
            self._files[repo, used] = opened
            return opened

    def forget(self, repo: RepositoryId) -> None:
        """Forget a repository that is gone or has another name: a later one of this name is another one."""
        with self._guard:
            for key in [key for key in self._files if key[0] == repo]:
                opened = self._files.pop(key)
                if opened.hub is not None and opened.repository is not None:
                    opened.hub.tokens(opened.repository).forget()


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
        import pickle

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


def refuse_address(text: str) -> None:
    """Raise UsageError for the address of a server without its scheme, which would be a new directory; not for one
    that is there.
    """
    if not scheme_of(text) and _ADDRESS.match(text) and not os.path.lexists(text):
        address = re.sub(r"^https?:/*", "", text)
        raise UsageError(
            f"{text[:200]!r} looks like a server, and does not begin with http:// or https://",
            hint=f"do you mean http://{address[:200]}? A directory of that name is ./{text[:200]}",
        )


def open_cas(where: Path | str, options: OpenOptions) -> Opened:
    """Open the store that ``where`` names; see :func:`xetstore.store.open_store`."""
    opened = _open(where, options)
    opened.remembered = lambda: _remembered(options)
    return opened


def _open(where: Path | str, options: OpenOptions) -> Opened:
    scheme = scheme_of(where)
    if not scheme:
        return _open_here(Path(where), options)
    if scheme not in ("http", "https", "hf"):
        raise UsageError(f"{scheme}:// is no kind of store", hint=_PARTS_HINT if scheme in _PARTS else _HINT)
    limits, emit = options.limits, options.on_event
    from xetstore.cache_folder import cache_folder

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
        kept = None if folder is None else _Kept(folder, emit)
        if kept is not None:
            closing.callback(kept.close)
        if scheme == "hf":
            opened = _open_repository(str(where), options, transport, closing)
        else:
            url = _server_url(str(where))
            opened = Opened(HttpCas(url, tokens=_tokens(options.token, emit), transport=transport, emit=emit), url)
            closing.callback(opened.cas.close)
            opened.repositories = _names_of_server(url, options, transport, kept)
        if kept is not None:
            kept.add_to(opened)
        opened.closing = closing.pop_all()
        if opened.repositories is not None:
            opened.repositories.closing = opened.closing
    return opened


def _remembered(options: OpenOptions) -> RememberedFiles | None:
    from xetstore.cache_folder import cache_folder, remembered_file

    folder = cache_folder(options.cache, options.on_event)
    if folder is None:
        return None
    from xetstore.transfer.upload.remembered import RememberedFiles

    return RememberedFiles(remembered_file(folder), emit=options.on_event)


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
    cas.deletion_guard = deletion_guard
    opened = Opened(cas, str(path), is_local=True)
    opened.closing.callback(cas.close)
    opened.repositories = names_here(cas, str(path))
    return opened


def deletion_guard(reader: Reader, namespace: str, files: Collection[Hash]) -> None:
    """Refuse to delete by its hash what a repository names; loads the names where it is asked first."""
    from xetstore.hub.deletion_guard import guard_named

    guard_named(reader, namespace, files)


def names_here(cas: EmbeddedCas, location: str) -> OpenedNames:
    """The names of a store in this process, for its opener, who may do everything."""

    def open_names() -> LocalNames:
        from xetstore.hub.local import LocalNames
        from xetstore.hub.service import EmbeddedHub

        return LocalNames(EmbeddedHub(cas), location)

    def open_files(names: LocalNames, repo: RepositoryId, _: str) -> Opened:
        return Opened(names.cas_of(repo), location, is_local=True)

    return OpenedNames(open_names, open_files, kept=False)


def _names_of_server(url: str, options: OpenOptions, transport: Transport, kept: _Kept | None) -> OpenedNames:
    """The names of a server that speaks the Hub's API, ours or any other."""
    emit = options.on_event

    def open_names() -> HttpNames:
        from xetstore.remote.hub.client import Hub
        from xetstore.remote.hub.locators import STORE_SCHEME
        from xetstore.remote.hub.names import HttpNames
        from xetstore.remote.hub.settings import hub_endpoint
        from xetstore.remote.network import origin_of

        hub = Hub(endpoint=url, token=_server_token(url, options.token), transport=transport, emit=emit)
        repositories.closing.callback(hub.close)
        is_hub = origin_of(url) == origin_of(hub_endpoint())
        return HttpNames(hub, HUB_SCHEME if is_hub else STORE_SCHEME)  # as its names are told of to users

    def open_files(names: HttpNames, repo: RepositoryId, revision: str) -> Opened:
        from xetstore.remote.http import HttpCas

        locator = names.locator(repo, revision)
        hub = names.hub
        cas = HttpCas(hub.cas_url(locator), tokens=hub.tokens(locator), transport=transport, emit=emit)
        repositories.closing.callback(cas.close)
        opened = Opened(cas, str(locator), hub=hub, repository=locator)
        if kept is not None:
            kept.add_to(opened)
        return opened

    repositories = OpenedNames(open_names, open_files, kept=True)
    return repositories


def _server_token(url: str, token: GivenToken) -> str | None:
    """The token for the names of a server: the one that is given, else that of the Hub if it is this one, else
    XET_TOKEN. None for a Hub that uses its own; a token of the Hub goes to no other server.
    """
    from xetstore.remote.hub.settings import hub_endpoint, hub_token
    from xetstore.remote.network import origin_of
    from xetstore.remote.tokens import token_from_environment

    if token is None and origin_of(url) == origin_of(hub_endpoint()) and hub_token() is not None:
        return None
    if token is not None:
        return _hub_token(token)
    source = token_from_environment()
    held = None if source is None else source.token(write=False)
    return "" if held is None else held.secret.reveal()


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
    opened = Opened(cas, str(locator), hub=hub, repository=locator)
    opened.repositories = _names_of_server(hub.endpoint, options, transport, None)
    return opened


class _Kept:
    """The chunk cache of a store, and what this machine knows of its servers: one each for all its repositories."""

    def __init__(self, folder: Path, emit: Emit) -> None:
        from xetstore.cache_folder import chunks_folder
        from xetstore.transfer.download.reuse.chunk_cache import ChunkCache

        self._folder = folder
        self._emit = emit
        self._cache = ChunkCache(chunks_folder(folder), emit=emit)
        self._known: dict[str, KnownXorbs] = {}

    def add_to(self, opened: Opened) -> None:
        """Let what was opened use it. By one thread at a time."""
        from xetstore.cache_folder import known_file
        from xetstore.remote.http import HttpCas
        from xetstore.transfer.upload.known import KnownXorbs

        assert isinstance(opened.cas, HttpCas)
        opened.cache = self._cache
        url = opened.cas.url
        if url not in self._known:
            path = known_file(self._folder, url, self._emit)
            if path is None:
                return
            self._known[url] = KnownXorbs(path, emit=self._emit)
        opened.known = self._known[url]

    def close(self) -> None:
        """Let go of the files."""
        self._cache.close()
        for known in self._known.values():
            known.close()


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
