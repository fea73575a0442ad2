"""Reconstructions (draft 8 and 11.3): terms, their JSON forms, range trimming, and the plan of fetches."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias, TypeVar

import msgspec

from xetstore.errors import FormatError, UsageError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.suite import CHUNK_HEADER_BYTES, HASH_BYTES, XET_GEARHASH_BLAKE3, AlgorithmSuite

if TYPE_CHECKING:
    from typing_extensions import Buffer

_U64_MAX: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Term:
    """A run of chunks ``[chunk_start, chunk_end)`` of a xorb, ``unpacked_bytes`` long when decoded (8.1)."""

    xorb: Hash
    chunk_start: int
    chunk_end: int
    unpacked_bytes: int


@dataclass(frozen=True, slots=True)
class FetchRange:
    """Chunks ``[chunk_start, chunk_end)`` of a xorb, which are bytes ``[byte_start, byte_end)`` of ``url``.

    All ends are exclusive here; only the JSON forms and the HTTP Range header have inclusive byte ends.
    """

    xorb: Hash
    url: str
    chunk_start: int
    chunk_end: int
    byte_start: int
    byte_end: int


UrlMaker: TypeAlias = Callable[[Hash, Sequence[FetchRange]], str]
"""Makes the URL of some ranges of a xorb."""


Bodies: TypeAlias = Mapping[FetchRange, memoryview]
"""The bytes of ranges."""


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """The way to rebuild a file, or a range of it: decode the terms, skip ``offset_into_first_term`` bytes.

    ``fetches`` lists, for each xorb, the byte ranges that hold the chunks of its terms. ``term_hashes`` are, where
    the Cas gave them, the packed chunk hashes of each term, by which any range can be verified. ``bodies`` are the
    bytes of those ranges that came along, not verified.
    """

    offset_into_first_term: int
    terms: tuple[Term, ...]
    fetches: Mapping[Hash, tuple[FetchRange, ...]]
    term_hashes: tuple[bytes, ...] | None = None
    bodies: Bodies | None = field(default=None, repr=False)

    @property
    def unpacked_bytes(self) -> int:
        """Decoded bytes of all terms, those to skip and to cut off included."""
        return sum(term.unpacked_bytes for term in self.terms)

    def with_urls(self, url_of: UrlMaker, most: int) -> Reconstruction:
        """The same with URLs made by ``url_of``, which is given a xorb and at most ``most`` of its ranges."""
        return replace(self, fetches=_with_urls(self.fetches, url_of, most))

    def with_bodies(self, bodies: Bodies | None) -> Reconstruction:
        """The same with the bytes of ranges."""
        return replace(self, bodies=bodies)

    def to_v1_json(self) -> bytes:
        """The answer of GET /v1/reconstructions: one ``fetch_info`` entry a range (11.3).

        In both forms each term has its ``chunk_hashes``, where they are known: base64, 32 bytes a chunk.
        """
        return msgspec.json.encode(
            _Answer(self.offset_into_first_term, self._wire_terms(), _v1_fetches(self.fetches)),
        )

    def to_v2_json(self) -> bytes:
        """The answer of GET /v2/reconstructions: neighbouring ranges of one URL share an entry."""
        return msgspec.json.encode(self._to_v2())

    def _to_v2(self) -> _Answer:
        xorbs: dict[str, list[_V2Fetch]] = {}
        for xorb, fetches in self.fetches.items():
            entries = xorbs[str(xorb)] = []
            for fetch in fetches:
                if not entries or entries[-1].url != fetch.url:
                    entries.append(_V2Fetch(fetch.url, []))
                chunks = _Range(fetch.chunk_start, fetch.chunk_end)
                entries[-1].ranges.append(_V2Range(chunks, _Range(fetch.byte_start, fetch.byte_end - 1)))
        return _Answer(self.offset_into_first_term, self._wire_terms(), xorbs=xorbs)

    @classmethod
    def from_json(cls, data: Buffer, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> Reconstruction:
        """Read either form. Unknown keys are ignored; anything else that breaks a rule raises FormatError.

        The offset of these errors is 0: ``detail`` names the place.
        """
        return cls._of_wire(_decoded(_DECODER, data, "a reconstruction"), suite)

    @classmethod
    def _of_wire(cls, answer: _Answer, suite: AlgorithmSuite) -> Reconstruction:
        reader = _Reader(suite)
        terms = tuple(reader.terms(answer.terms))
        if answer.offset_into_first_range >= (terms[0].unpacked_bytes if terms else 1):
            raise _broken("offset", f"{answer.offset_into_first_range} bytes are to be skipped in the first term")
        if answer.xorbs is not msgspec.UNSET:
            fetches = reader.v2_fetches(answer.xorbs)
        elif answer.fetch_info is not msgspec.UNSET:
            fetches = reader.v1_fetches(answer.fetch_info)
        else:
            raise _broken("json", "neither `xorbs` (v2) nor `fetch_info` (v1) is there")
        return cls(answer.offset_into_first_range, terms, fetches, reader.term_hashes(answer.terms))

    def _wire_terms(self) -> list[_Term]:
        terms = _wire_terms(self.terms)
        if self.term_hashes is not None:
            for term, hashes in zip(terms, self.term_hashes, strict=True):
                term.chunk_hashes = hashes
        return terms


@dataclass(frozen=True, slots=True)
class BatchReconstruction:
    """The way to rebuild several whole files: the terms of each, and the byte ranges that hold the chunks of all."""

    files: Mapping[Hash, tuple[Term, ...]]
    fetches: Mapping[Hash, tuple[FetchRange, ...]]
    bodies: Bodies | None = field(default=None, repr=False)

    def with_urls(self, url_of: UrlMaker, most: int) -> BatchReconstruction:
        """The same with URLs made by ``url_of``, which is given a xorb and at most ``most`` of its ranges."""
        return replace(self, fetches=_with_urls(self.fetches, url_of, most))

    def with_bodies(self, bodies: Bodies | None) -> BatchReconstruction:
        """The same with the bytes of ranges."""
        return replace(self, bodies=bodies)

    def to_json(self) -> bytes:
        """The answer of /v1/reconstructions for a list of files."""
        files = {str(file): _wire_terms(terms) for file, terms in self.files.items()}
        return msgspec.json.encode(_BatchAnswer(files, _v1_fetches(self.fetches)))

    @classmethod
    def from_json(
        cls, data: Buffer, asked: Collection[Hash], suite: AlgorithmSuite = XET_GEARHASH_BLAKE3
    ) -> BatchReconstruction:
        """Read the answer to a call for the files ``asked``. FormatError as :meth:`Reconstruction.from_json`, and where
        it is not about these files.
        """
        answer = _decoded(_BATCH_DECODER, data, "a reconstruction of several files")
        reader = _Reader(suite)
        files = {reader.hash(name): tuple(reader.terms(listed)) for name, listed in answer.files.items()}
        if len(files) != len(answer.files) or files.keys() != set(asked):
            raise _broken("files", "the files in the answer are not those that were asked for")
        return cls(files, reader.v1_fetches(answer.fetch_info))


def ranges_body(spans: Iterable[tuple[Hash, int, int]]) -> bytes:
    """The body of POST /v2/reconstructions for bytes ``[start, end)`` of files."""
    return msgspec.json.encode(RangesBody([RangeBody(str(file), start, end) for file, start, end in spans]))


def ranges_to_json(found: Iterable[Reconstruction | None]) -> bytes:
    """The answer of POST /v2/reconstructions: of each range that was asked for its reconstruction, or null."""
    return msgspec.json.encode(_RangesAnswer([None if one is None else one._to_v2() for one in found]))


def ranges_from_json(
    data: Buffer, asked: int, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3
) -> tuple[Reconstruction | None, ...]:
    """Read the answer to a call for ``asked`` ranges. FormatError as :meth:`Reconstruction.from_json`, and for another
    number of them.
    """
    answer = _decoded(_RANGES_DECODER, data, "a list of reconstructions")
    if len(answer.reconstructions) != asked:
        raise _broken("ranges", f"{asked} ranges were asked for, and {len(answer.reconstructions)} came")
    return tuple(None if one is None else Reconstruction._of_wire(one, suite) for one in answer.reconstructions)


def _with_urls(
    fetches: Mapping[Hash, tuple[FetchRange, ...]], url_of: UrlMaker, most: int
) -> dict[Hash, tuple[FetchRange, ...]]:
    located: dict[Hash, tuple[FetchRange, ...]] = {}
    for xorb, ranges in fetches.items():
        groups = (ranges[at : at + most] for at in range(0, len(ranges), most))
        named = ((url_of(xorb, group), group) for group in groups)
        located[xorb] = tuple(replace(fetch, url=url) for url, group in named for fetch in group)
    return located


def term_fault(chunk_start: int, chunk_end: int, unpacked_bytes: int, suite: AlgorithmSuite) -> tuple[str, str] | None:
    """Rule and detail of the fault in the numbers of a term, or None (8.1, 7.1, 7.3.2)."""
    count = chunk_end - chunk_start
    if not (count > 0 and chunk_end <= suite.max_xorb_chunks):
        return "term.range", f"a term takes chunks {chunk_start} to {chunk_end} of a xorb"
    if not count <= unpacked_bytes <= count * suite.max_chunk_bytes:
        return "term.length", f"a term claims {unpacked_bytes} bytes in {count} chunks"
    return None


# Range trimming (8.3) and coalescing


def trim(
    terms: Sequence[Term], chunk_sizes: Callable[[Term], memoryview[int]], start: int, end: int
) -> tuple[int, tuple[Term, ...]]:
    """Cut ``terms`` down to the chunks that hold bytes ``[start, end)`` of what they make.

    Returns ``(offset_into_first_term, trimmed terms)``: chunks wholly outside are dropped at both ends, the
    offset counts from the first chunk that is kept. ``chunk_sizes`` gives the raw sizes of a term's chunks
    (u64 each); it is asked for the first and the last term at most, and only if a bound falls inside. Raises
    ValueError unless ``start < end`` and both lie in the bytes of all terms.
    """
    bounds = list(accumulate((term.unpacked_bytes for term in terms), initial=0))
    if not 0 <= start < end <= bounds[-1]:
        raise ValueError(f"bytes {start} to {end} are not in a file of {bounds[-1]} bytes")
    first = bisect_right(bounds, start) - 1
    last = bisect_right(bounds, end - 1) - 1
    kept = list(terms[first : last + 1])
    offset = start - bounds[first]
    if first == last:
        offset, kept[0] = _cut(kept[0], chunk_sizes, offset, end - bounds[first])
    else:
        offset, kept[0] = _cut(kept[0], chunk_sizes, offset, kept[0].unpacked_bytes)
        _, kept[-1] = _cut(kept[-1], chunk_sizes, 0, end - bounds[last])
    return offset, tuple(kept)


def _cut(term: Term, chunk_sizes: Callable[[Term], memoryview[int]], start: int, end: int) -> tuple[int, Term]:
    """``term`` without the chunks outside its bytes ``[start, end)``, and where ``start`` is in the rest."""
    if start == 0 and end == term.unpacked_bytes:
        return 0, term
    bounds = list(accumulate(chunk_sizes(term), initial=0))
    if len(bounds) != term.chunk_end - term.chunk_start + 1 or bounds[-1] != term.unpacked_bytes:
        raise ValueError(f"the chunk sizes given do not make the {term.unpacked_bytes} bytes of {term}")
    first = bisect_right(bounds, start) - 1
    stop = bisect_right(bounds, end - 1)
    cut = Term(term.xorb, term.chunk_start + first, term.chunk_start + stop, bounds[stop] - bounds[first])
    return start - bounds[first], cut


def coalesce(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Ranges ``[start, end)`` in ascending order, those that touch or overlap merged into one.

    >>> coalesce([(5, 9), (0, 2), (2, 4), (8, 12)])
    ((0, 4), (5, 12))
    """
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def chunk_ranges(terms: Iterable[Term]) -> dict[Hash, tuple[tuple[int, int], ...]]:
    """The coalesced chunk ranges that ``terms`` need, by xorb, in the order of first use."""
    ranges: dict[Hash, set[tuple[int, int]]] = {}
    for term in terms:
        ranges.setdefault(term.xorb, set()).add((term.chunk_start, term.chunk_end))
    return {xorb: coalesce(wanted) for xorb, wanted in ranges.items()}


