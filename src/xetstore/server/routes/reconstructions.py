"""GET /v1 and /v2/reconstructions: how to rebuild a file or a range of it, several files, or ranges; their sizes."""

from __future__ import annotations

import hashlib
import re
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.responses import Response

from xetstore.access.tokens import Scope
from xetstore.cas.layout import parse_object_name, xorb_key
from xetstore.errors import DamagedError, NotFoundError, RangeError, TooLargeError, UsageError
from xetstore.interfaces import MANY_RANGES
from xetstore.protocol.binding import (
    BINDING_HEADER,
    batch_question,
    binding,
    ranges_question,
    reconstruction_question,
    size_question,
)
from xetstore.protocol.hashes import Hash
from xetstore.protocol.headers import HASHES_HEADER
from xetstore.protocol.inline import inline_ranges, listed
from xetstore.protocol.reconstruction import FetchRange, RangesBody, Reconstruction, UrlMaker, ranges_to_json
from xetstore.server.http.bodies import read_body
from xetstore.server.http.ranges import RangeSpec, UnsatisfiableRangeError, parse_range, resolve
from xetstore.server.routes.answers import (
    SMALL,
    SMALL_WITHOUT_HASHES,
    LargeAnswer,
    enough_terms,
    memory_of,
    require_room,
)
from xetstore.server.routes.inline import Rows, inline_answer, inline_bytes
from xetstore.server.site import Site, holders_of, parse_hash, site_of
from xetstore.server.threads import in_asking_thread

if TYPE_CHECKING:
    from starlette.requests import Request

    from xetstore.blobs.direct import RangeUrls
    from xetstore.cas.index import TermCount, XorbRow
    from xetstore.cas.service import EmbeddedCas
    from xetstore.interfaces import FileSpan

XORB_PATH: Final = "/v1/xorbs/default/"
"""The start of the path of a xorb's URL; its hash follows."""
MAX_URL_RANGES: Final = 64
"""A URL names the ranges it is signed for: where a xorb has more, there are more URLs, none of them too long."""
MAX_BATCH_FILES: Final = 1000
MAX_BATCH_BYTES: Final = 256 << 10
MAX_RANGES_BYTES: Final = 16 << 10
"""64 ranges, with all the digits of their numbers, and room to spare."""
MIN_GZIP_BYTES: Final = 2048
"""Shorter answers go in a packet or two anyway."""

_GZIP_FORMAT: Final = 16 + zlib.MAX_WBITS
_REFUSED: Final = re.compile(r"q\s*=\s*0(\.0*)?")


class _FileKey(msgspec.Struct):
    hash: str


_RANGES: Final = msgspec.json.Decoder(RangesBody)
_KEYS: Final = msgspec.json.Decoder(list[_FileKey])


async def get_v1(request: Request) -> Response:
    """GET /v1/reconstructions/{hash}: the terms of a file, or of a range of it, with fetch_info (11.3)."""
    url_of = _apart(_url_maker(site_of(request), request))
    return await _reconstruction(request, lambda found: found.with_urls(url_of, 1).to_v1_json(), inline=0)


async def get_v2(request: Request) -> Response:
    """GET /v2/reconstructions/{hash}: the same, the ranges of a xorb together under one URL if that is our own."""
    site = site_of(request)
    url_of = _url_maker(site, request)
    most = MAX_URL_RANGES if site.direct is None else 1
    inline = inline_bytes(request)
    return await _reconstruction(request, lambda found: found.with_urls(url_of, most).to_v2_json(), inline=inline)


async def batch_get(request: Request) -> Response:
    """GET /v1/reconstructions?file_id=…&file_id=…: several whole files."""
    site = site_of(request)
    cas = site.cas_for(site.caller(request, Scope.READ))
    return await _batch(request, cas, request.query_params.getlist("file_id"))


