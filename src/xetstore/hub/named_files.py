"""names_of_files(): where repositories have some files, as ``xet://…``: for a person who is to put them again."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from xetstore.errors import XetError
from xetstore.hub.buckets import Bucket
from xetstore.hub.names import HEADS, TAGS, Kind
from xetstore.hub.queries import Listing
from xetstore.hub.queries.buckets import BucketFile
from xetstore.hub.repository import Repository
from xetstore.hub.rights import LOCAL
from xetstore.protocol.hashes import Hash

if TYPE_CHECKING:
    from xetstore.hub.service import EmbeddedHub

MOST_NAMES: Final = 20
"""The names that are told of one file."""
_PAGE: Final = 500


def names_of_files(hub: EmbeddedHub, files: Collection[Hash]) -> dict[Hash, list[str]]:
    """For each of these files some places where a branch, a tag or a bucket has it now, at most 20.

    Looks through the repositories that were granted one of them. What cannot be read is left out.
    """
    with hub.cas.index.snapshot() as reader:
        namespaces = {namespace for _, namespace, _ in reader.grants_of(files)}
    wanted = set(files)
    found: dict[Hash, list[str]] = {}
    for repository in _repositories(hub):
        if repository.row.namespace not in namespaces:
            continue
        try:
            for file, name in _named(repository):
                names = found.setdefault(file, []) if file in wanted else [""] * MOST_NAMES
                if len(names) < MOST_NAMES:
                    names.append(name)
        except XetError:
            continue  # deleted meanwhile, or damaged itself: a check of names tells
    return found


def _repositories(hub: EmbeddedHub) -> Iterator[Repository]:
    listing = Listing(tuple(Kind), limit=_PAGE)
    while True:
        rows = hub.repositories(LOCAL, listing)
        for row in rows:
            with hub.snapshot() as reader:
                repository = hub.opened(reader, LOCAL, row)
            yield repository
        if len(rows) < _PAGE:
            return
        listing = replace(listing, before=(rows[-1].updated_at, rows[-1].id))


def _named(repository: Repository) -> Iterator[tuple[Hash, str]]:
    """The large files of a repository as it is now, with their names."""
    place = f"xet://{repository.name.path}"
    if not repository.row.kind.is_git:
        bucket, start = Bucket(repository), ""
        while True:
            page = bucket.tree(start=start)
            for one in page.entries:
                if isinstance(one, BucketFile):
                    yield one.file, f"{place}/{one.path}"
            if page.next is None:
                return
            start = page.next
    seen: set[str] = set()
    for ref in repository.refs():
        revision = repository.revision(ref.commit.hex())
        if revision.id in seen:
            continue
        seen.add(revision.id)
        called = ref.name.removeprefix(HEADS).removeprefix(TAGS).replace("/", "%2F")
        after: str | None = None
        while True:
            entries = repository.entries(revision, recursive=True, after=after, limit=_PAGE)
            for entry in entries:
                if entry.file is not None:
                    yield entry.file, f"{place}@{called}/{entry.path}"
            if len(entries) < _PAGE:
                break
            after = entries[-1].path
