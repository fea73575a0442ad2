"""Running a server: the store, its first token, and the application over it, from start to stop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from typing import TYPE_CHECKING

from xetstore.access.admin_token import provide_admin_token
from xetstore.access.keys import KeyRing
from xetstore.access.secrets import ADMIN_TOKEN
from xetstore.access.signed_urls import UrlSigner
from xetstore.access.tenant import DedupDomain
from xetstore.access.tokens import TokenAuthority
from xetstore.cas.assembly import secrets_file
from xetstore.cas.grace import Grace
from xetstore.cas.parts import StoreParts
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import AccessDeniedError, UsageError
from xetstore.extras import install_hint
from xetstore.opening import deletion_guard
from xetstore.server.app import create_app
from xetstore.server.care import Care, chores_of
from xetstore.server.http.lifecycle import DrainingServer, make_server
from xetstore.server.http.sockets import connections_within_descriptors, listen, tls_context, url_of
from xetstore.server.ops.connection_limit import ConnectionLimit
from xetstore.server.ops.crew import REPORT, Crew
from xetstore.server.ops.limits import ServerLimits
from xetstore.server.ops.logs import logging_to
from xetstore.server.ops.metrics import Metrics
from xetstore.server.ops.peers import Peers
from xetstore.server.ops.shared import Shared
from xetstore.server.ops.suspects import Suspects
from xetstore.server.settings import ServerSettings
from xetstore.server.site import Site
from xetstore.server.started import Started
from xetstore.version import __version__

if TYPE_CHECKING:
    import socket
    import ssl

    from xetstore.blobs.direct import RangeUrls
    from xetstore.hub.service import EmbeddedHub

_log = logging.getLogger("xetstore.server")

# Loaded by others when they are first used: here before the first request, which waits for none of them.
for _module in ("answers", "claims", "fetches", "index.queries.reader", "receive", "registering", "snapshots.journal"):
    import_module(f"xetstore.cas.{_module}")


def serve(parts: StoreParts, settings: ServerSettings, announce: Callable[[Started], None]) -> int:
    """Serve a store, which is made if nothing is there, until SIGTERM or SIGINT. Returns the exit code.

    All in this process; ``workers.serve`` does the same in several. ``announce`` is called once connections are
    accepted. Call it in the main thread. Raises what opening a store raises; UsageError, NotFoundError or
    AccessDeniedError for a certificate or an address that cannot be used; UnavailableError if the port is in use;
    KeyboardInterrupt if it was told to stop a second time.
    """
    context = tls_context(settings)
    with (
        closing(listen(settings.host, settings.port)) as listening,
        logging_to(log_format=settings.log_format, level=settings.log_level),
    ):

        def started(found: Started) -> None:
            _log.info("serving", extra={"url": found.url, "store": str(parts)})
            announce(found)

        server = serve_on(listening, parts, settings, started, context=context)
        _log.info("stopped")
    if server.force_exit:
        raise KeyboardInterrupt
    return 0


def serve_on(
    listening: socket.socket,
    parts: StoreParts,
    settings: ServerSettings,
    announce: Callable[[Started], None],
    *,
    context: ssl.SSLContext | None,
    crew: Crew | None = None,
) -> DrainingServer:
    """Serve a store on a listening socket, until it is told to stop: by a signal, or by its crew."""
    with EmbeddedCas.open(parts, patience_seconds=settings.queue_seconds) as cas:
        secrets = cas.secrets()
        # By the clock that all servers of the store have in common.
        keys = KeyRing.of(secrets, clock=cas.now)
        authority = TokenAuthority(keys)
        asks_for_tokens = settings.auth == "tokens"
        if asks_for_tokens:
            provide_admin_token(secrets, authority)
        direct = _direct_urls(cas) if settings.xorb_urls == "direct" else None
        site = make_site(cas, settings, keys=keys, authority=authority, clock=cas.now, direct=direct, crew=crew)
        connection_limit = make_connection_limit(settings, site.limits.shared)
        site.metrics.watch_connections(connection_limit)
        care = Care(cas.index, chores_of(site), settings.care_share)
        site.metrics.watch_care(care)
        started = Started(
            url=url_of(settings, listening),
            store=parts,
            asks_for_tokens=asks_for_tokens,
            token_file=secrets_file(parts, ADMIN_TOKEN) if asks_for_tokens else None,
            version=__version__,
        )
        server = make_server(
            create_app(site),
            settings,
            context=context,
            draining=site.draining,
            on_started=lambda: announce(started),
            on_draining=care.cancel,
            connection_limit=connection_limit,
        )
        if crew is not None:
            crew.obey(stop=server.stop, abandon=server.abandon, report=site.metrics.exposition)
        with secrets.followed(), site.metrics.counting_audit(), closing(care):
            care.start()
            asyncio.run(server.serve_until_stopped(listening))
        if crew is not None:
            crew.say(REPORT, site.metrics.exposition())
    return server


def make_site(
    cas: EmbeddedCas,
    settings: ServerSettings,
    *,
    keys: KeyRing,
    authority: TokenAuthority,
    clock: Callable[[], float] = time.time,
    direct: RangeUrls | None = None,
    crew: Crew | None = None,
) -> Site:
    """Make what the handlers of a server need. ``clock`` gives unix seconds; ``crew`` is that of a worker.

    ``direct`` signs the URLs of the object store. Raises UsageError without it where the settings ask for such URLs.
    """
    if settings.xorb_urls == "direct" and direct is None:
        raise UsageError(
            "xorb_urls direct is for a store whose objects are in S3", hint="use signed, or --objects s3://bucket"
        )
    cas.deletion_guard = deletion_guard
    cas.grace = Grace(unused=settings.grace, undelete=settings.undelete)
    limits = ServerLimits(settings, shared=None if crew is None else crew.shared)
    metrics = Metrics(__version__)
    cas.healing.told = metrics.read_damage
    site = Site(
        cas=cas,
        authority=authority,
        signer=UrlSigner(keys, clock),
        settings=settings,
        limits=limits,
        metrics=metrics,
        exposition=metrics.exposition if crew is None else lambda: crew.scrape(metrics.exposition()),
        suspects=Suspects(limits.shared),
        clock=clock,
        direct=direct if settings.xorb_urls == "direct" else None,
        hub=_hub(cas, settings) if settings.hub else None,
    )
    metrics.watch_soundness(site.soundness)
    metrics.watch_holdings(site.holdings)
    return site


def _hub(cas: EmbeddedCas, settings: ServerSettings) -> EmbeddedHub | None:
    """The names of the store; None if it has no tables for them, and cannot be written to."""
    from xetstore.hub.service import EmbeddedHub, HubOptions  # a bare CAS does not load them

    options = HubOptions(
        default_visibility=settings.default_visibility,
        anonymous_reads=settings.anonymous,
        dedup=DedupDomain(settings.dedup),
        private_namespaces=frozenset(settings.private_namespaces),
    )
    try:
        return EmbeddedHub(cas, options)
    except AccessDeniedError as error:
        _log.warning("files are served, and no repositories: %s; %s", error, error.hint)
        return None


def make_connection_limit(settings: ServerSettings, shared: Shared) -> ConnectionLimit:
    """The limit of the settings, or what this process has descriptors for, if that is less: the log says so."""
    most = connections_within_descriptors(settings.max_connections)
    if most < settings.max_connections and shared.number == 0:
        _log.warning(
            "at most %d connections instead of %d: the system gives this process too few descriptors (ulimit -n,"
            " LimitNOFILE=)",
            most,
            settings.max_connections,
        )
    return ConnectionLimit(
        most, settings.max_connections_per_address, shared=shared, peers=Peers(settings.trusted_proxies)
    )


def _direct_urls(cas: EmbeddedCas) -> RangeUrls:
    """The URLs of the object store. Raises UsageError for one that cannot have them."""
    try:
        from xetstore.blobs.direct import RangeUrls
    except ImportError as error:
        raise UsageError(f"direct URLs need {error.name}, which is not installed", hint=install_hint("s3")) from error
    return RangeUrls.of(cas.blobs)
