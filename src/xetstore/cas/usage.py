"""Usage: the bytes that files take, exact to the chunk: what deleting some would free, what each namespace has.

Chunks are what is counted, as they are stored. A chunk is free once no term of a granted file names it: files that are
deleted, and can be given back for a while, count as gone, because they go by themselves.

Both walk xorbs in groups of few users, each in snapshots of its own. Memory is that of a group, a bit for each file and
xorb (:class:`Ids`), and a row for each namespace.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from xetstore.batches import batches, sized_batches
from xetstore.cas.checksums import END_BYTES, section_bytes, told_section_bytes
from xetstore.cas.footers import READ_AT_ONCE, sound
from xetstore.errors import NotFoundError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.xorb import XorbInfo

if TYPE_CHECKING:
    from xetstore.cas.index import Reader, XorbRow
    from xetstore.cas.service import EmbeddedCas

FILES_AT_A_TIME: Final = 1000
XORBS_AT_A_TIME: Final = 256
USERS_AT_A_TIME: Final = 20_000
"""The most users that the xorbs of a group have together; one that has more is a group of its own."""
PAIRS_AT_A_TIME: Final = 100_000
"""The most pairs of a xorb and a namespace in memory, unless one xorb has more."""
_FOOTER_ENTRY_BYTES: Final = XorbInfo.footer_bytes(1) - XorbInfo.footer_bytes(0) + section_bytes(1) - section_bytes(0)

_NAMED, _LIVE = 1, 2
# What a chunk is after it was marked, by what it was before.
_MARK: Final = {mark: bytes(before | mark for before in range(256)) for mark in (_NAMED, _LIVE)}
_RUNS: Final = {kind: re.compile(b"[%c]+" % kind) for kind in (_NAMED, _NAMED | _LIVE)}
_UNUSED: Final = re.compile(rb"\0+")


class Ids:
    """A set of row ids, as one bit each."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self._count = 0

    def add(self, number: int) -> None:
        """Take in an id."""
        at, bit = number >> 3, 1 << (number & 7)
        if at >= len(self._bits):
            self._bits.extend(bytes(max(at + 1 - len(self._bits), 4096)))
        self._count += not self._bits[at] & bit
        self._bits[at] |= bit

    def update(self, numbers: Iterable[int]) -> None:
        """Take in ids."""
        for number in numbers:
            self.add(number)

    def __contains__(self, number: int) -> bool:
        at = number >> 3
        return at < len(self._bits) and bool(self._bits[at] & 1 << (number & 7))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        for found in re.finditer(rb"[^\0]", self._bits):
            byte = found[0][0]
            yield from (found.start() << 3 | bit for bit in range(8) if byte & 1 << bit)


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The stored bytes that deleting files would free, once they are collected and rewritten.

    ``files`` are named, ``gone`` of them no other namespace has; ``logical_bytes`` is their size, of all that are
    named. ``object_bytes`` are those of ``objects`` whole xorbs, which no other file uses. ``part_bytes`` are those of
    chunks that no other file uses in ``parts`` xorbs which others use: a rewrite frees them. ``garbage_bytes`` are
    those of chunks in these which no file uses even now. ``shared_bytes`` are those of chunks that stay, because
    ``other_files``, or the same ones in other namespaces, use them, which ``other_namespaces`` have.
    """

    files: int
    gone: int
    logical_bytes: int
    object_bytes: int
    objects: int
    part_bytes: int
    parts: int
    garbage_bytes: int
    shared_bytes: int
    other_files: int
    other_namespaces: int

    @property
    def freed_bytes(self) -> int:
        """Bytes that are freed in all."""
        return self.object_bytes + self.part_bytes


@dataclass(slots=True)
class Selection:
    """Files that are named: single ones of a namespace, and all of some namespaces."""

    files: dict[str, Ids] = field(default_factory=dict)
    namespaces: set[str] = field(default_factory=set)

    def has(self, namespace: str, file_id: int) -> bool:
        """True if the grant of a file to a namespace would be gone."""
        return namespace in self.namespaces or (namespace in self.files and file_id in self.files[namespace])


def what_if_deleted(cas: EmbeddedCas, files: Mapping[str, Iterable[Hash]], namespaces: Collection[str] = ()) -> WhatIf:
    """Tell what deleting these ``files`` of namespaces, and all files of ``namespaces``, would free.

    Nothing is changed. Raises NotFoundError for a file that its namespace has not, DamagedError.
    """
    selection = Selection(namespaces=set(namespaces))
    for namespace, hashes in files.items():
        selection.files[namespace] = _ids_of(cas, namespace, hashes)
    return _WhatIf(cas, selection).run()


class _WhatIf:
    """One run of the question."""

    def __init__(self, cas: EmbeddedCas, selection: Selection) -> None:
        self._cas, self._selection = cas, selection
        self._named, self._xorbs, self._others = Ids(), Ids(), Ids()
        self._namespaces: set[str] = set()
        self._logical = self._gone = 0
        self._sums = dict.fromkeys(("objects", "object_bytes", "parts", "part_bytes", "garbage", "shared"), 0)

    def run(self) -> WhatIf:
        for page in self._pages_of_named():
            self._look_at(page)
        for group in _groups(self._cas, self._xorbs):
            self._count(group)
        sums = self._sums
        return WhatIf(
            files=len(self._named),
            gone=self._gone,
            logical_bytes=self._logical,
            object_bytes=sums["object_bytes"],
            objects=sums["objects"],
            part_bytes=sums["part_bytes"],
            parts=sums["parts"],
            garbage_bytes=sums["garbage"],
            shared_bytes=sums["shared"],
            other_files=len(self._others),
            other_namespaces=len(self._namespaces),
        )

    def _pages_of_named(self) -> Iterator[Sequence[int]]:
        for ids in self._selection.files.values():
            yield from batches(ids, FILES_AT_A_TIME)
        for namespace in self._selection.namespaces:
            yield from self._pages_of(namespace)

    def _pages_of(self, namespace: str) -> Iterator[Sequence[int]]:
        def ask(reader: Reader, behind: int) -> list[int]:
            return reader.granted_ids(namespace, behind, FILES_AT_A_TIME)

        return self._cas.index.pages(ask, int, 0)

    def _look_at(self, page: Sequence[int]) -> None:
        """Note some named files, whether others have them, and their xorbs."""
        new = [file_id for file_id in page if file_id not in self._named]
        self._named.update(new)
        with self._cas.index.snapshot() as reader:
            self._logical += reader.size_of(new)
            self._xorbs.update(reader.xorbs_in(new))
            kept = {
                file_id
                for file_id, namespace in reader.namespaces_of(new)
                if not self._selection.has(namespace, file_id)
            }
        self._gone += len(new) - len(kept)

    def _count(self, group: Sequence[XorbRow]) -> None:
        marks = {row.id: bytearray(row.chunk_count) for row in group}
        for page in _users(self._cas, marks):
            named = [file_id for file_id in page if file_id in self._named]
            with self._cas.index.snapshot() as reader:
                for _, xorb_id, start, end in reader.uses(named, marks):
                    _mark(marks[xorb_id], start, end, _NAMED)
        in_use = set()
        for page in _users(self._cas, marks):
            in_use |= self._mark_live(page, marks)
        whole = [row for row in group if row.id not in in_use]
        self._sums["objects"] += len(whole)
        self._sums["object_bytes"] += sum(_object_sizes(self._cas, whole))
        used = [row for row in group if row.id in in_use]
        for row, info in zip(used, self._cas.footers.get_many(used), strict=True):
            chunks, footer = marks[row.id], sound(info)
            part = _bytes_of(footer, chunks, _RUNS[_NAMED])
            self._sums["parts"] += part > 0
            self._sums["part_bytes"] += part
            self._sums["garbage"] += _bytes_of(footer, chunks, _UNUSED)
            self._sums["shared"] += _bytes_of(footer, chunks, _RUNS[_NAMED | _LIVE])

    def _mark_live(self, page: Sequence[int], marks: Mapping[int, bytearray]) -> set[int]:
        """Mark what files use that stay, and note those that share something; the xorbs of them."""
        in_use: set[int] = set()
        with self._cas.index.snapshot() as reader:
            live: dict[int, set[str]] = {}
            for file_id, namespace in reader.namespaces_of(page):
                if not self._selection.has(namespace, file_id):
                    live.setdefault(file_id, set()).add(namespace)
            for file_id, xorb_id, start, end in reader.uses([*live], marks):
                chunks = marks[xorb_id]
                in_use.add(xorb_id)
                part = chunks[start:end]
                if _NAMED in part or _NAMED | _LIVE in part:
                    self._namespaces |= live[file_id]
                    if file_id not in self._named:
                        self._others.add(file_id)
                _mark(chunks, start, end, _LIVE)
        return in_use


@dataclass(slots=True)
class NamespaceUsage:
    """The files of a namespace, their size, and the stored bytes of their chunks.

    ``unique_bytes`` are those of chunks that no other namespace uses, ``shared_bytes`` those of the others.
    """

    namespace: str
    files: int = 0
    logical_bytes: int = 0
    unique_bytes: int = 0
    shared_bytes: int = 0


def usage_by_namespace(cas: EmbeddedCas, *, progress: Callable[[int], None] = lambda _: None) -> list[NamespaceUsage]:
    """The usage of each namespace that has a file, those with the most unique bytes first.

    One walk over all xorbs, with the terms of their files; a footer is read where not all of a xorb is used alike.
    ``progress`` is told the number of xorbs that were looked at. Raises DamagedError.
    """
    usages: dict[str, NamespaceUsage] = {}
    place = "", 0
    while True:
        with cas.index.snapshot() as reader:
            page = reader.grants_behind(*place, FILES_AT_A_TIME)
        for namespace, _, size in page:
            usage = usages.setdefault(namespace, NamespaceUsage(namespace))
            usage.files += 1
            usage.logical_bytes += size
        if len(page) < FILES_AT_A_TIME:
            break
        place = page[-1][:2]
    pages = cas.index.pages(lambda reader, last: reader.xorbs_after(last, XORBS_AT_A_TIME), lambda row: row.id, 0)
    for rows in pages:
        for group in _grouped(cas, rows):
            _add_usage(cas, group, usages)
        progress(len(rows))
    return sorted(usages.values(), key=lambda usage: (-usage.unique_bytes, -usage.logical_bytes, usage.namespace))


def _add_usage(cas: EmbeddedCas, group: Sequence[XorbRow], usages: dict[str, NamespaceUsage]) -> None:
    """Add what each namespace has of some xorbs. The chunks of a xorb that it uses are the bits of a number."""
    masks: dict[int, dict[str, int]] = {row.id: {} for row in group}
    for page in _users(cas, masks):
        with cas.index.snapshot() as reader:
            used: dict[int, dict[int, int]] = {}
            for file_id, xorb_id, start, end in reader.uses(page, masks):
                of_file = used.setdefault(file_id, {})
                of_file[xorb_id] = of_file.get(xorb_id, 0) | ((1 << end - start) - 1) << start
            for file_id, namespace in reader.namespaces_of(page):
                for xorb_id, bits in used.get(file_id, {}).items():
                    masks[xorb_id][namespace] = masks[xorb_id].get(namespace, 0) | bits
        if len(group) > 1 and sum(map(len, masks.values())) > PAIRS_AT_A_TIME:
            middle = len(group) // 2
            for half in (group[:middle], group[middle:]):
                _add_usage(cas, half, usages)
            return
    mixed = []
    for row in group:
        everything = (1 << row.chunk_count) - 1
        by_namespace = masks[row.id]
        if any(bits != everything for bits in by_namespace.values()):
            mixed.append(row)
            continue
        for namespace in by_namespace:
            _add(usages, namespace, row.region_bytes, is_unique=len(by_namespace) == 1)
    for row, info in zip(mixed, cas.footers.get_many(mixed), strict=True):
        _add_mixed(sound(info), masks[row.id], usages)


def _add_mixed(footer: XorbInfo, by_namespace: Mapping[str, int], usages: dict[str, NamespaceUsage]) -> None:
    once = twice = 0
    for bits in by_namespace.values():
        twice |= once & bits
        once |= bits
    for namespace, bits in by_namespace.items():
        _add(usages, namespace, _region_bytes(footer, bits & ~twice), is_unique=True)
        _add(usages, namespace, _region_bytes(footer, bits & twice), is_unique=False)


def _add(usages: dict[str, NamespaceUsage], namespace: str, nbytes: int, *, is_unique: bool) -> None:
    usage = usages.setdefault(namespace, NamespaceUsage(namespace))  # a grant may have come since
    if is_unique:
        usage.unique_bytes += nbytes
    else:
        usage.shared_bytes += nbytes


def _region_bytes(footer: XorbInfo, bits: int) -> int:
    """Stored bytes of the chunks whose bits are set."""
    ends, total, at = memoryview(footer.ends).cast("Q"), 0, 0
    while bits:
        skipped = (bits & -bits).bit_length() - 1
        bits >>= skipped
        at += skipped
        run = (~bits & bits + 1).bit_length() - 1
        total += ends[at + run - 1] - (ends[at - 1] if at else 0)
        bits >>= run
        at += run
    return total


def _ids_of(cas: EmbeddedCas, namespace: str, hashes: Iterable[Hash]) -> Ids:
    ids = Ids()
    for some in batches(dict.fromkeys(hashes) if isinstance(hashes, Collection) else hashes, FILES_AT_A_TIME):
        with cas.index.snapshot() as reader:
            found = reader.granted_among(namespace, [name.digest for name in some])
        for name in some:
            if name.digest not in found and name != Hash.ZERO:  # the empty file takes nothing, and has no row
                raise NotFoundError(f"there is no file {name}")
        ids.update(found.values())
    return ids


def _groups(cas: EmbeddedCas, xorbs: Iterable[int]) -> Iterator[list[XorbRow]]:
    for ids in batches(xorbs, XORBS_AT_A_TIME):
        with cas.index.snapshot() as reader:
            rows = reader.xorbs_with(ids)
        yield from _grouped(cas, [rows[xorb_id] for xorb_id in ids if xorb_id in rows])


def _grouped(cas: EmbeddedCas, rows: Sequence[XorbRow]) -> Iterator[list[XorbRow]]:
    """Xorbs in groups of a bounded number of users; those that no file is made of are left out."""
    with cas.index.snapshot() as reader:
        counts = reader.user_counts([row.id for row in rows])
    used = [row for row in rows if counts.get(row.id, 0)]
    return sized_batches(used, lambda row: counts[row.id], USERS_AT_A_TIME)


def _users(cas: EmbeddedCas, group: Mapping[int, object]) -> Iterator[Sequence[int]]:
    """The files that are made of any of these xorbs, in pages of ids."""
    ids = [*group]
    return cas.index.pages(
        lambda reader, behind: reader.users_behind(ids, behind, FILES_AT_A_TIME), lambda file_id: file_id, 0
    )


def _mark(chunks: bytearray, start: int, end: int, mark: int) -> None:
    chunks[start:end] = chunks[start:end].translate(_MARK[mark])


def _bytes_of(footer: XorbInfo, chunks: bytearray, runs: re.Pattern[bytes]) -> int:
    """Bytes of the chunks of some kind in an object: in its region, and an entry each at its end."""
    total = 0
    for run in runs.finditer(chunks):
        start, end = footer.byte_range(run.start(), run.end())
        total += end - start + (run.end() - run.start()) * _FOOTER_ENTRY_BYTES
    return total


def _object_sizes(cas: EmbeddedCas, rows: Sequence[XorbRow]) -> Iterator[int]:
    """The sizes of stored objects, by their ends, which tell if they have checksums; several of them at a time."""
    for some in batches(rows, READ_AT_ONCE):
        ends = [(row.key, size - END_BYTES, size) for row in some for size in (max(row.sizes),)]
        for row, end in zip(some, cas.blobs.get_ranges(ends), strict=True):
            if isinstance(end, bytes) and told_section_bytes(end):
                yield max(row.sizes)
            else:
                info = cas.blobs.stat(row.key)
                yield 0 if info is None else info.size
