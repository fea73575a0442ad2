"""Reachable: which objects of one history some refs lead to, in little memory: 20 bytes and a bit for each object."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Final

from xetstore.cas.throttle import Throttle
from xetstore.errors import DamagedError
from xetstore.hub.objects import SUBMODULE, CommitData, ObjectKind, read_tree, tagged
from xetstore.hub.queries import HubReader

_READ_AT_A_TIME: Final = 50
_OID_BYTES: Final = 20


class ObjectTable:
    """The ids of all objects that a repository had at one time, in their order, and a mark at each.

    An object that came later can be marked too, and is never among the unmarked.

    >>> table = ObjectTable([bytes(20), b"\\x01" * 20])
    >>> table.mark(bytes(20)), table.mark(bytes(20)), table.mark(b"\\x02" * 20)
    (True, False, True)
    >>> [oid.hex()[:2] for oid in table.unmarked()]
    ['01']
    """

    def __init__(self, oids: Iterable[bytes]) -> None:
        self._data = bytearray()
        firsts = [0] * 257
        for oid in oids:
            self._data += oid
            firsts[oid[0] + 1] += 1
        for place in range(256):
            firsts[place + 1] += firsts[place]
        self._firsts = firsts
        self._marks = bytearray(len(self) // 8 + 1)
        self._others: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._data) // _OID_BYTES

    def mark(self, oid: bytes) -> bool:
        """Mark an object; False if it is marked."""
        place = self._place(oid)
        if place is None:
            is_new = oid not in self._others
            self._others.add(oid)
            return is_new
        bit = 1 << place % 8
        if self._marks[place // 8] & bit:
            return False
        self._marks[place // 8] |= bit
        return True

    def is_marked(self, oid: bytes) -> bool:
        """True if an object is marked."""
        place = self._place(oid)
        return oid in self._others if place is None else self._is_marked(place)

    def unmarked(self) -> Iterator[bytes]:
        """The ids that are not marked, in order; marks may be made meanwhile."""
        for place in range(len(self)):
            if not self._is_marked(place):
                yield bytes(self._data[_OID_BYTES * place : _OID_BYTES * (place + 1)])

    def _is_marked(self, place: int) -> bool:
        return bool(self._marks[place // 8] & 1 << place % 8)

    def _place(self, oid: bytes) -> int | None:
        low, high = self._firsts[oid[0]], self._firsts[oid[0] + 1]
        while low < high:
            middle = (low + high) // 2
            found = self._data[_OID_BYTES * middle : _OID_BYTES * (middle + 1)]
            if found == oid:
                return middle
            if found < oid:
                low = middle + 1
            else:
                high = middle
        return None


class Reachable:
    """Marks all that some roots lead to. Each object is read once, some at a time, from snapshots of their own: an
    object never changes. Not thread-safe.
    """

    def __init__(
        self,
        snapshot: Callable[[], AbstractContextManager[HubReader]],
        repository_id: int,
        table: ObjectTable,
        throttle: Throttle,
    ) -> None:
        self._snapshot = snapshot
        self._id = repository_id
        self._throttle = throttle
        self.table = table
        self.roots: set[bytes] = set()
        """The roots from which all is marked."""

    def add(self, roots: Collection[bytes]) -> None:
        """Mark all that these commits and tags lead to. Raises DamagedError if an object on the way is not there, or
        cannot be read.
        """
        commits = [oid for oid in roots if self.table.mark(oid)]
        trees: list[bytes] = []
        while stack := trees or commits:  # trees first, so that few wait
            batch = [stack.pop() for _ in range(min(_READ_AT_A_TIME, len(stack)))]
            with self._snapshot() as reader:
                found = list(reader.objects(self._id, batch))
            if lacking := {*batch} - {oid for oid, _, _ in found}:
                raise DamagedError(f"a repository lacks the object {min(lacking).hex()}")
            for _, kind, data in found:
                self._follow(kind, data, commits, trees)
            self._throttle.rest()
        self.roots |= {*roots}

    def _follow(self, kind: ObjectKind, data: bytes, commits: list[bytes], trees: list[bytes]) -> None:
        mark = self.table.mark
        match kind:
            case ObjectKind.COMMIT:
                commit = CommitData.parse(data)
                commits += (oid for oid in commit.parents if mark(oid))
                trees += (oid for oid in (commit.tree,) if mark(oid))
            case ObjectKind.TREE:
                for item in read_tree(data).values():
                    if item.mode != SUBMODULE and mark(item.oid) and item.is_folder:
                        trees.append(item.oid)
            case ObjectKind.TAG:
                oid, named = tagged(data)
                if mark(oid) and named is not ObjectKind.BLOB:
                    commits.append(oid)
            case ObjectKind.BLOB:
                pass
