"""A worker: the process that `workers` starts, which opens the store itself and serves it until its parent says so."""

from __future__ import annotations

import logging
from multiprocessing.connection import Connection
from pathlib import Path

from xetstore.cas.folder import open_directory
from xetstore.cas.parts import StoreParts
from xetstore.errors import UnavailableError, XetError
from xetstore.platform.files import storage_error
from xetstore.server.ops.crew import FAILED, READY, Crew, Orders, Place
from xetstore.server.ops.logs import logging_to

_log = logging.getLogger("xetstore.server")


def main(line: Connection) -> int:
    """Do what comes over the line, and return the exit code. What goes wrong at the start is told to the parent."""
    orders: Orders = line.recv()
    settings = orders.settings
    crew = Crew(line, orders)
    with logging_to(log_format=settings.log_format, level=settings.log_level, worker=orders.number + 1):
        try:
            return _serve(crew, orders)
        except XetError as error:
            crew.say(FAILED, error)
            return error.exit_code
        except Exception:
            _log.exception("this worker failed")
            return 1


def _serve(crew: Crew, orders: Orders) -> int:
    from xetstore.server.http.listening import SharedListening
    from xetstore.server.http.sockets import tls_context
    from xetstore.server.run import serve_on

    if orders.place is not None and _place_of(orders.store) != orders.place:
        raise UnavailableError(
            "the store is not the one that the other workers serve", hint="put that back, or start the server again"
        )
    settings = orders.settings
    server = serve_on(
        SharedListening(orders.listening, crew.shared),
        orders.store,
        settings,
        lambda started: crew.say(READY, (started, _place_of(orders.store))),
        context=tls_context(settings),
        crew=crew,
    )
    return 130 if server.force_exit else 0


def _place_of(parts: StoreParts) -> Place:
    """The place of a store. Raises as opening it does; NotFoundError if there is none."""
    if parts.is_directory and isinstance(parts.objects, Path):
        open_directory(parts.objects, create=False)
    local = [part for part in (parts.objects, parts.index) if isinstance(part, Path)]
    try:
        return tuple((found.st_dev, found.st_ino) for found in (part.stat() for part in local))
    except OSError as error:
        raise storage_error(error, f"the store {parts} cannot be opened") from error
