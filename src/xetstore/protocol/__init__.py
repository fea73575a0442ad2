"""The protocol as a library: bytes <-> values, pure. No file, socket, clock, randomness or await in here.

The names below are its face, each loaded when it is first asked for, and they stay what they are. Parsers take any
bytes, and give a value or raise FormatError. Ends of ranges are exclusive; sizes and offsets are bytes.

>>> from xetstore import protocol
>>> content = b"Hello World!"
>>> chunks = protocol.chunk_bytes(content)
>>> builder = protocol.XorbBuilder()
>>> builder.append([content], chunks)
0
>>> xorb, body = builder.finish()
>>> protocol.XorbInfo.read(body) == xorb, protocol.decode_chunks(body)[1]
(True, b'Hello World!')
>>> f"{protocol.file_hash(chunks.root):.16}"
'a9dae0ad88b060bd'
"""

from typing import TYPE_CHECKING

from xetstore.loading import lazily

if TYPE_CHECKING:
    from xetstore.errors import FormatError, HashMismatchError
    from xetstore.protocol.chunking import ChunkList, chunk_bytes
    from xetstore.protocol.dedup import WIRE_QUERIES, QueryRule
    from xetstore.protocol.hashes import Hash, chunk_hash, file_hash, keyed_hashes, verification_hash, xorb_hash
    from xetstore.protocol.reconstruction import (
        BatchReconstruction,
        FetchRange,
        Placement,
        PlannedFetch,
        Reconstruction,
        Term,
        chunk_ranges,
        coalesce,
        plan_fetches,
        trim,
    )
    from xetstore.protocol.shard import FileEntry, Shard, XorbEntry, split_for_upload
    from xetstore.protocol.suite import XET_GEARHASH_BLAKE3, AlgorithmSuite
    from xetstore.protocol.xorb import CompressionPolicy, XorbBuilder, XorbInfo, XorbVerifier, decode_chunks

__all__ = [
    "WIRE_QUERIES",
    "XET_GEARHASH_BLAKE3",
    "AlgorithmSuite",
    "BatchReconstruction",
    "ChunkList",
    "CompressionPolicy",
    "FetchRange",
    "FileEntry",
    "FormatError",
    "Hash",
    "HashMismatchError",
    "Placement",
    "PlannedFetch",
    "QueryRule",
    "Reconstruction",
    "Shard",
    "Term",
    "XorbBuilder",
    "XorbEntry",
    "XorbInfo",
    "XorbVerifier",
    "chunk_bytes",
    "chunk_hash",
    "chunk_ranges",
    "coalesce",
    "decode_chunks",
    "file_hash",
    "keyed_hashes",
    "plan_fetches",
    "split_for_upload",
    "trim",
    "verification_hash",
    "xorb_hash",
]

# Where the names live.
_HOMES = {
    "xetstore.errors": ("FormatError", "HashMismatchError"),
    "xetstore.protocol.chunking": ("ChunkList", "chunk_bytes"),
    "xetstore.protocol.dedup": ("WIRE_QUERIES", "QueryRule"),
    "xetstore.protocol.hashes": (
        "Hash",
        "chunk_hash",
        "file_hash",
        "keyed_hashes",
        "verification_hash",
        "xorb_hash",
    ),
    "xetstore.protocol.reconstruction": (
        "BatchReconstruction",
        "FetchRange",
        "Placement",
        "PlannedFetch",
        "Reconstruction",
        "Term",
        "chunk_ranges",
        "coalesce",
        "plan_fetches",
        "trim",
    ),
    "xetstore.protocol.shard": ("FileEntry", "Shard", "XorbEntry", "split_for_upload"),
    "xetstore.protocol.suite": ("XET_GEARHASH_BLAKE3", "AlgorithmSuite"),
    "xetstore.protocol.xorb": ("CompressionPolicy", "XorbBuilder", "XorbInfo", "XorbVerifier", "decode_chunks"),
}
if not TYPE_CHECKING:  # where types are checked, a name that is not there stays an error
    __getattr__ = lazily(__name__, {name: home for home, names in _HOMES.items() for name in names})


def __dir__() -> list[str]:
    return __all__
