"""Hub: the names of a Hub's repositories as Xet files, and the tokens for the store in which these lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urljoin

from xetstore.cancellation import Cancellation
from xetstore.errors import FormatError, NotFoundError, UsageError
from xetstore.events import Emit, ignore
from xetstore.platform import forks
from xetstore.protocol.hashes import Hash
from xetstore.records import RepoFile
from xetstore.remote.hub.answers import (
    entries_of,
    error_of,
    hash_of,
    link,
    same_origin,
    size_of,
    token_of,
)
from xetstore.remote.hub.locators import HubLocator
from xetstore.remote.hub.settings import checked_endpoint, hub_endpoint, hub_token
from xetstore.remote.redirects import STATUSES, Redirects, follow
from xetstore.remote.retry import retrying
from xetstore.remote.tokens import RenewedTokens, Secret, Token
from xetstore.remote.transport import Transport

if TYPE_CHECKING:
    from xetstore.remote.transport import Answer

__all__ = ["Hub", "HubFile"]

T = TypeVar("T")

MAX_PAGE_BYTES: Final = 16 << 20
MAX_TOKEN_BYTES: Final = 1 << 20
MAX_PAGES: Final = 10_000
MAX_EMPTY_PAGES: Final = 10
MAX_LINK_CHARS: Final = 8192
STREAM_BYTES: Final = 1 << 20


def _within_the_hub(answer: Answer, url: str) -> str | None:
    """The target of a redirect that stays at the Hub, unless the answer itself names the file."""
    location = answer.headers.get("location")
    if answer.status not in STATUSES or not location or hash_of(answer.headers) is not None:
        return None
    return same_origin(location, url)


_WITHIN_THE_HUB: Final = Redirects(
    5, _within_the_hub, UsageError, "check HF_ENDPOINT, and whether something before the Hub answers for it"
)


def _anywhere(answer: Answer, url: str) -> str | None:
    """The target of any redirect, if it may be asked: not from https to http."""
    location = answer.headers.get("location")
    if answer.status not in STATUSES or not location:
        return None
    target = urljoin(url, location)
    return target if target.startswith("https://") or url.startswith("http://") else None


_ANYWHERE: Final = Redirects(5, _anywhere, UsageError, "check HF_ENDPOINT, and what is between here and the Hub")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository as Xet has it. ``size`` is bytes, None where the Hub does not say."""

    hash: Hash
    size: int | None
    locator: HubLocator