async def batch_post(request: Request) -> Response:
    """POST /v1/reconstructions: the same for a JSON list of ``{"prefix": …, "hash": …}``."""
    site = site_of(request)
    cas = site.cas_for(site.caller(request, Scope.READ))
    async with site.limits.receiving.reserve(MAX_BATCH_BYTES, holders_of(request)):
        body = await read_body(request, site.limits, MAX_BATCH_BYTES)
    try:
        keys = _KEYS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UsageError('the body is not a JSON list of {"prefix": …, "hash": …}') from None
    return await _batch(request, cas, [key.hash for key in keys])


async def post_ranges(request: Request) -> Response:
    """POST /v2/reconstructions: ranges of files, ``{"ranges": [{"hash": …, "start": …, "end": …}]}``, with hashes.

    Null for one that is not there, or does not fit into one answer: asked for alone, that says why.
    """
    site = site_of(request)
    cas = site.cas_for(site.caller(request, Scope.READ))
    url_of = _url_maker(site, request)
    most_of_url = MAX_URL_RANGES if site.direct is None else 1
    async with site.limits.receiving.reserve(MAX_RANGES_BYTES, holders_of(request)):
        body = await read_body(request, site.limits, MAX_RANGES_BYTES)
    spans = _spans_in(body)

    def make(_: TermCount | None) -> _Made:
        found, rows = _located_ranges(cas, spans)
        answers = [None if one is None else one.with_urls(url_of, most_of_url) for one in found]
        return _Made(
            ranges_to_json(answers), cas, [fetch for one in found if one for fetch in listed(one.fetches)], rows
        )

    return await _answer(
        request,
        make,
        lambda: 0,
        ranges_question(spans),
        gzip=False,
        small=SMALL,
        inline=inline_bytes(request),
    )


def _spans_in(body: bytearray) -> list[FileSpan]:
    """The ranges that a request is about. Raises UsageError."""
    try:
        ranges = _RANGES.decode(body).ranges
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UsageError('the body is not {"ranges": [{"hash": …, "start": …, "end": …}]}') from None
    if not 0 < len(ranges) <= MANY_RANGES:
        raise UsageError(f"between 1 and {MANY_RANGES} ranges can be asked for at once, not {len(ranges)}")
    if any(one.end <= one.start for one in ranges):
        raise UsageError("one of these is not a range of bytes", hint="ask for one byte at least")
    return [(parse_hash(one.hash), one.start, one.end) for one in ranges]


def _located_ranges(
    cas: EmbeddedCas, spans: Sequence[FileSpan]
) -> tuple[list[Reconstruction | None], dict[Hash, XorbRow]]:
    """The reconstructions of ranges, no more of them than a small answer has, and the rows of their xorbs."""
    found: list[Reconstruction | None] = []
    rows: dict[Hash, XorbRow] = {}
    left = SMALL
    for file, start, end in spans:
        try:
            one, named = cas.located(file, start, end, hashes=True, most=left)
        except (NotFoundError, RangeError, TooLargeError, DamagedError):
            found.append(None)
            continue
        # Another object of a xorb may count by now: a range that names it is asked for alone.
        if any(rows.setdefault(xorb, row).key != row.key for xorb, row in named.items()):
            found.append(None)
            continue
        chunks = sum(term.chunk_end - term.chunk_start for term in one.terms)
        left = replace(left, terms=left.terms - len(one.terms), chunks=left.chunks - chunks)
        found.append(one)
    return found, rows


async def head_file(request: Request) -> Response:
    """HEAD /v1/files/{hash}: its size in bytes as the Content-Length."""
    site = site_of(request)
    cas = site.cas_for(site.caller(request, Scope.READ))
    record = await in_asking_thread(cas.stat, parse_hash(request.path_params["hash"]))
    size = str(record.size)
    answers = binding(size_question(record.hash), hashlib.sha256(size.encode()).digest())
    headers = {"Content-Length": size, "Content-Type": "application/octet-stream", BINDING_HEADER: answers}
    return Response(headers=headers | {"Cache-Control": "private, no-store"})


