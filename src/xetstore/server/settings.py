"""ServerSettings: every knob of a server, where its value comes from, and which values cannot be."""

from __future__ import annotations

import difflib
import ipaddress
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from xetstore.errors import NotFoundError, UsageError
from xetstore.platform.threads import usable_cores
from xetstore.sizes import parse_size, parse_span

PREFIX: Final = "XETSTORE_"
CONFIG_VARIABLE: Final = "XETSTORE_CONFIG"
"""Names the TOML file; the one variable with the prefix that is no setting itself."""

MOST_WORKERS: Final = 4
"""Workers where none are asked for: more have to be wished for, because each takes memory of its own."""

_WHOLE: Final = re.compile(r"[0-9]{1,15}")
_NUMBER: Final = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")
_TRUE: Final = ("true", "yes", "on", "1")
_FALSE: Final = ("false", "no", "off", "0")
_UNBOUNDED: Final = 10**15
_NAME: Final = re.compile(r"[^\s,]{1,255}")
_SPANS: Final = ("grace", "undelete")
"""The settings that are a time, beside those that say so by their names."""


def _setting(default: Any, text: str, *, at_least: float = 0, at_most: float = _UNBOUNDED) -> Any:
    """A setting; ``text`` says what its flag does."""
    return field(default=default, metadata={"help": text, "at_least": at_least, "at_most": at_most})


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The settings of a server. A value that exists is valid: what cannot be, or not together, raises UsageError.

    Sizes are bytes, times seconds. A rate of 0 is no limit.

    >>> ServerSettings(port=0, public_url="https://xet.example.org/").public_url
    'https://xet.example.org'
    """

    host: str = _setting("127.0.0.1", "The address to listen on.")
    port: int = _setting(8080, "The port; 0 takes any free one.", at_most=65535)
    public_url: str | None = _setting(None, "What clients call this server, where a proxy is in front of it.")
    allow_plain_http: bool = _setting(False, "Listen beyond this machine without TLS: a proxy in front has it.")
    tls_cert: str | None = _setting(None, "The certificate, with its chain, as a PEM file.")
    tls_key: str | None = _setting(None, "The key of the certificate, as a PEM file.")
    auth: Literal["tokens", "none"] = _setting("tokens", "Ask for tokens, or for none: on this machine only.")
    hub: bool = _setting(True, "A bare CAS: no repositories, and none of the Hub's HTTP API.")
    default_visibility: Literal["public", "private"] = _setting(
        "public", "Repositories whose creator does not say it are readable without a token, or not."
    )
    anonymous: bool = _setting(True, "Nothing can be read without a token, public repositories neither.")
    xorb_urls: Literal["signed", "edge", "direct"] = _setting(
        "signed", "URLs of xorbs: signed, plain ones that need a token or a proxy that asks, or of the object store."
    )
    url_ttl_seconds: int = _setting(900, "How long a signed URL is valid.", at_least=10, at_most=86400)
    dedup: Literal["store", "namespace", "off"] = _setting("store", "Who shares chunks: all, each namespace, none.")
    private_namespaces: tuple[str, ...] = _setting((), "Namespaces whose chunks are offered to no other, with commas.")
    max_bytes_in_flight: int = _setting(
        512 << 20, "Bytes in memory at once for answers, as many for bodies, and as many for shards.", at_least=1 << 20
    )
    max_share: float = _setting(
        0.25, "Which part of these one namespace, token or address may have.", at_least=0.001, at_most=1
    )
    max_commits: int = _setting(40, "Xorbs that are made durable at once.", at_least=1, at_most=1000)
    max_shards: int = _setting(8, "Shards that are verified at once.", at_least=1, at_most=1000)
    max_shard_chunks: int = _setting(64 << 20, "Chunks that the files of one shard have together.", at_least=1 << 16)
    max_answer_bytes: int = _setting(
        320 << 20, "Memory for one answer; what takes more is refused: ask for ranges.", at_least=1 << 20
    )
    max_inline_bytes: int = _setting(
        8 << 20, "Bytes that come along with the answer to a client that asks for a few; 0 is none."
    )
    max_commit_bytes: int = _setting(512 << 20, "The longest body of one commit.", at_least=1 << 20)
    max_spooled_bytes: int = _setting(
        8 << 30, "Bytes on disk at once of commits that come in and are not made yet.", at_least=1 << 20
    )
    lfs_part_bytes: int = _setting(
        64 << 20, "What comes by plain LFS and is longer is asked for in parts, by clients that can.", at_least=1 << 16
    )
    queue_seconds: float = _setting(20.0, "How long a request waits for a part of these.")
    min_rate_bytes: int = _setting(8 << 10, "Bytes a second that a client sends, or takes, on average; 0 is no limit.")
    rate_grace_seconds: float = _setting(60.0, "How long a client is waited for before its rate counts.")
    rate_per_token: float = _setting(2000.0, "Requests a second of one token; 0 is no limit.")
    rate_per_address: float = _setting(4000.0, "Requests a second of one address; 0 is no limit.")
    burst_seconds: float = _setting(10.0, "How many seconds' worth of requests may come at once.")
    max_connections: int = _setting(2000, "Connections at once.", at_least=1)
    max_connections_per_address: int = _setting(500, "Connections of one address, a proxy's apart.", at_least=1)
    header_timeout_seconds: float = _setting(10.0, "How long the head of a request may take.", at_least=0.01)
    stall_seconds: float = _setting(30.0, "How long a body may stand still.", at_least=0.01)
    keep_alive_seconds: int = _setting(75, "How long an idle connection is kept.")
    drain_seconds: float = _setting(30.0, "How long requests may still take once the server is stopped.")
    log_format: Literal["text", "json"] = _setting("text", "Log lines for people, or one JSON object each.")
    log_level: Literal["debug", "info", "warning", "error"] = _setting("info", "What is logged.")
    status: Literal["local", "open", "token"] = _setting(
        "local", "Who sees the status page and /metrics: this machine, anyone, an admin token."
    )
    trusted_proxies: tuple[str, ...] = _setting(
        (), "Networks of proxies whose X-Forwarded-For is believed, with commas; this machine always is."
    )
    collect_seconds: float = _setting(3600.0, "How often what nothing names any more is collected; 0 is never.")
    grace: float = _setting(22 * 86400.0, "How long a xorb is kept that no file is made of.")
    undelete: float = _setting(7 * 86400.0, "How long a deleted file can be given back.")
    scrub_days: float = _setting(30.0, "In how many days all stored bytes are read and checked; 0 is never.")
    snapshot_seconds: float = _setting(3600.0, "How often the names of the store are written beside it; 0 is never.")
    care_share: float = _setting(0.1, "Which part of the time chores take.", at_least=0.001, at_most=1)
    workers: int | None = _setting(
        None, "Processes that serve, which share all limits; the cores if not said, at most 4.", at_least=1, at_most=64
    )

    def __post_init__(self) -> None:
        for knob in fields(self):
            object.__setattr__(self, knob.name, _coerce(knob, getattr(self, knob.name), knob.name))
        _check_together(self)

    @property
    def scheme(self) -> str:
        """``https`` if this server speaks TLS itself, else ``http``."""
        return "https" if self.tls_cert else "http"

    @property
    def worker_count(self) -> int:
        """``workers``, or if it is not said the cores that this process may use, at most four.

        Each worker has a part of every budget, so there are no more of them than places.
        """
        if self.workers is not None:
            return self.workers
        return min(usable_cores(), MOST_WORKERS, self.max_commits, self.max_shards)


def load_settings(flags: Mapping[str, object], environ: Mapping[str, str], config: Path | None) -> ServerSettings:
    """Settings from where they are named first: flags (None is not named), XETSTORE_* of ``environ``, the TOML file.

    Sizes may be written as ``512MiB``, times as ``15m``, lists with commas. Raises UsageError that names the source
    for a name or a value that is not one, NotFoundError without the file.

    >>> load_settings({"port": "9000"}, {"XETSTORE_PORT": "9001", "XETSTORE_URL_TTL_SECONDS": "15m"}, None).port
    9000
    """
    known = {knob.name: knob for knob in fields(ServerSettings)}
    named: dict[str, tuple[str, object]] = {}
    if config is not None:
        for name, value in _read_toml(config).items():
            _require_known(name, known, source=f"{config}")
            named[name] = f"{config}: {name}", value
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        name = variable.removeprefix(PREFIX).lower()
        _require_known(name, known, source="the environment", shown=variable, show=variable_of)
        named[name] = variable, text
    for name, value in flags.items():
        _require_known(name, known, source="the flags")
        if value is not None:
            named[name] = flag_of(name), value
    values: dict[str, Any] = {name: _coerce(known[name], value, source) for name, (source, value) in named.items()}
    return ServerSettings(**values)


def flag_of(name: str) -> str:
    """The flag of a setting: ``--url-ttl-seconds``; ``--no-hub`` of one that is on unless it is turned off."""
    return ("--no-" if getattr(ServerSettings, name, None) is True else "--") + name.replace("_", "-")


def variable_of(name: str) -> str:
    """The environment variable of a setting: ``XETSTORE_URL_TTL_SECONDS``."""
    return PREFIX + name.upper()


def choices_of(knob: Field[Any]) -> tuple[str, ...]:
    """The values a setting can have, if these are a few words; else none."""
    kind = _KINDS[knob.name]
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def is_loopback(host: str) -> bool:
    """True if an address to listen on can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_together(settings: ServerSettings) -> None:
    for proxy in settings.trusted_proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            raise UsageError(f"trusted_proxies: {error}", hint="name an address or a network: 10.1.0.0/16") from None
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise UsageError("tls_cert and tls_key go together: one of them is missing")
    for name in ("max_commits", "max_shards"):
        if settings.workers is not None and settings.workers > (places := getattr(settings, name)):
            raise UsageError(
                f"{settings.workers} workers are more than {name}, {places}: each has a part of these places",
                hint=f"take fewer workers, or a higher {name}",
            )
    if is_loopback(settings.host):
        return
    if settings.auth == "none":
        raise UsageError(
            f"auth none is for this machine only, and {settings.host} is more than that",
            hint="listen on 127.0.0.1, or use tokens",
        )
    if settings.tls_cert is None and not settings.allow_plain_http:
        raise UsageError(
            f"tokens would pass in clear: {settings.host} is more than this machine, and there is no TLS",
            hint="give tls_cert and tls_key, or allow_plain_http behind a proxy that has TLS",
        )


