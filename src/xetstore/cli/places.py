"""Places: repositories that arguments name, ``xet://`` in the store of the options and ``hf://`` on the Hub."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from xetstore.cli.context import Settings
from xetstore.cli.interruption import interruptible
from xetstore.errors import UsageError

if TYPE_CHECKING:
    from xetstore.remote.hub.locators import HubLocator
    from xetstore.repositories.repository import Repository
    from xetstore.store import Store

SCHEMES = ("xet://", "hf://")
EXAMPLE = "for example xet://alice/bert@main/config.json"

_OWNER = re.compile(r"[\w.-]*")


def is_locator(text: str) -> bool:
    """True if an argument names a repository, or something in one."""
    return text.startswith(SCHEMES)


def is_like_a_name(text: str) -> bool:
    """True if a text could be OWNER/NAME with something behind it, and its scheme was left out."""
    return re.match(r"[\w.-]*\w[\w.-]*/[\w.-]*\w", text) is not None


def parse_locator(text: str) -> HubLocator:
    """An argument's type: a repository, or a file or folder of one, at a revision."""
    from xetstore.remote.hub.locators import HubLocator

    if not is_locator(text):
        like = f"do you mean xet://{text[:200]}?" if is_like_a_name(text) else EXAMPLE
        raise UsageError(f"{text[:200]!r} names no repository", hint=like)
    try:
        return HubLocator.parse(text)
    except UsageError as error:
        owner = text.partition("://")[2]
        if _OWNER.fullmatch(owner):
            listing = f"xet repo list {owner}".rstrip()
            error.hint = f"{error.hint}; {listing} lists {'those of this owner' if owner else 'what is there'}"
        raise


def parse_branch(text: str) -> HubLocator:
    """An argument's type: a repository at a revision, without a path; ``alice/bert@v1`` will do."""
    locator = parse_locator(f"xet://{text}" if not is_locator(text) and is_like_a_name(text) else text)
    if locator.path:
        raise UsageError(f"{text[:200]!r} has a path", hint=f"name the repository: {locator.at('')}")
    return locator


def parse_repository(text: str) -> HubLocator:
    """An argument's type: a repository by its name alone, ``alice/bert``, or with ``xet://`` or ``hf://``."""
    from xetstore.remote.hub.locators import HubLocator

    if not is_locator(text) and not is_like_a_name(text):
        raise UsageError(f"{text[:200]!r} names no repository", hint="for example alice/bert, or datasets/alice/news")
    locator = HubLocator.parse(text if is_locator(text) else f"xet://{text}")
    if locator.path or "@" in text:
        raise UsageError(f"{text[:200]!r} is more than a repository", hint="leave out revision and path")
    return locator


def revision_of(locator: HubLocator) -> str:
    """The revision of a locator. Raises UsageError for a bucket, which has none."""
    if locator.revision is None:
        raise UsageError(f"{locator} is a bucket, which has no revisions", hint="hf buckets and hf sync move its files")
    return locator.revision


class Places:
    """The stores that a command's arguments lead to, each opened once. A context manager, which closes them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened = ExitStack()
        self._stores: dict[str, Store] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.close()

    def store(self, locator: HubLocator, *, create: bool = False) -> Store:
        """The store that a locator's repository is in; ``create`` makes a directory that is none yet."""
        if locator.scheme not in self._stores:
            if locator.scheme == "hf://":
                from xetstore.remote.hub.settings import hub_endpoint
                from xetstore.store import open_store

                store = interruptible(open_store(hub_endpoint(), **self._settings.opening(locator.scheme)))
            else:
                store = self._settings.open_store(create=create)
            self._stores[locator.scheme] = self._opened.enter_context(store)
        return self._stores[locator.scheme]

    def repository(self, locator: HubLocator, *, create: bool = False) -> Repository:
        """The repository that a locator names; it may not be there."""
        return self.store(locator, create=create).repo(locator.id)


def shown(locator: HubLocator, path: str) -> str:
    """A path of a repository as it is named on the command line."""
    return f"{str(locator.at('')).rstrip('/')}/{path}"
