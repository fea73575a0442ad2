"""The files that a download of many is asked for: each file once, all the places where it goes, and their outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from xetstore.errors import UsageError, XetError
from xetstore.protocol.hashes import Hash
from xetstore.transfer.download.downloader import Downloaded

Named = tuple[Hash | str, Path | str]
"""A file and the path where it goes."""


@dataclass(eq=False, slots=True)
class Place:
    """A place where file ``number`` goes. ``error`` says why it cannot be written there; ``done`` wakes a waiter."""

    path: Path
    file: Hash = Hash.ZERO
    number: int = 0
    error: XetError | None = None
    done: Future[Downloaded] = field(default_factory=Future)

    def fail(self, error: BaseException) -> None:
        """The file is not there, unless it is said to be."""
        with suppress(InvalidStateError):
            self.done.set_exception(error)


@dataclass(eq=False, slots=True)
class Wanted:
    """A file and its places. ``is_announced`` once a progress knows its size; ``wasted_bytes`` came in vain."""

    file: Hash
    number: int
    places: list[Place] = field(default_factory=list)
    is_announced: bool = False
    wasted_bytes: int = 0

    def fail(self, error: BaseException) -> None:
        """It is in none of its places, but for those where it is said to be."""
        for place in self.places:
            place.fail(error)

    def written(self, size: int, fetched_bytes: int) -> None:
        """It is in all of its places in which there was no error, by way of one fetch."""
        reused = 0
        for place in self.places:
            if place.error is not None:
                place.fail(place.error)
                continue
            place.done.set_result(Downloaded(size, True, fetched_bytes, reused))
            fetched_bytes, reused = 0, size


def read_wanted(files: Iterable[Named], resolve: Callable[[Hash | str], Hash]) -> tuple[list[Place], list[Wanted]]:
    """All places in the order given, and each file once. A path that is given twice is an error the second time."""
    places: list[Place] = []
    wanted: dict[Hash, Wanted] = {}
    taken: set[Path] = set()
    for name, path in files:
        place = Place(Path(path))
        places.append(place)
        at = place.path.absolute()
        try:
            place.file = resolve(name)
            if at in taken:
                raise UsageError(f"{place.path} is given twice", hint="give each file a path of its own")
        except XetError as error:
            place.fail(error)
            continue
        taken.add(at)
        file = wanted.setdefault(place.file, Wanted(place.file, len(wanted)))
        file.places.append(place)
        place.number = file.number
    return places, list(wanted.values())
