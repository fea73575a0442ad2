"""UploadSizes: how large the xorbs of an upload are and how many are on their way at a time, by the memory it may take.

Measured: the interpreter and its libraries take 50 MiB, the blocks of the file that is being read 25 MiB, a chunk that
the session remembers 320 bytes, a file that waits for its shard 2 KiB. The rest is for xorbs: those in flight and the
one that is being filled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xetstore.protocol.known_chunks import MAX_KNOWN_CHUNKS
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3

if TYPE_CHECKING:
    from xetstore.limits import Limits

_MIB: Final = 1 << 20
_PROCESS_BYTES: Final = 50 * _MIB
_STORE_BYTES: Final = 40 * _MIB  # what an embedded store adds: its index, the footers it remembers
_BLOCKS_BYTES: Final = 25 * _MIB
_KNOWN_CHUNK_BYTES: Final = 320
_FILE_BYTES: Final = 2048
_MAX_FILES: Final = 10_000

_XORB_BYTES: Final = (64 * _MIB, 32 * _MIB, 24 * _MIB, 16 * _MIB, 8 * _MIB)
REMOTE_XORB_BYTES: Final = 24 * _MIB
"""Towards a server, where nothing else is said: what fails is sent again, and a small xorb is sooner on its way."""

REMOTE_IN_FLIGHT: Final = 2
"""There is room for two at least; the network decides if there are more."""

MAX_XORBS_BYTES: Final = 512 * _MIB
"""All xorbs together, where nothing else is said, however many requests are wanted at a time."""


@dataclass(frozen=True, slots=True)
class UploadSizes:
    """``xorb_bytes`` are raw ones, ``in_flight`` the most at a time. A session remembers at most ``known_chunks``.

    At the end of a file, all are registered where ``files`` or ``file_bytes`` have gathered. A shard of xorbs alone is
    sent as soon as there are ``shard_chunks`` new chunks: memory must not grow with a file. Of small files, at most
    ``held_bytes`` wait to be encoded.
    """

    xorb_bytes: int = XET_GEARHASH_BLAKE3.max_xorb_bytes
    in_flight: int = 1
    known_chunks: int = MAX_KNOWN_CHUNKS
    files: int = _MAX_FILES
    file_bytes: int = 8 << 30
    shard_chunks: int = 100_000
    held_bytes: int = 8 * _MIB


def upload_sizes(limits: Limits, *, remote: bool) -> UploadSizes:
    """Sizes that keep ``limits``; ``remote`` says that storing a xorb means sending it."""
    wanted = limits.jobs or (REMOTE_IN_FLIGHT if remote else 1)
    most = limits.jobs or (MAX_XORBS_BYTES // REMOTE_XORB_BYTES if remote else 1)
    if limits.max_memory is None:
        xorb_bytes = REMOTE_XORB_BYTES if remote else XET_GEARHASH_BLAKE3.max_xorb_bytes
        return UploadSizes(xorb_bytes, max(1, min(most, MAX_XORBS_BYTES // xorb_bytes - 1)))
    room = limits.max_memory - _PROCESS_BYTES - _BLOCKS_BYTES - (0 if remote else _STORE_BYTES)
    known_chunks = min(MAX_KNOWN_CHUNKS, max(room, 0) // 4 // _KNOWN_CHUNK_BYTES)
    files = min(_MAX_FILES, max(room, 0) // 8 // _FILE_BYTES)
    room -= known_chunks * _KNOWN_CHUNK_BYTES + files * _FILE_BYTES
    fitting = (size for size in _XORB_BYTES if (wanted + 1) * size <= room)
    xorb_bytes = next(fitting, _XORB_BYTES[-1])
    return UploadSizes(xorb_bytes, max(1, min(most, room // xorb_bytes - 1)), known_chunks, files)
