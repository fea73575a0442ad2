"""Comparisons: the spans cover both versions, what is said to be equal is, and little that is equal is missed."""

from __future__ import annotations

import dataclasses
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.around import AroundCas
from tests.support.strategies import splitmix64
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import FormatError, NotFoundError, SourceChangedError, TooLargeError, UsageError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Reconstruction
from xetstore.transfer.compare import versions
from xetstore.transfer.compare.alignment import UNKNOWN, align, number
from xetstore.transfer.compare.comparison import Comparison, Side, SpanKind, compare
from xetstore.transfer.compare.edges import ByteEdges
from xetstore.transfer.upload.session import put_files

MIB = 1 << 20
A, B, C = splitmix64(1, 4 * MIB), splitmix64(2, 2 * MIB), splitmix64(3, 3 * MIB)
EQUAL, CHANGED, INSERTED, DELETED = SpanKind


def edited(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


VERSIONS: dict[str, tuple[bytes, bytes]] = {
    "a byte changed": (A, edited(A, 2 * MIB, bytes([A[2 * MIB] ^ 1]))),
    "bytes inserted": (A, A[:MIB] + b"inserted" + A[MIB:]),
    "bytes deleted": (A, A[:MIB] + A[MIB + 1000 :]),
    "put in front": (A, B + A),
    "appended": (A, A + B),
    "cut off": (A + B, A),
    "a part replaced": (A + B + C, A + splitmix64(9, MIB) + C),
    "parts swapped": (A + B, B + A),
    "nothing in common": (A, B),
    "from nothing": (b"", A),
    "to nothing": (A, b""),
    "fewer zeros": (A + bytes(9 * MIB) + B, A + bytes(5 * MIB) + B),
    "edited all over": (A + C, b"".join(A[i : i + 700_000] + b"!" for i in range(0, 4 * MIB, 700_000)) + C),
}


class NoHashes(EmbeddedCas):
    """A store as servers are that tell no chunk hashes; it counts what it is asked."""

    asked = 0

    def reconstruct(
        self, file: Hash, start: int = 0, end: int | None = None, *, hashes: bool = False, **_: object
    ) -> Reconstruction:
        self.asked += 1
        return dataclasses.replace(super().reconstruct(file, start, end), term_hashes=None)

    def fetch_xorb(self, fetch: Any) -> Any:
        raise AssertionError("no data is to be fetched")


@pytest.fixture
def cas(tmp_path: Path) -> Iterator[EmbeddedCas]:
    opened = EmbeddedCas.open(tmp_path / "store")
    yield opened
    opened.close()


def write(folder: Path, *contents: bytes) -> list[Path]:
    paths = [folder / f"version {i}" for i in range(len(contents))]
    for path, data in zip(paths, contents, strict=True):
        path.write_bytes(data)
    return paths


def stored(cas: EmbeddedCas, *paths: Path) -> list[Hash]:
    return [report.info.hash for report in put_files(cas, paths)]


def verify(found: Comparison, old: bytes, new: bytes) -> None:
    """What every comparison must be, whatever the versions."""
    assert (found.old_size, found.new_size) == (len(old), len(new))
    assert found.equal == (old == new)
    at = (0, 0)
    for place, span in enumerate(found.spans):
        assert (span.old_start, span.new_start) == at
        at = span.old_end, span.new_end
        taken, given = old[span.old_start : span.old_end], new[span.new_start : span.new_end]
        match span.kind:
            case SpanKind.EQUAL:
                assert taken == given != b""
            case SpanKind.CHANGED:
                assert taken
                assert given
            case SpanKind.INSERTED:
                assert given
                assert not taken
            case SpanKind.DELETED:
                assert taken
                assert not given
        assert place == 0 or found.spans[place - 1].kind is not span.kind
    assert at == (len(old), len(new))


@pytest.mark.parametrize("name", VERSIONS)
@pytest.mark.parametrize(
    "sides", ["local, local", "local, stored", "stored, local", "stored, stored", "placed, placed"]
)
def test_spans_cover_both_versions_and_are_right(tmp_path: Path, cas: EmbeddedCas, name: str, sides: str) -> None:
    old, new = VERSIONS[name]
    paths = write(tmp_path, old, new)
    plain = compare(*paths, exact=False)
    if sides == "local, local":
        found = compare(*paths)
        verify(found, old, new)
        assert found.exact
        assert found.equal_bytes >= plain.equal_bytes
    else:
        hashes = stored(cas, *paths)
        of = NoHashes(cas.blobs, cas.index) if "placed" in sides else cas
        both: list[Side] = [
            path if side == "local" else (of, file)
            for side, path, file in zip(sides.split(", "), paths, hashes, strict=True)
        ]
        found = compare(*both)
        verify(found, old, new)
        assert dataclasses.replace(found, exact=False) == plain
    assert plain.equal_bytes <= plain.shared_bytes <= len(new)
    assert plain.shared_chunks <= plain.new_chunks


def test_spans_of_local_files_end_at_the_very_byte(tmp_path: Path) -> None:
    new = A[:MIB] + b"inserted" + A[MIB : 3 * MIB] + bytes([A[3 * MIB] ^ 1]) + A[3 * MIB + 1 : -10]
    found = compare(*write(tmp_path, A, new))
    assert [(span.kind, span.new_start, span.new_end) for span in found.spans] == [
        (EQUAL, 0, MIB),
        (INSERTED, MIB, MIB + 8),
        (EQUAL, MIB + 8, 3 * MIB + 8),
        (CHANGED, 3 * MIB + 8, 3 * MIB + 9),
        (EQUAL, 3 * MIB + 9, len(new)),
        (DELETED, len(new), len(new)),
    ]


def test_a_version_is_equal_to_itself(tmp_path: Path, cas: EmbeddedCas) -> None:
    [path] = write(tmp_path, A)
    [file] = stored(cas, path)
    pairs: list[tuple[Side, Side]] = [(path, path), (path, (cas, file)), ((cas, file), (cas, file))]
    for pair in pairs:
        found = compare(*pair)
        assert found.equal
        assert found.exact
        assert [span.kind for span in found.spans] == [EQUAL]
        assert found.shared_bytes == found.equal_bytes == len(A)
        assert found.shared_chunks == found.old_chunks == found.new_chunks > 10


def test_nothing_is_equal_to_nothing(tmp_path: Path, cas: EmbeddedCas) -> None:
    [path] = write(tmp_path, b"")
    assert stored(cas, path) == [Hash.ZERO]
    found = compare(path, (cas, Hash.ZERO))
    assert found.equal
    assert found.spans == ()


def test_what_moved_is_shared_and_the_larger_part_stays(tmp_path: Path) -> None:
    found = compare(*write(tmp_path, A + B, B + A))
    assert found.shared_bytes >= len(A) + len(B) - 3 * 131072
    assert found.equal_bytes >= len(A) - 2 * 131072


def test_a_file_longer_than_a_window_is_asked_for_in_windows(tmp_path: Path, cas: EmbeddedCas) -> None:
    class Brief(AroundCas):
        """Tells of no more than 300 kB of a file at a time."""

        def reconstruct(
            self, file: Hash, start: int = 0, end: int | None = None, *, hashes: bool = False, inline: int = 0
        ) -> Reconstruction:
            if end is None or end - start > 300_000:
                raise TooLargeError("ask for less")
            return super().reconstruct(file, start, end, hashes=hashes)

    old, new = VERSIONS["a part replaced"]
    paths = write(tmp_path, old, new)
    one, two = stored(cas, *paths)
    brief = Brief(cas)
    found = compare((brief, one), (brief, two))
    verify(found, old, new)
    assert dataclasses.replace(found, exact=False) == compare(*paths, exact=False)


def test_a_server_that_tells_no_hashes_is_asked_little(tmp_path: Path, cas: EmbeddedCas) -> None:
    old = A + B + C
    new = edited(edited(old, 5 * MIB, b"x" * 10), 8 * MIB, b"y" * 10)
    one, two = stored(cas, *write(tmp_path, old, new))
    server = NoHashes(cas.blobs, cas.index)
    found = compare((server, one), (server, two))
    verify(found, old, new)
    assert found.equal_bytes > len(old) - 500_000
    assert server.asked < 40


def test_a_local_file_and_a_server_that_tells_no_hashes_cannot_be_compared(tmp_path: Path, cas: EmbeddedCas) -> None:
    [path] = write(tmp_path, A)
    [file] = stored(cas, path)
    with pytest.raises(UsageError, match="version 0 cannot be compared") as caught:
        compare(path, (NoHashes(cas.blobs, cas.index), file))
    assert caught.value.hint


def test_a_server_that_contradicts_itself_is_refused(tmp_path: Path, cas: EmbeddedCas) -> None:
    class Liar(NoHashes):
        def reconstruct(self, *args: Any, **options: Any) -> Reconstruction:
            found = super().reconstruct(*args, **options)
            if found.unpacked_bytes > 200_000:
                return found
            [term] = found.terms
            lie = dataclasses.replace(term, chunk_start=term.chunk_start + 999, chunk_end=term.chunk_end + 999)
            return dataclasses.replace(found, terms=(lie,))

    one, two = stored(cas, *write(tmp_path, A + B + C, A + C))
    server = Liar(cas.blobs, cas.index)
    with pytest.raises(FormatError, match="different chunks"):
        compare((server, one), (server, two))


def test_what_is_missing_or_no_file_is_refused(tmp_path: Path, cas: EmbeddedCas) -> None:
    [path] = write(tmp_path, A)
    with pytest.raises(NotFoundError):
        compare(path, tmp_path / "missing")
    with pytest.raises(UsageError):
        compare(tmp_path, path)
    with pytest.raises(NotFoundError):
        compare(path, (cas, Hash(bytes(range(32)))))


def test_a_file_that_changes_while_its_edges_are_looked_for_is_refused(tmp_path: Path) -> None:
    paths = write(tmp_path, A, B)
    one, two = (versions.LocalVersion(path, threads=None, progress=None) for path in paths)
    paths[0].write_bytes(C)
    with pytest.raises(SourceChangedError, match="version 0 changed"), ByteEdges(one, two) as edges:
        edges.equal_at_ends((0, 100), (0, 100))
    with pytest.raises(SourceChangedError, match="version 0 changed"), ByteEdges(one, two) as edges:
        edges.equal_at_ends((0, len(A)), (0, len(B)))
        edges.equal_at_ends((len(A), len(A) + 5), (0, len(B)))


@settings(max_examples=60)
@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=600_000), st.integers(0, 10**6))
def test_edges_are_found_wherever_they_are(old: bytes, new: bytes, same: bytes, seed: int) -> None:
    same = same * 3
    cut = random.Random(seed).randint(0, len(same))
    left, right = same[:cut] + old + same[cut:], same[:cut] + new + same[cut:]
    with tempfile.TemporaryDirectory() as folder:
        found = compare(*write(Path(folder), left, right))
    verify(found, left, right)
    for span in found.spans:
        if span.kind is SpanKind.CHANGED:
            assert left[span.old_start] != right[span.new_start]
            assert left[span.old_end - 1] != right[span.new_end - 1]


