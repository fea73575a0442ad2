"""From the terms of a file to the chunks, and the byte ranges of stored objects, that make it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from xetstore.cas.footers import FooterCache, sound
from xetstore.cas.layout import object_name
from xetstore.errors import DamagedError, XetError
from xetstore.protocol.reconstruction import FetchRange, Term, chunk_ranges

if TYPE_CHECKING:
    from xetstore.cas.index import XorbRow
    from xetstore.protocol.chunking import ChunkList
    from xetstore.protocol.hashes import Hash

SCHEME: Final = "xorb:"


def object_url(xorb: Hash, generation: str) -> str:
    """The name of an object in a reconstruction: byte ranges of one are nothing to another."""
    return f"{SCHEME}{object_name(xorb, generation)}"


def chunks_of(footers: FooterCache, rows: Mapping[Hash, XorbRow], terms: Sequence[Term]) -> Iterator[ChunkList]:
    """The chunks of each of these terms. Raises DamagedError where a footer is damaged."""
    for term, footer in zip(terms, footers.get_many(rows[term.xorb] for term in terms), strict=True):
        yield sound(footer).chunks.slice(term.chunk_start, term.chunk_end)


def fetches_of(
    footers: FooterCache, rows: Mapping[Hash, XorbRow], terms: Iterable[Term]
) -> dict[Hash, tuple[FetchRange, ...]]:
    """The coalesced ranges that hold the chunks of terms, by xorb. Raises DamagedError where a footer is damaged."""
    ranges = chunk_ranges(terms)
    # All of a xorb, as in most files: its footer need not be read.
    parts = [rows[xorb] for xorb, chunks in ranges.items() if chunks != ((0, rows[xorb].chunk_count),)]
    spans: dict[Hash, tuple[tuple[int, int], ...]] = {xorb: ((0, rows[xorb].region_bytes),) for xorb in ranges}
    for row, footer in zip(parts, footers.get_many(parts), strict=True):
        spans[row.hash] = tuple(sound(footer).byte_range(*chunks) for chunks in ranges[row.hash])
    return {
        xorb: tuple(
            FetchRange(xorb, object_url(xorb, rows[xorb].generation), *chunks, *span)
            for chunks, span in zip(ranges[xorb], spans[xorb], strict=True)
        )
        for xorb in ranges
    }


@contextlib.contextmanager
def as_damage(*files: Hash) -> Iterator[None]:
    """Take an error for damage: the terms of a file were checked when it was registered, so if they do not hold now,
    the store is damaged.
    """
    try:
        yield
    except XetError:
        raise
    except (KeyError, ValueError) as error:
        raise DamagedError(f"the index and the xorbs of file {', '.join(map(str, files))} differ: {error}") from error
