"""The network as the environment describes it: the proxy to a host, and the certificates that are trusted."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import urllib.request
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from xetstore.errors import UsageError

CA_VARIABLES: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Each names a file of certificates, or a folder of them; the first that is set counts."""


class Proxy(NamedTuple):
    """``url`` has no credentials in it; ``login`` is ``user:password``, or None."""

    url: str
    login: str | None

    def __repr__(self) -> str:
        return f"Proxy({self.url!r})"

    @property
    def is_socks(self) -> bool:
        """True if it speaks SOCKS, and not HTTP."""
        return self.url.startswith("socks")

    @property
    def parts(self) -> tuple[str, str, int]:
        """Scheme, host and port."""
        parts = urlsplit(self.url)
        return parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme]

    @property
    def address(self) -> str:
        """Host and port as one writes them."""
        return urlsplit(self.url).netloc


class Origin(NamedTuple):
    """Whom a URL speaks to: scheme, host in lower case and without brackets, port."""

    scheme: str
    host: str
    port: int

    @property
    def address(self) -> str:
        """Host and port as one writes them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


class Route(NamedTuple):
    """The way to a server: its origin, and the proxy before it, if any."""

    origin: Origin
    proxy: Proxy | None

    @classmethod
    def to(cls, url: str) -> Route:
        """The route to a URL. Raises UsageError as :func:`origin_of` and :func:`proxy_for`."""
        origin = origin_of(url)
        return cls(origin, proxy_for(origin))

    @property
    def socks(self) -> Proxy | None:
        """The proxy, if it speaks SOCKS."""
        return self.proxy if self.proxy is not None and self.proxy.is_socks else None


_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?(?=[/?#]|\Z)")
"""The start of a plain URL: of many URLs it is the same, and no more of them is looked at."""
_PORTS: Final = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_SERVERS: Final = ("http", "https")


def origin_of(url: str) -> Origin:
    """The origin of an absolute http or https URL. Raises UsageError for any other, and for one with credentials."""
    found = _ORIGIN.match(url)
    return _parsed_origin(url) if found is None else _known_origin(found[0])


def path_of(url: str) -> str | None:
    """The path and query of a plain absolute URL; None for one that has to be looked at more closely."""
    found = _ORIGIN.match(url)
    return None if found is None or url[found.end() : found.end() + 1] != "/" else url[found.end() :]


@lru_cache(maxsize=256)
def _known_origin(start: str) -> Origin:
    """The origin of the start of a URL, in which nothing is secret."""
    return _parsed_origin(start)


def _parsed_origin(url: str) -> Origin:
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
        login = parts.username is not None or parts.password is not None
    except ValueError:
        scheme, host, port, login = "", None, None, False
    if scheme not in _SERVERS or not host:
        shown = _shown(url)
        raise UsageError(f"{shown!r} is not the URL of a server", hint="it starts with http:// or https:// and a host")
    if login:
        raise UsageError(
            f"the URL of {host} has a user or a password in it",
            hint="leave out what is before the @, and give a token instead",
        )
    return Origin(scheme, host, _PORTS[scheme] if port is None else port)


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """True if a host is this machine itself: nothing on the way can listen."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def proxy_for(origin: Origin) -> Proxy | None:
    """The proxy that http_proxy, https_proxy, all_proxy and no_proxy tell to use; never one for this machine itself.

    Raises UsageError for one that is no HTTP or SOCKS5 proxy.
    """
    if is_loopback(origin.host):
        return None
    found = urllib.request.getproxies()
    text = found.get(origin.scheme) or found.get("all")
    if not text or is_excepted(origin, found.get("no", "")):
        return None
    # Where the environment names no proxy, the settings of the system do, and have exceptions of their own.
    if not urllib.request.getproxies_environment() and urllib.request.proxy_bypass(f"{origin.host}:{origin.port}"):
        return None
    text = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(text)
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    if scheme not in _PORTS or not host:
        raise UsageError(
            f"the proxy for {origin.scheme} is not an http, https, socks5 or socks5h URL",
            hint=f"set {origin.scheme}_proxy to http://HOST:PORT, or no_proxy to {origin.host} to go without",
        )
    login = None
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    where = Origin(scheme, host, _PORTS[scheme] if port is None else port)
    return Proxy(f"{scheme}://{where.address}", login)


def is_excepted(origin: Origin, no_proxy: str) -> bool:
    """True if no_proxy names the host of ``origin``, in any case.

    It is a list, with commas or blanks between: of ``*``, addresses, networks such as 10.0.0.0/8 and fe80::/10, and
    domains. ``domain`` and ``.domain`` are it and what is below it, ``*.domain`` what is below it. A port behind any of
    them, IPv6 in brackets then, excepts that port alone. Names are not looked up: a network excepts hosts that are
    written as addresses.

    >>> is_excepted(Origin("https", "10.1.2.3", 443), "example.org, 10.0.0.0/8")
    True
    """
    host = origin.host.lower().rstrip(".").partition("%")[0]
    return any(_excepts(entry.lower(), host, origin.port) for entry in re.split(r"[,\s]+", no_proxy) if entry)


def _excepts(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    # A port is what stands behind brackets, or behind a colon that is the only one: others are IPv6's.
    found = re.fullmatch(r"\[([^\]]+)\](?::([0-9]{1,5}))?", entry) or re.fullmatch(r"([^:]+):([0-9]{1,5})", entry)
    name, its_port = (found[1], found[2]) if found else (entry, None)
    if its_port is not None and int(its_port) != port:
        return False
    try:
        network = ipaddress.ip_network(name.partition("%")[0], strict=False)
    except ValueError:
        if name.startswith("*."):
            below = name[1:].rstrip(".")
            return bool(below) and host.endswith(below)
        name = name.strip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return ipaddress.ip_address(host) in network
    except ValueError:
        return False


def tls_context(environment: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """Trust as the environment has it: its bundle, else the system's certificates.

    Raises UsageError for a bundle that is not there, or none.
    """
    for variable in CA_VARIABLES:
        name = environment.get(variable)
        if not name:
            continue
        path = Path(name)
        try:
            if path.is_dir():
                return ssl.create_default_context(capath=name)
            return ssl.create_default_context(cafile=name)
        except OSError as error:
            reason = "is not there" if not path.exists() else f"cannot be used: {error.strerror or error}"
            raise UsageError(
                f"the file of certificates that {variable} names {reason}: {name}",
                hint=f"correct {variable}, or unset it to trust what the system trusts",
            ) from None
    return ssl.create_default_context()


def _shown(url: str) -> str:
    """A URL for a message: without what may be secret in it."""
    head, at, tail = url.partition("@")
    url = tail if at else head
    return url.partition("?")[0].partition("#")[0][:120]
