"""Finding files of a store: from what a caller names to a content, once for any number of reads."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from xetstore.errors import InterruptedCallError, UsageError, WrongTypeError, XetError
from xetstore.opening import HUB_SCHEME
from xetstore.platform.homes import local_path
from xetstore.protocol.hashes import Hash
from xetstore.records import FileInfo
from xetstore.store.what import STORE_SCHEME, What, named

if TYPE_CHECKING:
    from xetstore.remote.hub.locators import HubLocator
    from xetstore.store.content import Content, GetReport, Reads
    from xetstore.store.store import Store
    from xetstore.transfer.progress import Progress


def find(store: Store, what: What) -> Content:
    """The content of a file. Raises UsageError for what names none, and of a name NotFoundError; a hash is not asked
    for before it is read.
    """
    content = find_or_folder(store, what)
    if content is None:
        raise UsageError(f"{str(what)[:200]} is a folder, and no file", hint="name a file in it; xet cp gets all of it")
    return content


def find_or_folder(store: Store, what: What) -> Content | None:
    """As :func:`find`; None for a folder of a repository."""
    from xetstore.store.content import KeptContent, StoredContent

    name = named(what)
    if isinstance(name, Hash):
        return StoredContent(reads_of(store), name)
    if name.startswith(HUB_SCHEME):
        return StoredContent(reads_of(store), _hash_on_hub(store, name))
    locator = locator_of(name)
    revision = locator.revision or ""
    file = store.repo(locator.id).file(locator.path, revision)
    if file.is_folder:
        return None
    if file.hash is None:
        return KeptContent(store.call_names, locator.id, revision, file)
    files = store.files_of(locator.id, revision)
    files._sizes[file.hash] = file.size
    return StoredContent(reads_of(files), file.hash)


def locator_of(name: str) -> HubLocator:
    """A file of a repository of the store, by its name. Raises UsageError for what is none."""
    from xetstore.remote.hub.locators import HubLocator

    if not name.startswith(STORE_SCHEME):
        raise UsageError(f"{name[:200]} is not in this store", hint="its files are named xet://OWNER/NAME/PATH")
    locator = HubLocator.parse(name)
    if not locator.path:
        raise UsageError(
            f"{name[:200]} is a repository, and no file", hint=f"for example {locator}/FILE; xet cp gets all of it"
        )
    return locator


def reads_of(store: Store) -> Reads:
    """All that reads of a store's files work with."""
    from xetstore.store.content import Reads

    return Reads(store._opened, store._limits, store._emit, store._sizes, lambda: store._calls.child())


def get_many(
    store: Store,
    files: Iterable[tuple[What, Path | str]],
    *,
    progress: Progress | None,
    on_error: Callable[[Path, XetError], None] | None,
    fsync: bool,
) -> Generator[GetReport]:
    """Files by their hashes together, those between them that are named one by one, in the order given."""
    from xetstore.store.content import GetOptions

    options = GetOptions(progress=progress, fsync=fsync)
    for is_named, run in groupby(_pairs(store, files), lambda pair: _is_named(pair[0])):
        if not is_named:
            reads = reads_of(store)
            yield from reads.get_many(run, store.resolve, progress=progress, on_error=on_error, fsync=fsync)
            continue
        for what, path in run:
            try:
                report = find(store, what).get(path, options)
            except XetError as error:
                if on_error is None or isinstance(error, InterruptedCallError):
                    raise
                on_error(path, error)
            else:
                yield report


def read_ranges(store: Store, ranges: Iterable[tuple[What, int, int]]) -> list[memoryview | XetError]:
    """The bytes of ranges, or errors in their place: of files by their hashes together, of named ones one by one."""
    from xetstore.transfer.download.file_range import check_range
    from xetstore.transfer.download.ranges import RangeReader

    spans: list[tuple[Hash | str, int, int]] = []
    for what, start, end in ranges:
        check_range(start, end)
        spans.append((named(what), start, end))
    together = [number for number, (what, _, _) in enumerate(spans) if not _is_named(what)]
    reads = reads_of(store)
    wanted = [(store.resolve(spans[number][0]), *spans[number][1:]) for number in together]
    read = RangeReader(reads.downloader(reads.begin()), reads.sizes.get).read(wanted)
    answers: dict[int, memoryview | XetError] = dict(zip(together, read, strict=True))
    for number in sorted({*range(len(spans))} - {*together}):
        what, start, end = spans[number]
        try:
            answers[number] = memoryview(b"".join(find(store, what).iter_range(start, end)))
        except InterruptedCallError:
            raise
        except XetError as error:
            answers[number] = error
    return [answers[number] for number in range(len(spans))]


def _pairs(store: Store, files: Iterable[tuple[What, Path | str]]) -> list[tuple[Hash | str, Path]]:
    """All pairs, read to their end. Where some are named, UsageError for a path that comes twice: the places of files
    by their hashes are compared where they come together.
    """
    pairs, call = [], store._calls.child()
    for pair in files:
        call.check()
        try:
            what, path = pair
        except (TypeError, ValueError):
            raise WrongTypeError.of("each file to get", pair, "a pair of a file and a path") from None
        pairs.append((what.hash if isinstance(what, FileInfo) else what, local_path(path, "the place of a file")))
    if any(_is_named(what) for what, _ in pairs):
        places: set[Path] = set()
        for _, path in pairs:
            if path.absolute() in places:
                raise UsageError(f"{path} is given twice", hint="give each file a path of its own")
            places.add(path.absolute())
    return pairs


def _is_named(what: Hash | str) -> bool:
    return isinstance(what, str) and what.startswith(STORE_SCHEME)


def _hash_on_hub(store: Store, name: str) -> Hash:
    hub, here = store._opened.hub, store._opened.repository
    if hub is None or here is None:
        raise UsageError(
            f"{name[:200]} is the name of a file on a Hub, and this store is none",
            hint="xetstore.open_locator opens the store that it is in",
        )
    locator = type(here).parse(name)
    if locator.root_name != here.root_name:
        raise UsageError(f"{name[:200]} is not in {store.location}", hint="xetstore.open_locator opens what it is in")
    file = hub.under(store._calls.child()).resolve(locator)
    if file.size is not None:
        store._sizes[file.hash] = file.size
    return file.hash