# The plan of fetches


@dataclass(frozen=True, slots=True)
class Placement:
    """One use of a fetch: decode chunks ``[chunk_start, chunk_end)``, skip ``skip`` bytes, write ``length``.

    Chunk indices are the xorb's. ``output_offset`` counts from the first requested byte.
    """

    chunk_start: int
    chunk_end: int
    skip: int
    length: int
    output_offset: int


@dataclass(frozen=True, slots=True)
class PlannedFetch:
    """A byte range to download once, and everything it is good for, in output order."""

    fetch: FetchRange
    placements: tuple[Placement, ...]


def plan_fetches(reconstruction: Reconstruction, length: int) -> tuple[PlannedFetch, ...]:
    """Which ranges to download for ``length`` bytes of output, and where their chunks go.

    Each listed range is planned at most once, however many terms it serves; ranges that no term needs are left out.
    A term is served by the first listed range that holds all of it: FormatError if there is none, or if the
    terms make fewer than ``length`` bytes. Placements cover ``[0, length)`` without gap or overlap; only the
    one at 0 can have a skip. In order of the first output offset.
    """
    finders: dict[Hash, _Finder] = {}
    planned: dict[FetchRange, list[Placement]] = {}
    position = 0
    skip = reconstruction.offset_into_first_term
    for term in reconstruction.terms:
        if position == length:
            break
        finder = finders.get(term.xorb)
        if finder is None:
            finder = finders[term.xorb] = _Finder(reconstruction.fetches.get(term.xorb, ()))
        fetch = finder.find(term)
        if fetch is None:
            raise _broken(
                "fetch",
                f"no range holds chunks {term.chunk_start} to {term.chunk_end} of {term.xorb}",
            )
        taken = min(term.unpacked_bytes - skip, length - position)
        if taken <= 0:
            raise _broken("offset", f"{skip} bytes are to be skipped in a term of {term.unpacked_bytes}")
        planned.setdefault(fetch, []).append(Placement(term.chunk_start, term.chunk_end, skip, taken, position))
        position += taken
        skip = 0
    if position != length:
        raise _broken("length", f"the terms make {position} of {length} bytes")
    return tuple(PlannedFetch(fetch, tuple(placements)) for fetch, placements in planned.items())


