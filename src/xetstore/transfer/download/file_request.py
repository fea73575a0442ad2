"""FileRequest: a file of a download of many, all the places where it goes, and all that has come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from xetstore.errors import UsageError, XetError
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash, file_hash, xorb_hash
from xetstore.transfer.download.downloader import Downloaded

Named = tuple[Hash | str, Path | str]
"""A file and the path where it goes."""


@dataclass(eq=False, slots=True)
class Place:
    """A path where a file goes. ``done`` is the outcome there; ``request`` is None where there is no such file."""

    path: Path
    request: FileRequest | None = None
    done: Future[Downloaded] = field(default_factory=Future)

    def fail(self, error: BaseException) -> None:
        """The file is not there, unless it is said to be."""
        with suppress(InvalidStateError):
            self.done.set_exception(error)


@dataclass(eq=False, slots=True)
class FileRequest:
    """A file, its places, and all that has come of it. Nothing in here locks.

    ``told_size`` is its size, if that was told by another than the Cas. ``is_announced`` once a progress knows its
    size. ``fetched_bytes`` of xorbs came for it in a batch, in vain or not.
    """

    file: Hash
    number: int
    told_size: int | None = None
    places: list[Place] = field(default_factory=list)
    is_announced: bool = False
    fetched_bytes: int = 0

    # As one of a batch, at ``position`` of the virtual file in which its files lie one behind the other.
    position: int = 0
    size: int = 0
    parts_left: int = 0
    is_coming: bool = False
    is_written: bool = False
    buffer: bytearray | None = None
    _chunks: list[tuple[int, ChunkList]] = field(default_factory=list)
    _missing_bytes: int = 0

    @property
    def end(self) -> int:
        """The position where the next one of its batch starts."""
        return self.position + self.size

    def expect(self, position: int, size: int, parts: int) -> None:
        """Be one of a batch, of which ``parts`` ranges bring something."""
        self.position, self.size, self.parts_left = position, size, parts
        self._missing_bytes, self.is_coming = size, True

    def add(self, position: int, chunks: ChunkList, nbytes: int) -> bool:
        """Take bytes in these chunks that have come. True if they were the last."""
        self._chunks.append((position, chunks))
        self._missing_bytes -= nbytes
        return not self._missing_bytes

    def is_right(self) -> bool:
        """True if the chunks are those of the file, once all have come."""
        self._chunks.sort(key=lambda run: run[0])
        chunks = ChunkList.concat(run for _, run in self._chunks)
        return file_hash(xorb_hash(chunks.hashes, chunks.lengths)) == self.file

    def give_up(self) -> bytearray | None:
        """Let nothing more of it come in a batch, or again. The buffer that there was."""
        buffer, self.buffer, self.is_coming = self.buffer, None, False
        return buffer

    def tried(self) -> bool:
        """One of its parts was tried. True if it was the last."""
        self.parts_left -= 1
        if not self.parts_left:
            self._chunks.clear()
        return not self.parts_left

    def fail(self, error: BaseException) -> None:
        """It is in none of its places, but for those where it is said to be."""
        for place in self.places:
            place.fail(error)

    def succeed(self) -> None:
        """It is in all of its places in which there was no error, by way of one fetch."""
        fetched_bytes, reused_bytes = self.fetched_bytes, 0
        for place in self.places:
            if not place.done.done():
                place.done.set_result(Downloaded(self.size, True, fetched_bytes, reused_bytes))
                fetched_bytes, reused_bytes = 0, self.size


def read_requests(
    files: Iterable[Named], resolve: Callable[[Hash | str], Hash], sizes: Mapping[Hash, int]
) -> tuple[list[Place], list[FileRequest]]:
    """All places in the order given, and each file once. A path that is given twice is an error the second time."""
    places: list[Place] = []
    requests: dict[Hash, FileRequest] = {}
    taken: set[Path] = set()
    for name, path in files:
        place = Place(Path(path))
        places.append(place)
        at = place.path.absolute()
        try:
            file = resolve(name)
            if at in taken:
                raise UsageError(f"{place.path} is given twice", hint="give each file a path of its own")
        except XetError as error:
            place.fail(error)
            continue
        taken.add(at)
        request = requests.setdefault(file, FileRequest(file, len(requests), sizes.get(file)))
        request.places.append(place)
        place.request = request
    return places, list(requests.values())