# --- Alignment ------------------------------------------------------------------------------------------


def keys(letters: list[int]) -> bytes:
    return b"".join(bytes([letter]) * 32 for letter in letters)


def aligned(old: list[int], new: list[int]) -> list[tuple[int, int, int]]:
    matches = align(*number(keys(old), keys(new)))
    at = (0, 0)
    for i, j, count in matches:
        assert count > 0
        assert i >= at[0]
        assert j >= at[1]
        assert old[i : i + count] == new[j : j + count]
        at = (i + count, j + count)
    return matches


short_lists = st.lists(st.integers(0, 12), max_size=40)


@given(short_lists, short_lists)
def test_matches_are_equal_and_in_order(old: list[int], new: list[int]) -> None:
    aligned(old, new)


@settings(max_examples=80)
@given(st.lists(st.integers(0, 255), max_size=120, unique=True), st.data())
def test_of_chunks_that_are_all_different_the_longest_common_part_is_found(old: list[int], data: st.DataObject) -> None:
    new = data.draw(st.permutations(old)) if data.draw(st.booleans()) else [x for x in old if data.draw(st.booleans())]
    best = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i, left in enumerate(old):
        for j, right in enumerate(new):
            best[i + 1][j + 1] = best[i][j] + 1 if left == right else max(best[i][j + 1], best[i + 1][j])
    assert sum(count for _, _, count in aligned(old, new)) >= best[-1][-1] * 0.9