class Hub:
    """One Hub's API. Thread-safe.

    ``endpoint`` is its URL, by default HF_ENDPOINT or the public Hub; ``token`` a token of the Hub, empty for none, by
    default the one that its own clients would use. The token goes to the origin of ``endpoint`` and nowhere else.
    """

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        token: str | None = None,
        transport: Transport | None = None,
        emit: Emit = ignore,
        allow_http: bool = False,
    ) -> None:
        self.endpoint = checked_endpoint(hub_endpoint() if endpoint is None else endpoint)
        self._secret = hub_token() if token is None else Secret(token) if token else None
        self._own_transport = transport is None
        self._transport = transport or Transport(allow_http=allow_http)
        self._emit = emit
        self._begin()
        forks.renew(self, Hub._begin)
        self._guard = forks.lock()
        self._tokens: dict[HubLocator, RouteTokens] = {}
        self._read_routes: dict[HubLocator, str] = {}

    def _begin(self) -> None:
        """Have no call under way. In a child those of its parent have ended."""
        self._cancellation = Cancellation()

    def resolve(self, locator: HubLocator) -> HubFile:
        """Which file a name stands for. The redirect to its bytes is not followed: a renamed repository's is.

        Raises NotFoundError, AccessDeniedError, and UsageError for a file that Xet does not store.
        """
        if not locator.path:
            raise UsageError(
                f"{locator} names a repository, not a file of it",
                hint="add the path of a file; where the repository's name has one part, add its revision too: "
                "hf://models/gpt2@main/config.json",
            )
        url = self.endpoint + locator.resolve_route
        status, headers = self._call(
            "HEAD", url, locator, "find the file", lambda answer: (answer.status, answer.headers)
        )
        file = hash_of(headers)
        if file is None:
            raise UsageError(
                f"{locator} is not stored by Xet", hint=f"it is an ordinary file, which any HTTP client gets from {url}"
            )
        self._learn_route(locator, headers)
        return HubFile(file, size_of(headers, whole=status == 200), locator)

    def tokens(self, locator: HubLocator) -> RouteTokens:
        """The tokens for the store of a repository or bucket, at the locator's revision; each is asked for when it is
        needed, so a read token only until something is to be written.
        """
        root = locator.at("")
        with self._guard:
            if root not in self._tokens:
                self._tokens[root] = RouteTokens(self, root, emit=self._emit)
            return self._tokens[root]

    def new_token(self, root: HubLocator, scope: str) -> Token:
        """Ask the token route of a repository for a token of this scope."""
        with self._guard:
            learnt = self._read_routes.get(root) if scope == "read" else None
        body, headers = self._get(
            learnt or self.endpoint + root.token_route(scope), root, f"give a {scope} token", MAX_TOKEN_BYTES
        )
        try:
            return token_of(headers, body)
        except FormatError as error:
            error.hint = "a login page or the like may be in between: try again, then check HF_ENDPOINT"
            raise

    def cas_url(self, locator: HubLocator) -> str:
        """The URL of the store in which a repository's files lie; it comes with a read token."""
        token = self.tokens(locator).under(self._cancellation).token(write=False)
        if token is None or token.cas_url is None:
            raise FormatError("hub.cas_url", 0, f"the Hub names no CAS URL for {locator.root_name}")
        return token.cas_url

    def tree(self, locator: HubLocator, recursive: bool = False, *, dates: bool = False) -> Iterator[RepoFile]:
        """The entries of a folder, or the one of a file; with all that is below it if ``recursive``; with ``dates``
        each has that of its last change.

        Raises NotFoundError where there is no such folder or file.
        """
        is_there = False
        for route in self._tree_routes(locator):
            asked = f"{route}?recursive={str(recursive).lower()}{'&expand=true' if dates else ''}"
            for entry in self.pages(asked, locator, "list a folder", entries_of):
                if not locator.path or entry.path == locator.path or entry.path.startswith(f"{locator.path}/"):
                    is_there = True
                    yield entry
            if is_there:
                return
        if locator.path:
            raise NotFoundError(f"the repository {locator.root_name} has no {locator.path!r}")

    def under(self, cancellation: Cancellation) -> Hub:
        """The same Hub, connections and tokens, for calls that end with ``cancellation``."""
        hub = copy(self)
        hub._cancellation = cancellation
        return hub

    def close(self) -> None:
        """End the calls under way, and let go of the connections unless they were given."""
        self._cancellation.cancel()
        self._begin()
        if self._own_transport:
            self._transport.close()

    def _tree_routes(self, locator: HubLocator) -> list[str]:
        if locator.kind != "buckets" or not locator.path:
            return [locator.tree_route]
        # A bucket lists what begins with a text: first what is in a folder of this name, else a file of this name.
        return [locator.tree_route, locator.tree_route.removesuffix("%2F")]

    def pages(self, route: str, locator: HubLocator, what: str, parse: Callable[[bytes], list[T]]) -> Iterator[T]:
        """The items of a listing, page by page. Raises FormatError for one that does not end."""
        first = self.endpoint + route
        asked: set[str] = set()
        url: str | None = first
        empty = 0
        while url is not None:
            asked.add(url)
            body, headers = self._get(url, locator, what, MAX_PAGE_BYTES)
            entries = parse(body)
            yield from entries
            empty = 0 if entries else empty + 1
            following = link(headers, "next")
            url = None if following is None else same_origin(following, url)
            if following is not None and (url is None or url in asked):
                raise FormatError("hub.tree", 0, "the Hub's listing goes on at another origin, or in a circle")
            if url is not None and (len(asked) >= MAX_PAGES or empty >= MAX_EMPTY_PAGES or len(url) > MAX_LINK_CHARS):
                raise FormatError("hub.tree", 0, "the Hub's listing goes on and on")

    def _learn_route(self, locator: HubLocator, headers: Mapping[str, str]) -> None:
        """Keep the token route that came with a file: a token is bound to a commit (auth), and a branch moves on."""
        route = link(headers, "xet-auth") or headers.get("x-xet-refresh-route")
        url = same_origin(route, self.endpoint) if route else None
        if url is None:
            return
        root = locator.at("")
        with self._guard:
            before = self._read_routes.get(root)
            self._read_routes[root] = url
            tokens = self._tokens.get(root)
        if tokens is not None and before != url:
            tokens.forget()

    def ask(
        self,
        method: str,
        route: str,
        locator: HubLocator,
        what: str,
        *,
        body: bytes | None = None,
        content_type: str = "application/json",
        limit: int = MAX_PAGE_BYTES,
    ) -> bytes:
        """The body of the answer to a call of the API, at most ``limit`` bytes; ``what`` is "find the file".

        A call that may have been lost is made again.
        """

        def read(answer: Answer) -> bytes:
            return answer.read(limit)

        return self._call(method, self.endpoint + route, locator, what, read, body=body, content_type=content_type)

    def stream(self, locator: HubLocator) -> Iterator[bytes]:
        """The bytes of a file as the Hub itself sends them, from wherever it redirects to. Not verified."""
        with self.retrying(f"GET {locator.resolve_route}", lambda: self._begin_stream(locator)) as answer:
            buffer = memoryview(bytearray(STREAM_BYTES))
            while count := answer.readinto(buffer):
                yield bytes(buffer[:count])

    def retrying(self, name: str, work: Callable[[], T]) -> T:
        """Do ``work``, again where it failed with an error that may pass."""
        patience = self._transport.patience
        return retrying(name, work, patience=patience, cancellation=self._cancellation, emit=self._emit)

    def _begin_stream(self, locator: HubLocator) -> Answer:
        secrets = () if self._secret is None else (self._secret.reveal(),)

        def ask(url: str) -> Answer:
            is_here = same_origin(url, self.endpoint) is not None
            headers = {"Authorization": f"Bearer {secrets[0]}"} if secrets and is_here else {}
            return self._transport.request("GET", url, headers=headers, cancellation=self._cancellation)

        answer = follow(self.endpoint + locator.resolve_route, ask, _ANYWHERE)
        if answer.status != 200:
            raise error_of(answer, locator, "send the file", secrets)
        return answer

    def _get(self, url: str, locator: HubLocator, what: str, limit: int) -> tuple[bytes, Mapping[str, str]]:
        return self._call("GET", url, locator, what, lambda answer: (answer.read(limit), answer.headers))

    def _call(
        self,
        method: str,
        url: str,
        locator: HubLocator,
        what: str,
        answered: Callable[[Answer], T],
        *,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> T:
        """Ask, with the token, until there is an answer that is no redirect within the Hub; raise what it stands for
        if it is an error. A redirect to elsewhere is the answer to a HEAD.
        """
        cancellation = self._cancellation
        headers: dict[str, str] = {} if body is None else {"Content-Type": content_type}
        secrets: tuple[str, ...] = ()
        if self._secret is not None:
            secrets = (self._secret.reveal(),)
            headers["Authorization"] = f"Bearer {self._secret.reveal()}"

        def ask(url: str) -> Answer:
            return self._transport.request(method, url, headers=headers, body=body, cancellation=cancellation)

        def once() -> T:
            with follow(url, ask, _WITHIN_THE_HUB) as answer:
                if answer.is_success or (answer.status in STATUSES and method == "HEAD"):
                    return answered(answer)
                raise error_of(answer, locator, what, secrets)

        name = f"{method} {url.removeprefix(self.endpoint).partition('?')[0]}"
        return self.retrying(name, once)


class RouteTokens(RenewedTokens):
    """Tokens for one repository and revision from a Hub's token routes."""

    def __init__(self, hub: Hub, root: HubLocator, *, emit: Emit = ignore) -> None:
        super().__init__(emit=emit)
        self._hub = hub
        self._root = root

    def under(self, cancellation: Cancellation) -> RouteTokens:
        """The same tokens, held together, for calls that end with ``cancellation``: so does asking for one."""
        tokens = copy(self)
        tokens._hub = self._hub.under(cancellation)
        return tokens

    def obtain(self, scope: str) -> Token:
        """Ask the route."""
        return self._hub.new_token(self._root, scope)