class _Finder:
    """Finds the range that serves a term among the ranges listed for its xorb."""

    __slots__ = ("ranges", "starts")

    def __init__(self, ranges: Sequence[FetchRange]) -> None:
        self.ranges = ranges
        # Servers list disjoint ascending ranges, of which at most one can hold a term. Else look at all.
        disjoint = all(left.chunk_end <= right.chunk_start for left, right in pairwise(ranges))
        self.starts = [fetch.chunk_start for fetch in ranges] if disjoint else None

    def find(self, term: Term) -> FetchRange | None:
        candidates = self.ranges
        if self.starts is not None:
            index = bisect_right(self.starts, term.chunk_start)
            candidates = self.ranges[max(index - 1, 0) : index]
        for fetch in candidates:
            if fetch.chunk_start <= term.chunk_start and term.chunk_end <= fetch.chunk_end:
                return fetch
        return None


# The JSON forms. Byte ranges have inclusive ends in them, chunk ranges exclusive ones.

_Number = Annotated[int, msgspec.Meta(ge=0)]


class _Range(msgspec.Struct):
    start: _Number
    end: _Number


class _Term(msgspec.Struct):
    hash: str
    unpacked_length: _Number
    range: _Range
    chunk_hashes: bytes | msgspec.UnsetType = msgspec.UNSET