def _coerce(knob: Field[Any], value: object, source: str) -> object:
    """A value of a setting's type, from that or from text. Raises UsageError that names the ``source``."""
    kind = _KINDS[knob.name]
    if value is None and type(None) in typing.get_args(kind):
        return None
    if choices := choices_of(knob):
        if value not in choices:
            raise _refusal(source, value, "one of " + ", ".join(choices))
        return value
    return _COERCIONS.get(kind, _text)(knob, value, source)


def _boolean(_: Field[Any], value: object, source: str) -> bool:
    word = str(value).lower()
    if word not in _TRUE + _FALSE:
        raise _refusal(source, value, "true or false")
    return word in _TRUE


def _number(knob: Field[Any], value: object, source: str) -> float:
    is_whole = _KINDS[knob.name] in (int, int | None)
    wanted = "a whole number" if is_whole else "a number"
    if "bytes" in knob.name:
        wanted = "a size, such as 512MiB"
        if isinstance(value, str):
            try:
                value = parse_size(value)
            except ValueError:
                raise _refusal(source, value, wanted) from None
    elif knob.name.endswith("_seconds") or knob.name in _SPANS:
        wanted = "seconds, or a time such as 15m"
        if isinstance(value, str):
            try:
                value = parse_span(value)
            except ValueError:
                raise _refusal(source, value, wanted) from None
    if isinstance(value, str):
        pattern = _WHOLE if is_whole else _NUMBER
        if not pattern.fullmatch(value.strip()):
            raise _refusal(source, value, wanted)
        number = float(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = value
    else:
        raise _refusal(source, value, wanted)
    least, most = knob.metadata["at_least"], knob.metadata["at_most"]
    if not least <= number <= most:  # neither is what is no number at all
        bounds = f"at least {least:.15g}" if most == _UNBOUNDED else f"{least:.15g} to {most:.15g}"
        raise _refusal(source, value, f"{wanted}, {bounds}")
    if is_whole and number != int(number):
        raise _refusal(source, value, wanted)
    return int(number) if is_whole else float(number)


def _names(_: Field[Any], value: object, source: str) -> tuple[str, ...]:
    parts = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(
        isinstance(part, str) and _NAME.fullmatch(part) for part in parts
    ):
        raise _refusal(source, value, "names with commas between them")
    return tuple(parts)


def _text(knob: Field[Any], value: object, source: str) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise _refusal(source, value, "a text that is not empty")
    return _url(value, source) if knob.name == "public_url" else value


def _url(text: str, source: str) -> str:
    wanted = "an absolute http or https URL, without query"
    try:
        parts = urlsplit(text)
        _ = parts.port  # not a number, or none that a port can be: it says so when it is asked
    except ValueError:
        raise _refusal(source, text, wanted) from None
    is_plain = parts.username is None and text.isascii() and not set('?# "<>\\^`{|}') & set(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain:
        raise _refusal(source, text, wanted)
    return text.rstrip("/")


_Coercion = Callable[[Field[Any], object, str], object]
_KINDS: Final[dict[str, Any]] = typing.get_type_hints(ServerSettings)
_COERCIONS: Final[dict[Any, _Coercion]] = {
    bool: _boolean,
    int: _number,
    int | None: _number,
    float: _number,
    tuple[str, ...]: _names,
}


def _refusal(source: str, value: object, wanted: str) -> UsageError:
    return UsageError(f"{source}: {str(value)[:80]!r} is not {wanted}")


def _require_known(
    name: str,
    known: Mapping[str, object],
    *,
    source: str,
    shown: str | None = None,
    show: Callable[[str], str] = str,
) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {show(near[0])}?" if near else "docs/cli.md lists all settings"
    raise UsageError(f"{source}: there is no setting {(shown or name)[:80]!r}", hint=hint)


def _read_toml(config: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"{config} does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{config} is not TOML: {error}") from error
