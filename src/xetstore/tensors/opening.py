"""From the name of a stored file to its tensors: one file, or the files of a model by its index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from xetstore.cancellation import Cancellation
from xetstore.errors import EntryNotFoundError, FormatError, UsageError
from xetstore.interfaces import Names
from xetstore.platform.threads import Threads
from xetstore.protocol.hashes import Hash
from xetstore.records import FileRecord, RepoFile
from xetstore.remote.hub.locators import STORE_SCHEME, HubLocator
from xetstore.tensors.file import Home, TensorFile
from xetstore.tensors.formats import parse_header
from xetstore.tensors.header import Beginning, Header, shown
from xetstore.tensors.safetensors import loads
from xetstore.tensors.tensors import Tensor, Tensors
from xetstore.transfer.waiting import result_of

INDEX_SUFFIX: Final = ".safetensors.index.json"
MAX_HELD_BYTES: Final = 64 << 20
"""The longest index that is read, and the longest file that git keeps whose tensors are."""

MAX_FILES: Final = 10_000
READ_AT_ONCE: Final = 8


class NamedHome(Home, Protocol):
    """The store that tensors are looked up in: :class:`xetstore.Store` is one."""

    def call_names(self) -> tuple[Names, Cancellation]:
        """Its names, for one call, and what ends that call."""

    def resolve(self, what: Hash | str) -> Hash:
        """The hash of a file that is named by it, or by the name that the store has for it."""

    def stat(self, what: Hash) -> FileRecord:
        """The record of a file."""


def open_tensors(home: NamedHome, what: Hash | str) -> Tensors:
    """The tensors of a stored file: one read of its header, as a rule.

    ``what`` is a hash, or an ``xet://`` name, which may be that of the index of a model in several files,
    ``….safetensors.index.json``: their headers are read side by side. FormatError for a file of any other kind.
    """
    if isinstance(what, Hash) or not what.startswith(STORE_SCHEME):
        name = home.resolve(what)
        return _tensors(home, TensorFile(str(what), home.stat(name).size, name))
    locator = HubLocator.parse(what)
    if not locator.path:
        example = f"for example {what[:200]}/model.safetensors"
        raise UsageError(f"{what[:200]} is a repository, and no file", hint=example)
    if locator.path.endswith(INDEX_SUFFIX):
        return _sharded(home, locator)
    [file] = _files(home, locator, [locator.path])
    return _tensors(home, file)


def read_header(home: Home, file: TensorFile) -> Header:
    """The header of a stored file."""
    return parse_header(Beginning(file.size, lambda start, end: file.read(home, start, end)), file.name)


def _tensors(home: Home, file: TensorFile) -> Tensors:
    header = read_header(home, file)
    return Tensors((Tensor(home, file, entry) for entry in header.entries), header.format, header.metadata)


def _sharded(home: NamedHome, locator: HubLocator) -> Tensors:
    """The tensors of a model in several files, all of one commit."""
    if locator.revision is not None:
        names, _ = home.call_names()
        commit = names.commit_at(locator.id, locator.revision).oid
        locator = HubLocator(locator.kind, locator.repo, commit, locator.path, locator.scheme)
    [index] = _files(home, locator, [locator.path])
    if index.size > MAX_HELD_BYTES:
        raise FormatError("tensors.index", MAX_HELD_BYTES, f"{index.name} is too long for an index")
    places = _places(index.name, bytes(index.read(home, 0, index.size)))
    folder = locator.path.rpartition("/")[0]
    paths = sorted({f"{folder}/{name}" if folder else name for name in places.values()})
    files = _files(home, locator, paths)
    with Threads(min(READ_AT_ONCE, len(files)), "tensors") as threads:
        reads = [threads.submit(read_header, home, file) for file in files]
        try:
            headers = [result_of(read) for read in reads]
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return _joined(home, places, list(zip(files, headers, strict=True)))


def _places(name: str, data: bytes) -> dict[str, str]:
    """The names of tensors, and of the file that each is in. FormatError for an index that tells others."""
    places = loads(data, "tensors.index", 0).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise FormatError("tensors.index", 0, f"{name} has no weight_map of texts by name")
    files = set(places.values())
    if not files or len(files) > MAX_FILES:
        raise FormatError("tensors.index", 0, f"{name} names {len(files)} files")
    for file in files:
        if "/" in file or file in ("", ".", ".."):
            raise FormatError("tensors.index", 0, f"{name} names a file that is not beside it: {shown(file)}")
    return places


def _joined(home: Home, places: Mapping[str, str], files: Iterable[tuple[TensorFile, Header]]) -> Tensors:
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for file, header in files:
        own = file.name.rpartition("/")[2]
        for entry in header.entries:
            if places.get(entry.name) == own:
                tensors[entry.name] = Tensor(home, file, entry)
        metadata |= header.metadata
    for name, own in places.items():
        if name not in tensors:
            raise FormatError("tensors.index", 0, f"{shown(name)} is not in {shown(own)}, where the index has it")
    return Tensors(tensors.values(), "safetensors", metadata)


def _files(home: NamedHome, locator: HubLocator, paths: list[str]) -> list[TensorFile]:
    """The files at these paths, in order. EntryNotFoundError for one that is not there."""
    names, _ = home.call_names()
    revision = locator.revision or ""
    there = {entry.path: entry for entry in names.entries_at(locator.id, revision, paths)}
    files = []
    for path in paths:
        if path not in there:
            where = f"{locator.id.path}@{revision[:200]}".rstrip("@")
            raise EntryNotFoundError(f"{where} has no {path[:200]!r}")
        files.append(_file(names, locator, revision, there[path]))
    return files


def _file(names: Names, locator: HubLocator, revision: str, entry: RepoFile) -> TensorFile:
    name = str(locator.at(entry.path))
    if entry.is_folder:
        raise UsageError(f"{name[:200]} is a folder", hint=f"for example {name[:200]}/model.safetensors")
    if entry.hash is not None:
        return TensorFile(name, entry.size, entry.hash, locator.id, revision)
    if entry.size > MAX_HELD_BYTES:
        raise UsageError(f"{name[:200]} is not stored by Xet, and too long to be read whole")
    held = b"".join(names.read(locator.id, revision, entry))
    return TensorFile(name, len(held), held=held)