class _V1Fetch(msgspec.Struct):
    range: _Range
    url: str
    url_range: _Range


class _V2Range(msgspec.Struct):
    chunks: _Range
    bytes: _Range


class _V2Fetch(msgspec.Struct):
    url: str
    ranges: list[_V2Range]


class _Answer(msgspec.Struct):
    offset_into_first_range: _Number
    terms: list[_Term]
    fetch_info: dict[str, list[_V1Fetch]] | msgspec.UnsetType = msgspec.UNSET
    xorbs: dict[str, list[_V2Fetch]] | msgspec.UnsetType = msgspec.UNSET


class _BatchAnswer(msgspec.Struct):
    files: dict[str, list[_Term]]
    fetch_info: dict[str, list[_V1Fetch]]


class RangeBody(msgspec.Struct):
    """Bytes ``[start, end)`` of a file, as a request has them."""

    hash: str
    start: _Number
    end: _Number


class RangesBody(msgspec.Struct):
    """The body of a request for several ranges."""

    ranges: list[RangeBody]


class _RangesAnswer(msgspec.Struct):
    reconstructions: list[_Answer | None]


_T = TypeVar("_T")

_DECODER: Final = msgspec.json.Decoder(_Answer)
_BATCH_DECODER: Final = msgspec.json.Decoder(_BatchAnswer)
_RANGES_DECODER: Final = msgspec.json.Decoder(_RangesAnswer)


def _decoded(decoder: msgspec.json.Decoder[_T], data: Buffer, what: str) -> _T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _broken("json", f"not {what}: {error}") from None


