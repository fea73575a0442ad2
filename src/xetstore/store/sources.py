"""Sources of a put: a path, bytes, or a binary file object."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias

from xetstore.errors import UsageError, WrongTypeError
from xetstore.platform.homes import local_path
from xetstore.protocol.hashes import Hash
from xetstore.protocol.xorb import CompressionPolicy
from xetstore.transfer.byte_source import ByteSource, Readable

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Buffer

    Source: TypeAlias = str | os.PathLike[str] | Buffer | Readable | ByteSource
    """The content of a file: at a path, or bytes, or what a binary file object has from where it is on."""


def source_of(given: Source) -> Path | ByteSource:
    """The file at a path, or bytes to come. Raises UsageError for what is neither."""
    if isinstance(given, ByteSource):
        return given
    if isinstance(given, str | os.PathLike) and not isinstance(given, Hash):
        return local_path(given, "what is put")
    if not isinstance(given, str) and (isinstance(given, Readable) or _is_buffer(given)):
        return ByteSource(given)
    raise WrongTypeError.of("what is put", given, "a path, bytes or a binary file object")


def policy_of(given: CompressionPolicy | str) -> CompressionPolicy:
    """The policy of this name. Raises UsageError."""
    try:
        return CompressionPolicy(given)
    except ValueError:
        raise UsageError(f"policy is one of {', '.join(CompressionPolicy)}, not {given!r:.80}") from None


def _is_buffer(given: object) -> bool:
    try:
        memoryview(given)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True
