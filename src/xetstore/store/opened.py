"""Opening a store for users: by its place, or by the locator of a file in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xetstore.errors import UsageError, WrongTypeError
from xetstore.limits import NO_LIMITS, Limits
from xetstore.opening import HUB_SCHEME, OpenOptions, Reopening, open_cas, refuse_address, scheme_of
from xetstore.platform.homes import local_path
from xetstore.silence import ignore
from xetstore.store.store import Store

if TYPE_CHECKING:
    from xetstore.events import Emit
    from xetstore.opening import GivenToken
    from xetstore.protocol.hashes import Hash


def open_store(
    where: Path | str,
    *,
    create: bool = True,
    token: GivenToken = None,
    limits: Limits = NO_LIMITS,
    cache: Path | str | bool | None = None,
    allow_http: bool = False,
    on_event: Emit = ignore,
) -> Store:
    """Open a store: a directory, a store file, the URL of a server, or a repository on a Hub.

    A store file is a file, or ends in ``.toml``; it names the parts of the store. What a directory or such a file names
    is made if nothing is there and ``create`` allows. The other arguments are for what is reached over a
    network: ``token`` is a text, or a function that is called with ``"read"`` or ``"write"`` and returns a token and
    the unix seconds at which it expires (or None), or None for what XET_TOKEN or XET_TOKEN_FILE give; for
    ``hf://`` it is the user's token at the Hub. ``cache`` is a folder, False for none, else XET_CACHE or the user's
    cache folder. Plain http is spoken with this machine only, unless ``allow_http`` or XET_ALLOW_HTTP says otherwise.
    ``on_event`` gets the events of :mod:`xetstore.events`.

    Raises NotFoundError (missing, or not a store), AccessDeniedError, and UsageError for a newer format, for a token
    where none belongs, and for what names no store; for a repository what the Hub answers.
    """
    if isinstance(where, str):
        refuse_address(where)
    place = where if scheme_of(where) else local_path(where, "a store")
    folder = local_path(cache, "cache") if isinstance(cache, str) else cache
    options = OpenOptions(
        create=create, token=token, limits=limits, cache=folder, allow_http=allow_http, on_event=on_event
    )
    opened = open_cas(place, options)
    store = Store(opened, limits=limits, on_event=on_event)
    store._reopening = Reopening.of(opened, options)
    return store


def open_locator(
    locator: str,
    *,
    token: GivenToken = None,
    limits: Limits = NO_LIMITS,
    cache: Path | str | bool | None = None,
    allow_http: bool = False,
    on_event: Emit = ignore,
) -> tuple[Store, Hash]:
    """The store that an ``hf://`` locator of a file is in, to be closed by the caller, and the hash of the file."""
    if not isinstance(locator, str):
        raise WrongTypeError.of("a locator", locator, "a text such as hf://models/openai/whisper-tiny/config.json")
    if not locator.startswith(HUB_SCHEME):
        raise UsageError(f"{locator[:200]!r} does not start with {HUB_SCHEME}")
    from xetstore.remote.hub.locators import HubLocator

    parsed = HubLocator.parse(locator)
    if not parsed.path:
        raise UsageError(f"{locator[:200]} is a repository, and no file", hint=f"for example {locator[:200]}/FILE")
    store = open_store(
        str(parsed.at("")), token=token, limits=limits, cache=cache, allow_http=allow_http, on_event=on_event
    )
    try:
        return store, store.resolve(locator)
    except BaseException:
        store.close()
        raise
