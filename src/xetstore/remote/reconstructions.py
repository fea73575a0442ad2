"""Reconstructions over HTTP (11.3): of a file, of ranges of several, and of several whole files.

Bytes may come along with each answer. They are not asked for any more once such an answer was wrong: something between
here and the server may change it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias, TypeVar

from xetstore.errors import IntegrityError, RangeError, UsageError
from xetstore.interfaces import MANY_FILES, MANY_RANGES, FileSpan
from xetstore.protocol.binding import batch_question, ranges_question, reconstruction_question
from xetstore.protocol.hashes import Hash
from xetstore.protocol.headers import HASHES_HEADER, INLINE_HEADER
from xetstore.protocol.inline import listed
from xetstore.protocol.reconstruction import (
    BatchReconstruction,
    Bodies,
    FetchRange,
    Reconstruction,
    ranges_body,
    ranges_from_json,
)
from xetstore.remote.inline import is_inline, read_inline
from xetstore.remote.server import Server
from xetstore.remote.transport import Answer

T = TypeVar("T")
Fetches: TypeAlias = Mapping[Hash, tuple[FetchRange, ...]]

V2: Final = "GET /v2/reconstructions"
_V1: Final = "GET /v1/reconstructions"
_BATCH: Final = "GET /v1/reconstructions?file_id"
_RANGES_PATH: Final = "/v2/reconstructions"
_RANGES: Final = f"POST {_RANGES_PATH}"


def reconstruct(
    server: Server, most_bytes: int, file: Hash, start: int, end: int | None, *, hashes: bool, inline: int
) -> Reconstruction:
    """As :meth:`interfaces.Cas.reconstruct`. The empty file is one everywhere, and no server is asked for it."""
    if start < 0 or (end is not None and end <= start):
        raise UsageError(f"bytes {start} to {end} are not a range", hint="ask for one byte at least")
    if file == Hash.ZERO:
        if start:
            raise RangeError(f"file {file} is empty: byte {start} is not in it", hint="start at byte 0")
        return Reconstruction(0, (), {}, () if hashes else None)
    credentials = server.credentials(write=False)
    headers = {"accept-encoding": "gzip"}
    question = reconstruction_question(file)
    if start or end is not None:
        last = None if end is None else end - 1
        headers["range"] = f"bytes={start}-{'' if last is None else last}"
        question = reconstruction_question(file, start, last)
    if hashes:
        headers[HASHES_HEADER] = "true"

    def ask(inline: int) -> Reconstruction:
        for version in (1,) if server.lacks(V2) else (2, 1):
            path = f"/v{version}/reconstructions/{file}"
            with server.send("GET", path, credentials=credentials, headers=_asking(inline, headers)) as answer:
                if version == 2 and answer.status in (404, 501):
                    continue
                if not answer.is_success:
                    raise server.refused(answer, f"file {file}", credentials)
                told, bodies = _read(
                    server,
                    answer,
                    question,
                    most_bytes,
                    inline,
                    Reconstruction.from_json,
                    lambda told: [told.fetches],
                )
            if version == 1:
                server.fall_back(V2, _V1)
            return replace(told, bodies=bodies)
        raise AssertionError("unreachable")

    return _asked_inline(server, V2, ask, inline)


def reconstruct_ranges(
    server: Server, most_bytes: int, spans: Sequence[FileSpan], *, inline: int
) -> Sequence[Reconstruction | None] | None:
    """As :meth:`interfaces.Cas.reconstruct_ranges`."""
    if not 0 < len(spans) <= MANY_RANGES:
        raise UsageError(f"between 1 and {MANY_RANGES} ranges can be asked for at once, not {len(spans)}")
    if any(start < 0 or end <= start for _, start, end in spans):
        raise UsageError("one of these is not a range", hint="ask for one byte at least")
    if server.lacks(_RANGES):
        return None
    credentials = server.credentials(write=False)
    body, question = ranges_body(spans), ranges_question(spans)
    headers = {"accept-encoding": "gzip", "content-type": "application/json", HASHES_HEADER: "true"}

    def ask(inline: int) -> Sequence[Reconstruction | None] | None:
        with server.send(
            "POST", _RANGES_PATH, credentials=credentials, headers=_asking(inline, headers), body=body
        ) as answer:
            if answer.status in (404, 405, 501):
                server.fall_back(_RANGES, V2)
                return None
            if not answer.is_success:
                raise server.refused(answer, f"{len(spans)} ranges", credentials)
            told, bodies = _read(
                server,
                answer,
                question,
                most_bytes,
                inline,
                lambda json: ranges_from_json(json, len(spans)),
                lambda told: [one.fetches for one in told if one is not None],
            )
        return [one if one is None else replace(one, bodies=bodies) for one in told]

    return _asked_inline(server, _RANGES, ask, inline)


def reconstruct_many(
    server: Server, most_bytes: int, files: Sequence[Hash], *, inline: int
) -> BatchReconstruction | None:
    """As :meth:`interfaces.Cas.reconstruct_many`. None where any of the files is missing: the answer is the same as
    that of a server without this call.
    """
    if not 0 < len(files) <= MANY_FILES:
        raise UsageError(f"between 1 and {MANY_FILES} files can be asked for at once, not {len(files)}")
    if server.lacks(_BATCH):
        return None
    credentials = server.credentials(write=False)
    path = "/v1/reconstructions?" + "&".join(f"file_id={file}" for file in files)
    headers = {"accept-encoding": "gzip"}

    def ask(inline: int) -> BatchReconstruction | None:
        with server.send("GET", path, credentials=credentials, headers=_asking(inline, headers)) as answer:
            if answer.status == 404:
                return None
            if answer.status in (405, 501):
                server.fall_back(_BATCH, _V1 if server.lacks(V2) else V2)
                return None
            if not answer.is_success:
                raise server.refused(answer, f"{len(files)} files", credentials)
            told, bodies = _read(
                server,
                answer,
                batch_question(files),
                most_bytes,
                inline,
                lambda json: BatchReconstruction.from_json(json, files),
                lambda told: [told.fetches],
            )
        return replace(told, bodies=bodies)

    return _asked_inline(server, _BATCH, ask, inline)


def _asked_inline(server: Server, name: str, ask: Callable[[int], T], inline: int) -> T:
    """The result of ``ask``, which is told how many bytes may come along: none but in the first attempt."""
    left = 0 if server.lacks(INLINE_HEADER) else inline

    def attempt() -> T:
        nonlocal left
        now, left = left, 0
        try:
            return ask(now)
        except IntegrityError:
            if now:
                server.fall_back(INLINE_HEADER, name)
            raise

    return server.asked_twice(name, attempt)


def _asking(inline: int, headers: dict[str, str]) -> dict[str, str]:
    """Headers that ask for bytes along with the answer."""
    return headers | {INLINE_HEADER: str(inline)} if inline else headers


def _read(
    server: Server,
    answer: Answer,
    question: str,
    most_bytes: int,
    inline: int,
    parse: Callable[[bytes], T],
    fetches_of: Callable[[T], Iterable[Fetches]],
) -> tuple[T, Bodies | None]:
    """The value of an answer, with the bytes that came along if ``inline`` of them were asked for."""
    if not (inline and is_inline(answer)):
        return parse(server.read_bound(answer, most_bytes, question)), None

    def parse_all(json: bytes) -> tuple[T, list[FetchRange]]:
        told = parse(json)
        return told, [fetch for fetches in fetches_of(told) for fetch in listed(fetches)]

    return read_inline(answer, question, most_json=answer.most_of(most_bytes), most_bytes=inline, parse=parse_all)
