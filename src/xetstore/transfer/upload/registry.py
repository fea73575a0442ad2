"""Registry: xorbs that are stored and that no shard has told the server of yet; shards tell of them, and of files."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xetstore.events import FilesRegistered, XorbStored
from xetstore.protocol.shard import FileEntry, Shard, XorbEntry, split_for_upload

if TYPE_CHECKING:
    from xetstore.protocol.xorb import XorbInfo
    from xetstore.transfer.upload.context import Context


class Registry:
    """Sends every shard of an upload, each after the xorbs that it names (draft 12.7).

    This machine remembers what the server has acknowledged. :meth:`stored` may be called in any thread, the others in
    one at a time.
    """

    def __init__(self, context: Context) -> None:
        self._cas = context.cas
        self._known = context.known
        self._emit = context.emit
        self._max_chunks = context.sizes.shard_chunks
        self._untold: deque[XorbEntry] = deque()

    def stored(self, info: XorbInfo, sent_bytes: int, *, is_new: bool) -> None:
        """A xorb was acknowledged: it may be named from now on."""
        entry = XorbEntry(info.hash, info.chunks)
        if self._known is not None:
            self._known.uploaded(entry)
        self._emit(XorbStored(info.hash, info.chunks.total_bytes, sent_bytes, is_new))
        self._untold.append(entry)

    def relieve(self) -> None:
        """Send a shard of xorbs alone if there are many of them. Raises what :meth:`Cas.put_shard` raises."""
        if sum(len(entry.chunks) for entry in list(self._untold)) >= self._max_chunks:
            self._send(Shard(xorbs=tuple(self._take())))

    def register(self, files: Sequence[FileEntry]) -> None:
        """Send the shards of files whose xorbs are all stored. Raises what :meth:`Cas.put_shard` raises.

        They list the xorbs of an earlier session, too, that these files need and that no shard has listed: it was cut
        short.
        """
        xorbs = self._take()
        told = {entry.hash for entry in xorbs}
        if self._known is not None:
            named = dict.fromkeys(term.xorb for file in files for term in file.terms)
            xorbs += self._known.unregistered([name for name in named if name not in told])
        if files or xorbs:
            for part in split_for_upload(Shard(tuple(files), tuple(xorbs))):
                self._send(part)

    def _send(self, shard: Shard) -> None:
        self._cas.put_shard(shard)
        if self._known is not None:
            self._known.registered(xorb.hash for xorb in shard.xorbs)
        if shard.files:
            self._emit(FilesRegistered(len(shard.files)))

    def _take(self) -> list[XorbEntry]:
        return [self._untold.popleft() for _ in range(len(self._untold))]
