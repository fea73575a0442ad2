"""Descriptions: all that the API says of a repository. A tree never changes, so what it says is made once."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from xetstore.errors import FormatError, RevisionNotFoundError
from xetstore.hub.cards import FILE as CARD
from xetstore.hub.cards import MAX_CARD_BYTES, metadata_of, tags_of
from xetstore.hub.names import Kind
from xetstore.hub.remembered import Remembered
from xetstore.server.routes.hub.answers import (
    date_of,
    id_of,
    only,
    without_none,
)

if TYPE_CHECKING:
    from xetstore.hub.queries import RepositoryRow, Revision
    from xetstore.hub.repository import Repository
    from xetstore.hub.trees import Entry

MAX_SIBLINGS: Final = 50_001
"""Files that are listed with a repository. Clients know of 50,000 and more that they are not all."""
MAX_README_BYTES: Final = 4 << 20
"""A longer README.md is not read for what its head says."""

MAX_TEXT_BYTES: Final = 1 << 20
"""Bytes of a text that are read: those behind them say nothing."""

_LISTS_BYTES: Final = 32 << 20
_CARDS_BYTES: Final = 16 << 20
_TEXTS_CHARS: Final = 4 << 20
_DETAILS: Final = frozenset(("cardData", "tags", "library_name", "pipeline_tag", "sdk", "model-index"))


class Card(NamedTuple):
    """The metadata of a repository, and the tags by which it is found."""

    metadata: dict[str, Any]
    tags: list[str]
    size: int


class Descriptions:
    """Descriptions of the repositories of one hub. Thread-safe."""

    def __init__(self) -> None:
        self._lists: Remembered[bytes] = Remembered(_LISTS_BYTES, len)
        self._cards: Remembered[Card] = Remembered(_CARDS_BYTES, lambda card: 1024 + 8 * card.size)
        self._texts: Remembered[str] = Remembered(_TEXTS_CHARS, lambda text: 256 + len(text))
        self._used: Remembered[int] = Remembered(10_000, lambda _: 1)

    def short(self, row: RepositoryRow) -> dict[str, Any]:
        """The part that is in its row."""
        name = row.name
        return without_none(
            {
                "_id": id_of(row.id),
                "id": name.id,
                "modelId": name.id if row.kind is Kind.MODELS else None,
                "author": name.owner,
                "private": row.is_private,
                "gated": row.gated or False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "createdAt": date_of(row.created_at),
                "lastModified": date_of(row.updated_at),
                "sdk": row.sdk,
            }
        )

    def whole(
        self, repository: Repository, revision: Revision | None, *, blobs: bool = False, wants: Collection[str] = ()
    ) -> dict[str, Any]:
        """All of it, or the keys that a client ``wants``. ``blobs``: sizes and ids of its files, too."""
        keys = frozenset(wants)
        told = self.short(repository.row)
        if revision is not None:
            told["sha"] = revision.id
            if not keys or keys & _DETAILS:
                told |= self._details(repository, revision)
            if not keys or "siblings" in keys:
                told["siblings"] = msgspec.Raw(self._siblings(repository, revision, blobs=blobs))
        told.setdefault("tags", [])
        if not keys or "usedStorage" in keys:
            told["usedStorage"] = self.used_bytes(repository)
        if "xetEnabled" in keys:
            told["xetEnabled"] = True
        told |= {key: 0 for key in ("downloadsAllTime", "trendingScore") if key in keys}
        return only(told, keys) if keys else told

    def card(self, repository: Repository, revision: Revision) -> Card:
        """The metadata at a revision; empty if there is none, or none that can be read."""
        return self._cards.get((repository.row.id, revision.tree), lambda: _read_card(repository, revision))

    def text(self, repository: Repository, revision: Revision, path: str) -> str:
        """The start of a text that the repository itself keeps at a path; empty if there is none."""

        def make() -> str:
            for entry in repository.entries_at(revision, [path]):
                if not entry.is_folder and entry.sha256 is None:
                    return repository.blob(entry)[:MAX_TEXT_BYTES].decode("utf-8", "replace")
            return ""

        return self._texts.get((repository.row.id, revision.tree, path), make)

    def used_bytes(self, repository: Repository) -> int:
        """Bytes of all large files of its history."""
        row = repository.row
        return self._used.get((row.id, row.updated_at, row.shrunk_at), repository.used_bytes)

    def _details(self, repository: Repository, revision: Revision) -> dict[str, Any]:
        card = self.card(repository, revision)
        metadata = card.metadata
        told: dict[str, Any] = {"tags": card.tags}
        if metadata:
            told["cardData"] = metadata
        for key in ("library_name", "pipeline_tag", "sdk"):
            if isinstance(metadata.get(key), str):
                told[key] = metadata[key]
        if isinstance(metadata.get("model-index"), list):
            told["model-index"] = metadata["model-index"]
        return told

    def _siblings(self, repository: Repository, revision: Revision, *, blobs: bool) -> bytes:
        def make() -> bytes:
            files: list[Entry] = []
            after: str | None = None
            while len(files) < MAX_SIBLINGS:
                page = repository.entries(revision, recursive=True, after=after, limit=MAX_SIBLINGS)
                files += [entry for entry in page if not entry.is_folder]
                if len(page) < MAX_SIBLINGS:
                    break
                after = page[-1].path
            return msgspec.json.encode([_sibling(entry, blobs=blobs) for entry in files[:MAX_SIBLINGS]])

        return self._lists.get((repository.row.id, revision.tree, blobs), make)


def tip_of(repository: Repository, text: str | None = None) -> Revision | None:
    """The revision that a request names, else that of ``main``; None for a repository that has no commit yet."""
    try:
        return repository.revision(text or "main")
    except RevisionNotFoundError:
        if text is not None:
            raise
        return None


def _sibling(entry: Entry, *, blobs: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"rfilename": entry.path}
    if blobs:
        told |= {"size": entry.size, "blobId": entry.id}
        if entry.sha256 is not None:
            told["lfs"] = {"sha256": entry.sha256.hex(), "size": entry.size, "pointerSize": entry.pointer_size}
    return told


def _read_card(repository: Repository, revision: Revision) -> Card:
    for entry in repository.entries_at(revision, [CARD]):
        if entry.is_folder or entry.sha256 is not None or entry.size > MAX_README_BYTES:
            break
        text = repository.blob(entry)[: MAX_CARD_BYTES + 1].decode("utf-8", "replace")
        try:
            metadata = metadata_of(text) or {}
        except FormatError:
            break
        return Card(metadata, tags_of(metadata), len(text))
    return Card({}, [], 0)
