"""The binding of an answer to its question: a digest over both, so that the answer to another question is none.

A reconstruction is a page of numbers that does not say which file it is of. A proxy, a pool of connections or a retry
that hands out the answer to another request would go unnoticed: its own digest is right. An extension of ours, which
other servers do not have: the header of an answer

    X-Xet-Answers: sha-256=:BASE64:

holds the SHA-256 of the question (UTF-8), a line feed, and the SHA-256 of the content as it was sent.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable

from xetstore.protocol.hashes import Hash

BINDING_HEADER = "X-Xet-Answers"


def reconstruction_question(file: Hash, first: int | None = None, last: int | None = None) -> str:
    """The question for bytes ``first`` to ``last`` of a file, as the Range header has them; without it, for all.

    >>> reconstruction_question(Hash.ZERO, 5)[-11:]
    '00 bytes=5-'
    """
    span = "" if first is None and last is None else f" bytes={_text(first)}-{_text(last)}"
    return f"reconstruction {file}{span}"


def batch_question(files: Iterable[Hash]) -> str:
    """The question for several whole files, each named once, in the order in which they are first named."""
    return f"reconstructions {' '.join(str(file) for file in dict.fromkeys(files))}"


def again_question(files: bytes) -> str:
    """The question for those of files that are here; ``files`` are their packed hashes, as they were sent."""
    return f"again {hashlib.sha256(files).hexdigest()}"


def ranges_question(ranges: Iterable[tuple[Hash, int, int]]) -> str:
    """The question for bytes ``[start, end)`` of files, in the order in which they are asked for.

    >>> ranges_question([(Hash.ZERO, 5, 7)])[-11:]
    '0 bytes=5-6'
    """
    return f"ranges {', '.join(f'{file} bytes={start}-{end - 1}' for file, start, end in ranges)}"


def size_question(file: Hash) -> str:
    """The question for the size of a file. The content is the number, in decimal, as Content-Length has it."""
    return f"size {file}"


def binding(question: str, content_sha256: bytes) -> str:
    """The header's value for content with this SHA-256."""
    digest = hashlib.sha256(question.encode() + b"\n" + content_sha256).digest()
    return f"sha-256=:{b64encode(digest).decode()}:"


def _text(offset: int | None) -> str:
    return "" if offset is None else str(offset)
