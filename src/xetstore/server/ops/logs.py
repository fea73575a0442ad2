"""Logs: one entry a line for people or programs, on stderr; no secret and no control character gets into one."""

from __future__ import annotations

import codecs
import json
import logging
import math
import os
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal, TextIO

REDACTED: Final = "[redacted]"
REPEATS: Final = 20
REPEATS_SECONDS: Final = 10.0
"""Warnings or errors of one kind that are written within this time; the others are counted."""
MAX_KINDS: Final = 256
FIELDS: Final = "fields"
"""The name in ``extra`` of what a message says already: a dictionary, for readers that are programs."""

_KIND_CHARS: Final = 200
_SIGNATURE: Final = re.compile(r"x-(?:xet|amz)-signature", re.IGNORECASE)
_PASSWORD: Final = re.compile(r"(://[^\s/@:]*:)[^\s/@]+@")
_WORD: Final = re.compile(r"""[^\s"'<>]+""")
_CREDENTIALS: Final = re.compile(r"""\b(bearer|basic)(\s+|%20|\+)[^\s"'<>,;]+""", re.IGNORECASE)
_TOKEN: Final = re.compile(r"\beyJ[A-Za-z0-9_=-]{4,}(?:\.[A-Za-z0-9_=-]*){0,4}")
_USER_TOKEN: Final = re.compile(r"hf_[A-Za-z0-9]{16,}")

# Looked up now: it is a module, which cannot be loaded when there are no descriptors left, and just that is logged.
_unicode_escape: Final = codecs.getencoder("unicode_escape")

# What every record has; the rest came by `extra`.
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_BARE: Final = re.compile(r"[!#-<>-\[\]-~]+")
"""A value that needs no quotes behind ``name=``."""


def redact(text: str) -> str:
    """Text without what would let its reader in: tokens, the query strings of signed URLs, and passwords in URLs.

    >>> redact("GET /v1/xorbs/default/ab?X-Xet-Expires=1&X-Xet-Signature=c2Vj HTTP/1.1")
    'GET /v1/xorbs/default/ab?[redacted] HTTP/1.1'
    >>> redact("Authorization: Bearer abc.def")
    'Authorization: Bearer [redacted]'
    >>> redact("hf_hub/2.4.0 at https://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@example.org")
    'hf_hub/2.4.0 at https://[redacted]@example.org'
    """
    # Looked for first: almost no entry has any of it, and every request makes an entry.
    lowered = text.lower()
    if "-signature" in lowered:
        text = _WORD.sub(_without_signature, text)
    if "bearer" in lowered or "basic" in lowered:
        text = _CREDENTIALS.sub(rf"\1 {REDACTED}", text)
    if "eyj" in lowered:
        text = _TOKEN.sub(REDACTED, text)
    if "hf_" in text:
        text = _USER_TOKEN.sub(REDACTED, text)
    if "@" in text and "://" in text:
        text = _PASSWORD.sub(rf"\1{REDACTED}@", text)
    return text


def _without_signature(word: re.Match[str]) -> str:
    """A query string with a signature goes as a whole: its other parameters are half of what a signed URL is."""
    if not _SIGNATURE.search(word[0]):
        return word[0]
    before, question, after = word[0].partition("?")
    return f"{before}?{REDACTED}" if question and _SIGNATURE.search(after) else REDACTED


def escape(text: str) -> str:
    r"""Text in one line that cannot steer a terminal: what is not printable stands as its escape.

    >>> print(escape("one\ntwo\x1b[2J"))
    one\ntwo\x1b[2J
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _unicode_escape(c)[0].decode("ascii") for c in text)


class Entry(logging.LogRecord):
    """A record at INFO that every request can afford: the line that logs it is not looked for.

    Made as `logging` makes them, one costs more than finding, counting and answering what it tells of.
    """

    def __init__(self, name: str, message: str, fields: Mapping[str, Any]) -> None:
        place = name, os.getpid(), threading.get_ident()
        blank = _blanks.get(place)
        if blank is None:
            if len(_blanks) >= _MAX_BLANKS:
                _blanks.clear()
            blank = _blanks[place] = vars(logging.LogRecord(name, logging.INFO, __file__, 0, "", None, None))
        self.__dict__.update(blank)
        self.msg, self.args, self.fields = message, fields, fields
        self.created = time.time()
        self.msecs = self.created % 1 * 1000


_MAX_BLANKS: Final = 16
_blanks: Final[dict[tuple[str, int, int], dict[str, Any]]] = {}
"""The fields that all records of a logger have in common that a thread of a process makes."""


class TextFormatter(logging.Formatter):
    """``TIME LEVEL LOGGER: MESSAGE NAME=VALUE …``, in UTC.

    A traceback follows in lines that are indented: none of what an entry says can look like another entry. ``worker``
    is the number of this process among several.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._end = "" if worker is None else f" worker={worker}"

    def format(self, record: logging.LogRecord) -> str:
        """One entry."""
        if type(record) is Entry:
            return redact(f"{_time(record)} info    {record.name}: {escape(record.getMessage())}{self._end}")
        given = {name: value for name, value in _extra(record).items() if name != FIELDS}
        fields = "".join(f" {escape(name)}={_value(value)}" for name, value in given.items())
        message = escape(record.getMessage().rstrip())
        line = redact(f"{_time(record)} {record.levelname.lower():<7} {record.name}: {message}{fields}{self._end}")
        traceback = _traceback(record)
        if not traceback:
            return line
        return "\n".join([line, *(f"    {escape(redact(part))}" for part in traceback.splitlines())])


