"""The stores that a filesystem reads from, opened once in every process, and their errors as those of a filesystem."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from xetstore.cancellation import Cancellation
from xetstore.errors import AccessDeniedError, IntegrityError, NotFoundError, TimedOutError, UsageError, XetError
from xetstore.events import ignore
from xetstore.limits import NO_LIMITS, Limits
from xetstore.opening import HUB_SCHEME, open_hub, scheme_of
from xetstore.platform import forks
from xetstore.remote.hub.locators import HubLocator
from xetstore.remote.hub.settings import hub_endpoint
from xetstore.store import Store, open_store

if TYPE_CHECKING:
    from xetstore.opening import GivenToken
    from xetstore.remote.hub.client import Hub
    from xetstore.repositories.repository import Repository

STORE_VARIABLE: Final = "XET_STORE"

T = TypeVar("T")


class StoreError(OSError):
    """A XetError as callers of a filesystem expect it. The XetError is its cause."""


class DamagedFileError(StoreError):
    """Bytes do not match their hash. Nothing of them was delivered."""


def os_error_of(error: XetError, path: str) -> OSError:
    """The same sentence, with its hint, as the kind of OSError that callers look for."""
    text = f"{error} ({error.hint})" if error.hint else str(error)
    if isinstance(error, NotFoundError):
        return FileNotFoundError(errno.ENOENT, text, path)
    if isinstance(error, AccessDeniedError):
        return PermissionError(errno.EACCES, text, path)
    if isinstance(error, TimedOutError):
        return TimeoutError(errno.ETIMEDOUT, text, path)
    if isinstance(error, IntegrityError):
        return DamagedFileError(errno.EIO, text, path)
    return StoreError(errno.EINVAL if isinstance(error, UsageError) else errno.EIO, text, path)


@contextmanager
def os_errors(path: str) -> Iterator[None]:
    """XetErrors raised within are raised as OSErrors."""
    try:
        yield
    except XetError as error:
        raise os_error_of(error, path) from error


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """The options of a filesystem; see :class:`xetstore.fs.XetFileSystem`."""

    store: str | None = None
    token: GivenToken = None
    cache: Path | bool | None = None
    allow_http: bool = False
    limits: Limits = NO_LIMITS


class Stores:
    """The stores of one filesystem, each opened when it is first read from. Thread-safe, and safe in a forked process.

    A token belongs to the store that is named, if that is a server's or a repository; else to the Hub. It is never
    given to both.
    """

    def __init__(self, options: StoreOptions) -> None:
        self._options = options
        self._guard = forks.lock()
        self._by_name: dict[str, Any] = {}
        self._begin()
        forks.renew(self, Stores._begin)

    def _begin(self) -> None:
        """Have no call to the Hub under way. In a child those of its parent have ended."""
        self._calls = Cancellation()

    def named(self) -> Store:
        """The store of the paths that begin with a hash."""
        where = self._named()
        if where is None:
            raise UsageError(
                "no store is named to find a hash in",
                hint=f"give the option store, or set {STORE_VARIABLE}: a directory, a store file, the URL of a server",
            )
        token = self._options.token if scheme_of(where) else None
        return self._opened(where, lambda: self._open(where, token))

    def repository(self, locator: HubLocator) -> Store:
        """The store in which the files of a repository lie, at the locator's revision."""
        where = str(locator.at(""))
        return self._opened(where, lambda: self._open(where, self._hub_token()))

    @property
    def has_names(self) -> bool:
        """True if names of repositories are those of the store that is named; else they are the Hub's."""
        named = self._named()
        return named is not None and scheme_of(named) != "hf"

    def repo(self, locator: HubLocator) -> Repository:
        """The repository that a locator names, in the store that is named, else on the Hub."""
        if self.has_names:
            return self.named().repo(locator.id)
        where = hub_endpoint()
        return self._opened(f"names of {where}", lambda: self._open(where, self._hub_token())).repo(locator.id)

    def hub(self) -> Hub:
        """The Hub that names the files, for calls that :meth:`interrupt` ends."""
        hub = self._opened(
            HUB_SCHEME,
            lambda: open_hub(token=self._hub_token(), allow_http=self._options.allow_http, emit=ignore),
        )
        return hub.under(self._calls)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Let reads under way fail soon where Ctrl-C, or anything that is no error, ends the block."""
        try:
            yield
        except Exception:
            raise
        except BaseException:
            self.interrupt()
            raise

    def interrupt(self) -> None:
        """Let reads under way fail soon."""
        calls, self._calls = self._calls, Cancellation()
        calls.cancel()
        for name, opened in list(self._by_name.items()):
            if name != HUB_SCHEME:
                opened.interrupt()

    def close(self) -> None:
        """Close what this process has opened; it is opened again if it is needed."""
        with self._guard:
            opened, self._by_name = list(self._by_name.values()), {}
        for one in opened:
            one.close()

    def _opened(self, name: str, opener: Callable[[], T]) -> T:
        """Open the thing that a name stands for, once; it is always of the same kind."""
        with self._guard:
            if name not in self._by_name:
                self._by_name[name] = opener()
            found: T = self._by_name[name]
            return found

    def _open(self, where: str, token: GivenToken) -> Store:
        given = self._options
        return open_store(
            where, create=False, token=token, limits=given.limits, cache=given.cache, allow_http=given.allow_http
        )

    def _named(self) -> str | None:
        return self._options.store or os.environ.get(STORE_VARIABLE) or None

    def _hub_token(self) -> GivenToken:
        named = self._named()
        return None if named is not None and scheme_of(named) in ("http", "https") else self._options.token
