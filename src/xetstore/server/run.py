"""Running a server: the store, its first token, and the application over it, from start to stop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from xetstore.access.admin_token import ADMIN_TOKEN, provide_admin_token
from xetstore.access.keys import KeyRing
from xetstore.access.signed_urls import UrlSigner
from xetstore.access.tokens import TokenAuthority
from xetstore.cas.assembly import secrets_file
from xetstore.cas.parts import StoreParts
from xetstore.cas.service import EmbeddedCas
from xetstore.server.app import create_app
from xetstore.server.http.lifecycle import make_server
from xetstore.server.http.sockets import connections_within_descriptors, listen, tls_context, url_of
from xetstore.server.ops.connection_limit import ConnectionLimit
from xetstore.server.ops.limits import ServerLimits
from xetstore.server.ops.logs import logging_to
from xetstore.server.ops.metrics import Metrics
from xetstore.server.settings import ServerSettings
from xetstore.server.site import Site

_log = logging.getLogger("xetstore.server")


@dataclass(frozen=True)
class Started:
    """A server that accepts connections at ``url``. ``token_file`` holds a token for its admin; None without tokens,
    and where that is in the database of the store.
    """

    url: str
    store: StoreParts
    asks_for_tokens: bool
    token_file: Path | None
    version: str


def serve(parts: StoreParts, settings: ServerSettings, announce: Callable[[Started], None]) -> int:
    """Serve a store, which is made if nothing is there, until SIGTERM or SIGINT. Returns the exit code.

    ``announce`` is called once connections are accepted. Call it in the main thread. Raises what opening a store
    raises; UsageError, NotFoundError or AccessDeniedError for a certificate or an address that cannot be used;
    UnavailableError if the port is in use; KeyboardInterrupt if it was told to stop a second time.
    """
    context = tls_context(settings)
    with (
        closing(listen(settings.host, settings.port)) as listening,
        logging_to(log_format=settings.log_format, level=settings.log_level),
        EmbeddedCas.open(parts, patience_seconds=settings.queue_seconds) as cas,
    ):
        secrets = cas.secrets()
        keys = KeyRing.of(secrets)
        authority = TokenAuthority(keys) if settings.auth == "tokens" else None
        if authority is not None:
            provide_admin_token(secrets, authority)
        site = make_site(cas, settings, keys=keys, authority=authority)
        connection_limit = make_connection_limit(settings)
        site.metrics.watch_connections(connection_limit)
        started = Started(
            url=url_of(settings, listening),
            store=parts,
            asks_for_tokens=authority is not None,
            token_file=None if authority is None else secrets_file(parts, ADMIN_TOKEN),
            version=version("xetstore"),
        )
        server = make_server(
            create_app(site),
            settings,
            context=context,
            draining=site.draining,
            on_started=lambda: announce(started),
            connection_limit=connection_limit,
        )
        _log.info("serving", extra={"url": started.url, "store": str(parts)})
        asyncio.run(server.serve_until_stopped(listening))
        _log.info("stopped")
    if server.force_exit:
        raise KeyboardInterrupt
    return 0


def make_site(
    cas: EmbeddedCas,
    settings: ServerSettings,
    *,
    keys: KeyRing,
    authority: TokenAuthority | None,
    clock: Callable[[], float] = time.time,
) -> Site:
    """Make what the handlers of a server need. ``clock`` gives unix seconds."""
    return Site(
        cas=cas,
        authority=authority,
        signer=UrlSigner(keys, clock),
        settings=settings,
        limits=ServerLimits(settings),
        metrics=Metrics(version("xetstore")),
        clock=clock,
    )


def make_connection_limit(settings: ServerSettings) -> ConnectionLimit:
    """The limit of the settings, or what this process has descriptors for, if that is less: the log says so."""
    most = connections_within_descriptors(settings.max_connections)
    if most < settings.max_connections:
        _log.warning(
            "at most %d connections instead of %d: the system gives this process too few descriptors (ulimit -n,"
            " LimitNOFILE=)",
            most,
            settings.max_connections,
        )
    return ConnectionLimit(most, settings.max_connections_per_address)
