"""Sockets: the address at which a server listens, its URL there, and its TLS."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import ssl
import sys
from pathlib import Path
from typing import Final

from xetstore.errors import AccessDeniedError, UnavailableError, UsageError, kind_of
from xetstore.server.settings import ServerSettings

BACKLOG: Final = 2048
"""Connections that may wait to be accepted."""
ACCEPTED_AT_ONCE: Final = 1
"""Connections that are accepted before the event loop does anything else. Where there are no descriptors left asyncio
tries, and says so, and comes back a second later, as often as this.
"""
DESCRIPTORS_EACH: Final = 3
"""Descriptors of a connection: its socket, that again for the thread that moves a body, the file that is moved."""
DESCRIPTORS_KEPT: Final = 128
"""For the index, the logs, and connections that are accepted only to be refused."""
UNSENT_BYTES: Final = 256 << 10
"""Bytes of an answer that the system may hold and has not sent yet. It takes MiB otherwise, in steps: of a client that
takes a little at a time nothing would be seen for minutes.
"""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens: from now on connections are queued. Port 0 takes any free one."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{host} is not an address of this machine: {error}") from error
    # `localhost` may be both; clients that try the other one first come back to this one.
    family, kind, protocol, _, address = sorted(found, key=lambda each: each[0] != socket.AF_INET)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # connections inherit it
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        listening.bind(address)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        where = f"port {port} of {host}"
        if error.errno == errno.EADDRINUSE:
            raise UnavailableError(f"{where} is in use", hint="stop what uses it, or take another port") from error
        if error.errno in (errno.EACCES, errno.EPERM):
            hint = "ports below 1024 are the superuser's: take a higher one, and a proxy in front"
            raise AccessDeniedError(f"{where} may not be listened on", hint=hint) from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"{host} is not an address of this machine") from error
        raise kind_of(error)(f"{where} cannot be listened on: {error.strerror}") from error
    return listening


def connections_within_descriptors(wanted: int) -> int:
    """As many of ``wanted`` connections as this process may have descriptors for, at least one.

    Raises the soft limit of descriptors as far as that takes and the hard limit allows.
    """
    if sys.platform == "win32":  # where no server starts
        raise NotImplementedError
    needed = DESCRIPTORS_KEPT + DESCRIPTORS_EACH * wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        # Refused where the system has a limit of its own below the hard one, as macOS does.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    return max(1, (soft - DESCRIPTORS_KEPT) // DESCRIPTORS_EACH)


def url_of(settings: ServerSettings, listening: socket.socket) -> str:
    """The URL at which a client on this machine finds the server: http://127.0.0.1:8080."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{settings.scheme}://[{host}]:{port}" if ":" in host else f"{settings.scheme}://{host}:{port}"


def tls_context(settings: ServerSettings) -> ssl.SSLContext | None:
    """TLS 1.2 and newer with the certificate of the settings; None without one."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for name in (settings.tls_cert, settings.tls_key):
        if not os.access(name, os.R_OK):
            kind = kind_of(OSError(errno.EACCES if Path(name).exists() else errno.ENOENT, ""))
            raise kind(f"{name} cannot be read")
    try:
        # A password that is asked for would stop the start, at a terminal that has no user.
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise UsageError(
            f"{settings.tls_cert} and {settings.tls_key} are not a certificate and its key: {error}",
            hint="both are PEM files; the key has no password",
        ) from error
    return context


def _no_password() -> str:
    raise ValueError("the key has a password")
