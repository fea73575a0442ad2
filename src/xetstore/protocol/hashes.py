"""Hash values: the Hash type and its string form, and every hash the protocol derives (draft section 6)."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, ClassVar, Self

from xetstore.errors import UsageError, WrongTypeError
from xetstore.protocol import kernel
from xetstore.protocol.suite import HASH_BYTES, XET_GEARHASH_BLAKE3, AlgorithmSuite

if TYPE_CHECKING:
    from typing_extensions import Buffer

_HEX = re.compile(r"[0-9a-fA-F]{64}")
_WORDS = struct.Struct("<4Q")
_SPELLED_WORDS = struct.Struct(">4Q")


class Hash(str):
    """A 32-byte hash, which is its text: 64 hexadecimal digits in lower case. Immutable.

    The text is the Xet string form, four little-endian u64 as 16 digits each (6.5), never plain hex; ``digest`` is the
    32 bytes. As a text it compares, sorts, is looked up, formatted and written to JSON like one. Made of either, in
    upper or lower case. Raises UsageError for a text that is none, ValueError for another number of bytes.

    >>> h = Hash(bytes(range(32)))
    >>> h
    Hash('07060504030201000f0e0d0c0b0a090817161514131211101f1e1d1c1b1a1918')
    >>> h == Hash(str(h)) == "07060504030201000f0e0d0c0b0a090817161514131211101f1e1d1c1b1a1918", f"{h:.12}"
    (True, '070605040302')
    """

    __slots__ = ()

    ZERO: ClassVar[Hash]

    def __new__(cls, value: str | bytes) -> Self:
        """Of 64 hexadecimal digits, or of 32 bytes."""
        if type(value) is not bytes or len(value) != HASH_BYTES:  # else as quick as can be: there are many
            value = _digest_of(value)
        return str.__new__(cls, _SPELLED_WORDS.pack(*_WORDS.unpack(value)).hex())

    @property
    def digest(self) -> bytes:
        """The 32 bytes. They are not kept, because a large shard has very many hashes."""
        return _WORDS.pack(*_SPELLED_WORDS.unpack(bytes.fromhex(self)))

    @classmethod
    def parse(cls, text: str) -> Hash:
        """Read the string form, upper or lower case. Raises UsageError on anything but 64 hex digits."""
        if not isinstance(text, str):
            raise WrongTypeError.of("the text of a Hash", text, "64 hexadecimal digits")
        return cls(text)

    @property
    def last_u64(self) -> int:
        """Bytes 24 to 31 as a little-endian number, at which the rules of 6.2.2.2 and 10.3.1 look."""
        return int.from_bytes(self.digest[24:], "little")

    def __repr__(self) -> str:
        return f"Hash('{self}')"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Hash is immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Hash is immutable")

    def __reduce__(self) -> tuple[type[Hash], tuple[bytes]]:
        return Hash, (self.digest,)


def _digest_of(value: object) -> bytes:
    if isinstance(value, str):
        if not _HEX.fullmatch(value):
            raise UsageError(f"{value[:80]!r} is not a hash", hint="a hash is 64 hexadecimal digits")
        return _WORDS.pack(*_SPELLED_WORDS.unpack(bytes.fromhex(value)))
    if not isinstance(value, bytes | bytearray | memoryview):
        raise WrongTypeError.of("a Hash", value, f"made of 64 hexadecimal digits or {HASH_BYTES} bytes")
    if len(value) != HASH_BYTES:
        raise ValueError(f"a hash has {HASH_BYTES} bytes, not {len(value)}")
    return bytes(value)


Hash.ZERO = Hash(bytes(HASH_BYTES))


def chunk_hash(data: Buffer, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> Hash:
    """The hash of one chunk's bytes (6.1)."""
    return Hash(kernel.keyed_hash(suite.data_key, data))


def keyed_hashes(key: bytes, hashes: Buffer) -> bytes:
    """Packed chunk hashes as a dedup answer has them: each keyed by the answer's ``key``, 32 bytes (10.3.3)."""
    return kernel.keyed_hashes(key, hashes)


def split_hashes(hashes: bytes) -> list[bytes]:
    """Packed hashes, one by one."""
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


def xorb_hash(hashes: Buffer, lengths: Buffer, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> Hash:
    """The name of a xorb: the merkle root over its chunks, packed 32-byte hashes and u64 lengths (6.2.3)."""
    return Hash(kernel.merkle_root(suite.kernel, hashes, lengths))


def file_hash(root: Hash | bytes, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> Hash:
    """The hash of a file from the merkle root over its chunks (6.3), or its 32 bytes; an empty file is Hash.ZERO.

    The draft's first versions key the empty root too; real clients and draft-05 do not.
    """
    digest = root.digest if isinstance(root, Hash) else root
    return Hash(kernel.keyed_hash(suite.file_key, digest)) if any(digest) else Hash.ZERO


def verification_hash(hashes: Buffer, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> Hash:
    """The verification hash of a term: keyed hash over its packed raw chunk hashes (6.4)."""
    return Hash(kernel.keyed_hash(suite.verification_key, hashes))
