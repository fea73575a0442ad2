"""Hash values: the Hash type and its string form, and every hash the protocol derives (draft section 6)."""

from __future__ import annotations

import re
import struct
from functools import total_ordering
from typing import TYPE_CHECKING, ClassVar

from xetstore.errors import UsageError
from xetstore.protocol import kernel
from xetstore.protocol.suite import HASH_BYTES, XET_GEARHASH_BLAKE3, AlgorithmSuite

if TYPE_CHECKING:
    from typing_extensions import Buffer

_HEX = re.compile(r"[0-9a-fA-F]{64}")
_WORDS = struct.Struct("<4Q")
_SPELLED_WORDS = struct.Struct(">4Q")


@total_ordering
class Hash:
    """A 32-byte hash: a value, hashable, ordered as its string is.

    ``str(h)`` is the Xet string form, four little-endian u64 as 16 hex digits each (6.5), never plain hex.

    >>> h = Hash(bytes(range(32)))
    >>> str(h)
    '07060504030201000f0e0d0c0b0a090817161514131211101f1e1d1c1b1a1918'
    >>> Hash.parse(str(h)) == h
    True
    """

    __slots__ = ("digest",)

    digest: bytes
    ZERO: ClassVar[Hash]

    def __init__(self, digest: bytes) -> None:
        if len(digest) != HASH_BYTES:
            raise ValueError(f"a hash has {HASH_BYTES} bytes, not {len(digest)}")
        object.__setattr__(self, "digest", bytes(digest))

    @classmethod
    def parse(cls, text: str) -> Hash:
        """Read the string form, upper or lower case. Raises UsageError on anything but 64 hex digits."""
        if not _HEX.fullmatch(text):
            raise UsageError(f"{text[:80]!r} is not a hash", hint="a hash is 64 hexadecimal digits")
        return cls(_WORDS.pack(*_SPELLED_WORDS.unpack(bytes.fromhex(text))))

    @property
    def last_u64(self) -> int:
        """Bytes 24 to 31 as a little-endian number, at which the rules of 6.2.2.2 and 10.3.1 look."""
        return int.from_bytes(self.digest[24:], "little")

    def __str__(self) -> str:
        return "".join(f"{word:016x}" for word in struct.unpack("<4Q", self.digest))

    def __repr__(self) -> str:
        return f"Hash.parse({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hash) and self.digest == other.digest

    def __lt__(self, other: Hash) -> bool:
        return struct.unpack("<4Q", self.digest) < struct.unpack("<4Q", other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Hash is immutable")

    def __reduce__(self) -> tuple[type[Hash], tuple[bytes]]:
        return Hash, (self.digest,)


Hash.ZERO = Hash(bytes(HASH_BYTES))


def chunk_hash(data: Buffer, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> Hash:
    """The hash of one chunk's bytes (6.1)."""
    return Hash(kernel.keyed_hash(suite.data_key, data))


def split_hashes(hashes: bytes) -> list[bytes]:
    """Packed hashes, one by one."""
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


def xorb_hash(hashes: Buffer, lengths: Buffer, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> Hash:
    """The name of a xorb: the merkle root over its chunks, packed 32-byte hashes and u64 lengths (6.2.3)."""
    return Hash(kernel.merkle_root(suite.kernel, hashes, lengths))


def file_hash(root: Hash, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> Hash:
    """The hash of a file from the merkle root over its chunks (6.3); an empty file is Hash.ZERO.

    The draft's first versions key the empty root too; real clients and draft-05 do not.
    """
    if root == Hash.ZERO:
        return Hash.ZERO
    return Hash(kernel.keyed_hash(suite.file_key, root.digest))


def verification_hash(hashes: Buffer, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> Hash:
    """The verification hash of a term: keyed hash over its packed raw chunk hashes (6.4)."""
    return Hash(kernel.keyed_hash(suite.verification_key, hashes))