async def _reconstruction(request: Request, encode: Callable[[Reconstruction], bytes], *, inline: int) -> Response:
    site = site_of(request)
    cas = site.cas_for(site.caller(request, Scope.READ))
    file = parse_hash(request.path_params["hash"])
    wanted = _range_of(request)
    hashes = request.headers.get(HASHES_HEADER, "").lower() == "true"
    # Hashes do not shrink: looking whether they do takes longer than all the rest of the answer.
    gzip = not hashes and _accepts_gzip(request)
    question = (
        reconstruction_question(file) if wanted is None else reconstruction_question(file, wanted.first, wanted.last)
    )

    def make(most: TermCount | None) -> _Made:
        found, rows = _reconstruct(cas, file, wanted, hashes=hashes, most=most)
        return _Made(encode(found), cas, list(listed(found.fetches)), rows)

    return await _answer(
        request,
        make,
        lambda: memory_of(
            cas.count_terms(file, *_span(cas, file, wanted), enough=enough_terms(site)),
            hashes=hashes,
            url_bytes=0 if site.direct is None else site.direct.url_bytes,
        ),
        question,
        gzip=gzip,
        small=SMALL if hashes else SMALL_WITHOUT_HASHES,
        inline=inline,
    )


async def _batch(request: Request, cas: EmbeddedCas, names: Iterable[str]) -> Response:
    files = list(dict.fromkeys(map(parse_hash, names)))
    if not 0 < len(files) <= MAX_BATCH_FILES:
        raise UsageError(f"between 1 and {MAX_BATCH_FILES} files can be asked for at once, not {len(files)}")
    site = site_of(request)
    url_of = _apart(_url_maker(site, request))

    def make(most: TermCount | None) -> _Made:
        found, rows = cas.located_many(files, most=most)
        return _Made(found.with_urls(url_of, 1).to_json(), cas, list(listed(found.fetches)), rows)

    return await _answer(
        request,
        make,
        lambda: memory_of(
            cas.count_terms_of(files, enough=enough_terms(site)),
            hashes=False,
            url_bytes=0 if site.direct is None else site.direct.url_bytes,
        ),
        batch_question(files),
        gzip=_accepts_gzip(request),
        small=SMALL_WITHOUT_HASHES,
        inline=inline_bytes(request),
    )


def _range_of(request: Request) -> RangeSpec | None:
    """The one range asked for; None is all of the file.

    Other servers may take a header that is malformed for one that is not there. A client of this one would then
    download a whole file where it meant a part: it is told instead.
    """
    headers = request.headers.getlist("range")
    if not headers:
        return None
    specs = parse_range(headers[0]) or ()
    if len(specs) != 1 or len(headers) != 1:
        raise UsageError("the Range header is not one range of bytes", hint="as in `Range: bytes=0-1048575`")
    return specs[0]


def _reconstruct(
    cas: EmbeddedCas, file: Hash, wanted: RangeSpec | None, *, hashes: bool, most: TermCount | None
) -> tuple[Reconstruction, Rows]:
    try:
        return cas.located(file, *_span(cas, file, wanted), hashes=hashes, most=most)
    except RangeError as error:
        if wanted is None or wanted.first is None:
            raise
        # Clients that do not know the size ask on until they get this: it is how they learn where the end is.
        raise UnsatisfiableRangeError(str(error), cas.stat(file).size) from error


def _span(cas: EmbeddedCas, file: Hash, wanted: RangeSpec | None) -> tuple[int, int | None]:
    """``(start, end)`` of the range that is wanted of a file."""
    if wanted is None:
        return 0, None
    if wanted.first is None:
        ((start, end),) = resolve([wanted], cas.stat(file).size)
        return start, end
    return wanted.first, None if wanted.last is None else wanted.last + 1


def _url_maker(site: Site, request: Request) -> UrlMaker:
    """Makes the URLs of an answer (14.7.1): signed for their ranges and some time, or bare, for an edge that asks."""
    if site.direct is not None:
        return _direct_url_maker(site, site.direct)
    base = site.base_url(request)
    if site.settings.xorb_urls == "edge":
        return lambda xorb, ranges: f"{base}{XORB_PATH}{_object(xorb, ranges)}"
    expires_at = int(site.clock()) + site.settings.url_ttl_seconds

    def signed(xorb: Hash, ranges: Sequence[FetchRange]) -> str:
        path = f"{XORB_PATH}{_object(xorb, ranges)}"
        spans = [(fetch.byte_start, fetch.byte_end) for fetch in ranges]
        return f"{base}{path}?{site.signer.sign(path, spans, expires_at=expires_at)}"

    return signed