def _wire_terms(terms: Iterable[Term]) -> list[_Term]:
    # Terms name the same few xorbs again and again: one text of each name is enough.
    names: dict[Hash, str] = {}
    wire: list[_Term] = []
    for term in terms:
        name = names.get(term.xorb)
        if name is None:
            name = names[term.xorb] = str(term.xorb)
        wire.append(_Term(name, term.unpacked_bytes, _Range(term.chunk_start, term.chunk_end)))
    return wire


def _v1_fetches(fetches: Mapping[Hash, tuple[FetchRange, ...]]) -> dict[str, list[_V1Fetch]]:
    return {
        str(xorb): [
            _V1Fetch(
                range=_Range(fetch.chunk_start, fetch.chunk_end),
                url=fetch.url,
                url_range=_Range(fetch.byte_start, fetch.byte_end - 1),
            )
            for fetch in ranges
        ]
        for xorb, ranges in fetches.items()
    }


class _Reader:
    """Turns the content of JSON into values, checking every number."""

    def __init__(self, suite: AlgorithmSuite) -> None:
        self.suite = suite
        self.hashes: dict[str, Hash] = {}

    def hash(self, text: str) -> Hash:
        # Terms name the same few xorbs again and again.
        found = self.hashes.get(text)
        if found is None:
            try:
                found = self.hashes[text] = Hash.parse(text)
            except UsageError as error:
                raise _broken("hash", str(error)) from None
        return found

    def terms(self, listed: Iterable[_Term]) -> Iterable[Term]:
        for entry in listed:
            start, end, unpacked = entry.range.start, entry.range.end, entry.unpacked_length
            fault = term_fault(start, end, unpacked, self.suite)
            if fault is not None:
                raise FormatError(fault[0], 0, fault[1])
            yield Term(self.hash(entry.hash), start, end, unpacked)

    def term_hashes(self, listed: Sequence[_Term]) -> tuple[bytes, ...] | None:
        """The chunk hashes of each term, None if no term has any. All of them have, or none."""
        hashes = tuple(entry.chunk_hashes for entry in listed if entry.chunk_hashes is not msgspec.UNSET)
        if not hashes:
            return None
        lengths = [(entry.range.end - entry.range.start) * HASH_BYTES for entry in listed]
        if [len(packed) for packed in hashes] != lengths:
            raise _broken("chunk_hashes", "there is not one hash for each chunk of each term")
        return hashes

    def v1_fetches(self, listed: Mapping[str, list[_V1Fetch]]) -> dict[Hash, tuple[FetchRange, ...]]:
        ranges = (
            (name, [(entry.url, entry.range, entry.url_range) for entry in entries]) for name, entries in listed.items()
        )
        return self._fetches(ranges)

    def v2_fetches(self, listed: Mapping[str, list[_V2Fetch]]) -> dict[Hash, tuple[FetchRange, ...]]:
        ranges = (
            (name, [(entry.url, part.chunks, part.bytes) for entry in entries for part in entry.ranges])
            for name, entries in listed.items()
        )
        return self._fetches(ranges)

    def _fetches(
        self, listed: Iterable[tuple[str, list[tuple[str, _Range, _Range]]]]
    ) -> dict[Hash, tuple[FetchRange, ...]]:
        named = ((self.hash(name), ranges) for name, ranges in listed)
        return {xorb: tuple(self._ranges(xorb, ranges)) for xorb, ranges in named}

    def _ranges(self, xorb: Hash, listed: Iterable[tuple[str, _Range, _Range]]) -> Iterable[FetchRange]:
        for url, chunks, octets in listed:
            count = chunks.end - chunks.start
            if not (count > 0 and chunks.end <= self.suite.max_xorb_chunks):
                raise FormatError("fetch.range", 0, f"chunks {chunks.start} to {chunks.end} are offered of {xorb}")
            width = octets.end + 1 - octets.start
            # A chunk is a header and 1 byte to a whole raw chunk of payload (7.3.2).
            least, most = CHUNK_HEADER_BYTES + 1, CHUNK_HEADER_BYTES + self.suite.max_chunk_bytes
            if not (count * least <= width <= count * most and octets.end < _U64_MAX):
                raise FormatError("fetch.bytes", 0, f"{count} chunks of {xorb} cannot be {width} bytes")
            yield FetchRange(xorb, url, chunks.start, chunks.end, octets.start, octets.end + 1)


def _broken(rule: str, detail: str) -> FormatError:
    return FormatError(f"reconstruction.{rule}", 0, detail)