@settings(max_examples=50)
@given(short_lists)
def test_a_list_is_aligned_with_itself(chunks: list[int]) -> None:
    assert aligned(chunks, chunks) == ([(0, 0, len(chunks))] if chunks else [])


def test_repeated_chunks_are_matched_around_what_is_unique() -> None:
    assert sum(count for _, _, count in aligned([0] * 50 + [1] + [0] * 50, [0] * 30 + [1] + [0] * 70)) >= 81
    assert sum(count for _, _, count in aligned([1, 2] * 30, [2, 1] * 30)) >= 58
    assert aligned([0] * 90 + [1, 2, 3], [1, 2] + [0] * 80) == [(0, 2, 80)]


def test_chunks_whose_hashes_start_alike_are_not_taken_for_equal() -> None:
    one, two, three = (bytes(8) + bytes([i]) * 24 for i in range(3))
    old, new = number(one + two + one, two + three + one)
    assert old.tolist() == [0, 1, 0]
    assert new.tolist() == [UNKNOWN, UNKNOWN, 0]


@pytest.mark.parametrize("kind", ["random order", "all alike", "few alike", "interleaved"])
def test_long_lists_of_any_kind_are_aligned_in_reasonable_time(kind: str) -> None:
    count = 30_000
    chance = random.Random(4)
    digests = [index.to_bytes(4, "big") + bytes(28) for index in range(count)]
    match kind:
        case "random order":
            old, new = digests, chance.sample(digests, count)
        case "all alike":
            old, new = [digests[0]] * count, [digests[0]] * (count // 2)
        case "few alike":
            old, new = chance.choices(digests[:50], k=count), chance.choices(digests[:50], k=count)
        case _:
            old, new = digests, [digest for i in range(count) for digest in (digests[i], bytes([i % 256]) * 32)]
    assert align(*number(b"".join(old), b"".join(new)))