def _direct_url_maker(site: Site, urls: RangeUrls) -> UrlMaker:
    """Makes URLs of the object store, each for one range: more than that no store binds."""
    now, seconds = site.clock(), site.settings.url_ttl_seconds

    def presigned(xorb: Hash, ranges: Sequence[FetchRange]) -> str:
        [fetch] = ranges
        named = parse_object_name(_object(xorb, ranges))
        assert named is not None
        return urls.sign(xorb_key(*named), fetch.byte_start, fetch.byte_end, seconds=seconds, now=now)

    return presigned


def _object(xorb: Hash, ranges: Sequence[FetchRange]) -> str:
    """The stored object that ranges of a xorb are of: its hash, and its generation if it was stored anew."""
    return ranges[0].url.partition(":")[2] or str(xorb)


def _apart(url_of: UrlMaker) -> UrlMaker:
    """The same URLs, each for one range and with a fragment that says which: no client sends that to a server.

    hf_xet 1.1 and 1.2 take two downloads for one if their URLs are equal, and hand the bytes of one range to both.
    """

    def apart(xorb: Hash, ranges: Sequence[FetchRange]) -> str:
        [fetch] = ranges
        return f"{url_of(xorb, ranges)}#{fetch.byte_start}-{fetch.byte_end}"

    return apart


@dataclass(frozen=True, slots=True)
class _Made:
    """The JSON of an answer, and the ranges that it lists, in order, with the rows of their xorbs."""

    json: bytes
    cas: EmbeddedCas
    ranges: Sequence[FetchRange]
    rows: Rows


async def _answer(
    request: Request,
    encode: Callable[[TermCount | None], _Made],
    measure: Callable[[], int],
    question: str,
    *,
    gzip: bool,
    small: TermCount,
    inline: int,
) -> Response:
    """JSON that no cache in between may keep, since its URLs expire (14.6.1); compressed with ``gzip`` if it is long.

    ``encode`` makes it, of no more than it is told to. One that is more than ``small`` is measured first; others bring
    bytes of their ranges along, at most ``inline``. Its digest
    (RFC 9530) is for those who read a part of a file: no hash tells them where that part lies. Another one, over
    ``question`` too, shows those who asked that it is theirs.
    """

    def make(most: TermCount | None = None) -> Response:
        made = encode(most)
        ranges = inline_ranges(made.ranges, inline) if most is not None and inline else ()
        if ranges:
            return inline_answer(request, made.cas, question, made.json, ranges, made.rows)
        body = made.json
        is_compressed = gzip and len(body) >= MIN_GZIP_BYTES
        if is_compressed:
            body = zlib.compress(body, level=1, wbits=_GZIP_FORMAT)
        digest = hashlib.sha256(body).digest()
        headers = {
            "Cache-Control": "private, no-store",
            "Content-Digest": f"sha-256=:{b64encode(digest).decode()}:",
            BINDING_HEADER: binding(question, digest),
            "Vary": "Accept-Encoding",
        }
        if is_compressed:
            headers["Content-Encoding"] = "gzip"
        return Response(body, headers=headers, media_type="application/json")

    def attempt() -> Response | int:
        try:
            return make(small)
        except TooLargeError:
            return measure()

    made = await in_asking_thread(attempt)
    if isinstance(made, Response):
        return made
    site = site_of(request)
    require_room(site, made, "ask for ranges of the file, or for fewer files")
    return LargeAnswer(make, made, limits=site.limits, holders=holders_of(request))


def _accepts_gzip(request: Request) -> bool:
    for header in request.headers.getlist("accept-encoding"):
        for item in header.lower().split(","):
            coding, _, weight = item.partition(";")
            if coding.strip() == "gzip":
                return not _REFUSED.fullmatch(weight.strip())
    return False