class JsonFormatter(logging.Formatter):
    """One JSON object: time (UTC), level, logger, message, what else was given, the request's id first; traceback.

    ``worker`` is the number of this process among several, and then stands behind the logger.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """One entry. Plain ASCII; control characters are JSON escapes."""
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._worker,
            "message": redact(record.getMessage().rstrip()),
        }
        given = _extra(record)
        for name, value in (given | given.pop(FIELDS, {})).items():
            entry.setdefault(name, value if isinstance(value, bool | int | float | None) else redact(str(value)))
        if traceback := _traceback(record):
            entry.setdefault("traceback", redact(traceback))
        return json.dumps(entry)


class CountingHandler(logging.StreamHandler[TextIO]):
    """Writes entries to a stream; of warnings and errors of one kind, at most ``most`` in ``seconds``.

    The others are counted, and the count is the next entry: what goes wrong a thousand times a second must not fill
    the disk with saying so. Of one kind are entries of one logger, level and text before its arguments are filled in.
    At most ``max_kinds`` are told apart; the one that was quiet for longest is forgotten.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        most: int = REPEATS,
        seconds: float = REPEATS_SECONDS,
        max_kinds: int = MAX_KINDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(stream)
        self._most = most
        self._seconds = seconds
        self._max_kinds = max_kinds
        self._clock = clock
        self._kinds: OrderedDict[tuple[str, int, str], _Kind] = OrderedDict()
        self._next_count_at = math.inf

    def emit(self, record: logging.LogRecord) -> None:
        """Write an entry, or count it. Called with the handler's lock held."""
        now = self._clock()
        if now >= self._next_count_at:
            self._write_counts(now)
        if record.levelno >= logging.WARNING and not self._is_among_first(record, now):
            return
        if type(record) is Entry and getattr(self.stream, "line_buffering", False):
            try:
                self.stream.write(f"{self.format(record)}\n")  # and it is out: no flush is needed behind a line
            except Exception:
                self.handleError(record)
        else:
            super().emit(record)

    def close(self) -> None:
        """Write what was counted."""
        with self.lock or nullcontext():
            self._write_counts(math.inf)
        super().close()

    def _is_among_first(self, record: logging.LogRecord, now: float) -> bool:
        key = (record.name, record.levelno, str(record.msg).partition("\n")[0][:_KIND_CHARS])
        kind = self._kinds.get(key)
        if kind is None or now >= kind.ends_at:
            self._count_out(key)
            self._kinds[key] = kind = _Kind(now + self._seconds)
            if len(self._kinds) > self._max_kinds:
                self._count_out(next(iter(self._kinds)))
        kind.seen += 1
        if kind.seen > self._most:
            self._next_count_at = min(self._next_count_at, kind.ends_at)
        return kind.seen <= self._most

    def _write_counts(self, now: float) -> None:
        for key in [key for key, kind in self._kinds.items() if now >= kind.ends_at]:
            self._count_out(key)
        self._next_count_at = min(
            (kind.ends_at for kind in self._kinds.values() if kind.seen > self._most), default=math.inf
        )

    def _count_out(self, key: tuple[str, int, str]) -> None:
        """Forget a kind, and write how many of it were not written."""
        kind = self._kinds.pop(key, None)
        if kind is None or kind.seen <= self._most:
            return
        name, level, text = key
        message = f"{kind.seen - self._most} more like this within {self._seconds:g} seconds: {text}"
        super().emit(logging.LogRecord(name, level, __file__, 0, message, None, None))


@dataclass(slots=True)
class _Kind:
    ends_at: float
    seen: int = 0


@contextmanager
def logging_to(
    stream: TextIO | None = None,
    *,
    log_format: Literal["text", "json"] = "text",
    level: str = "info",
    worker: int | None = None,
) -> Iterator[None]:
    """While this is open, everything that is logged goes to ``stream`` (stderr), from ``level`` on.

    Each entry says the number of the ``worker``, if there is one.

    Others than this package, uvicorn among them, are heard from warnings on, or from ``level``, if that is higher or
    ``debug``.
    """
    handler = CountingHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(worker) if log_format == "json" else TextFormatter(worker))
    ours = logging.getLevelNamesMapping()[level.upper()]
    others = ours if ours == logging.DEBUG else max(ours, logging.WARNING)
    levels: Mapping[str, int] = {"": others, "xetstore": ours, "uvicorn": others, "uvicorn.error": others}
    loggers = {logging.getLogger(name): number for name, number in levels.items()}
    root = logging.getLogger()
    before = [(logger, logger.level) for logger in loggers]
    handlers = root.handlers[:]
    root.handlers[:] = [handler]
    for logger, number in loggers.items():
        logger.setLevel(number)
    try:
        yield
    finally:
        handler.close()
        root.handlers[:] = handlers
        for logger, number in before:
            logger.setLevel(number)


def _time(record: logging.LogRecord) -> str:
    second, millisecond = divmod(int(record.created * 1000), 1000)
    return f"{_second(second)}.{millisecond:03d}Z"


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat().replace("+00:00", "")


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    """The fields given by ``extra``, the request's id first."""
    given = {name: value for name, value in vars(record).items() if name not in _OWN}
    first = {"request_id": given.pop("request_id")} if "request_id" in given else {}
    return first | given


def _traceback(record: logging.LogRecord) -> str:
    parts = [logging.Formatter().formatException(record.exc_info)] if record.exc_info else []
    parts += [record.stack_info] if record.stack_info else []
    return "\n".join(parts)


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text)
