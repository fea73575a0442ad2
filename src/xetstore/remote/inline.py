"""The client's side of an inline answer: the JSON, checked, and the bytes of ranges, as far as they come.

Bytes that do not come, or come as a trickle, are no error: the JSON is there by then, and they are fetched as those of
any xorb are, with all the patience that there is for these.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from xetstore.errors import IntegrityError, TimedOutError, UnavailableError, UnreachableError
from xetstore.platform.memory import spare_memory
from xetstore.platform.sockets import ready
from xetstore.protocol.inline import INLINE_HEAD_BYTES, INLINE_TYPE, InlineHead, told_ranges

if TYPE_CHECKING:
    from xetstore.protocol.reconstruction import Bodies, FetchRange
    from xetstore.remote.transport import Answer

T = TypeVar("T")

TRICKLE_RATE: Final = 64 << 10
"""Bytes per second of waiting below which the rest is better fetched by another connection."""


def is_inline(answer: Answer) -> bool:
    """True if an answer says that it is a frame."""
    content_type = answer.headers.get("content-type") or ""
    return content_type.partition(";")[0].strip().lower() == INLINE_TYPE


def read_inline(
    answer: Answer,
    question: str,
    *,
    most_json: int,
    most_bytes: int,
    parse: Callable[[bytes], tuple[T, Sequence[FetchRange]]],
) -> tuple[T, Bodies | None]:
    """The value of a frame's JSON, which ``parse`` gives with all its ranges, and the bytes that came along.

    Raises IntegrityError where it is not the answer to ``question``, or longer than it may be, and as a read does
    until the JSON is there.
    """
    head = InlineHead.parse(_exactly(answer, INLINE_HEAD_BYTES))
    if head.json_bytes > most_json:
        raise IntegrityError(f"{answer.peer} announces a reconstruction of {head.json_bytes} bytes", hint="try again")
    json = bytes(_exactly(answer, head.json_bytes))
    head.check(question, json)
    value, fetches = parse(json)
    wanted = told_ranges(head, fetches, most_bytes)
    lengths = [fetch.byte_end - fetch.byte_start for fetch in wanted]
    declared, told = answer.declared_bytes, INLINE_HEAD_BYTES + head.json_bytes + sum(lengths)
    if declared is not None and declared != told:
        raise IntegrityError(f"{answer.peer} sends {declared} bytes of an answer of {told}", hint="try again")
    bodies: dict[FetchRange, memoryview] = {}
    reading = _Reading(answer)
    for fetch, length in zip(wanted, lengths, strict=True):
        body = spare_memory(length)
        if not reading.fill(body):
            return value, bodies or None
        bodies[fetch] = body
    if not answer.is_at_end and reading.goes_on():
        raise IntegrityError(f"{answer.peer} sends more than the {told} bytes of its answer", hint="try again")
    return value, bodies or None


class _Reading:
    """Reads what follows the JSON. Silence as long as a range is hedged after, or a trickle, is the end of it."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._patience = answer.patience
        self._waited = 0.0
        self._since = 0.0
        self._read = 0

    def fill(self, view: memoryview) -> bool:
        """Fill all of ``view``. False if that is not worth the wait, or not to be had."""
        try:
            while view:
                count = self._take(view)
                if not count:
                    return False
                view = view[count:]
        except UnavailableError:
            return False
        return True

    def goes_on(self) -> bool:
        """True if there is one more byte."""
        try:
            return bool(self._take(memoryview(bytearray(1))))
        except UnavailableError:
            return False

    def _take(self, view: memoryview) -> int:
        """Some bytes; 0 at the end. Raises TimedOutError."""
        answer, patience = self._answer, self._patience
        silent = 0.0
        while (count := answer.take(view)) is None:
            before = time.monotonic()
            ready([answer.sock], [], patience.hedge - silent)
            waited = time.monotonic() - before
            silent += waited
            self._waited += waited
            if silent >= patience.hedge:
                raise TimedOutError(f"{answer.peer} sent no byte for {patience.hedge:g} s")
        self._read += count
        if not answer.is_limited and self._waited - self._since >= patience.trickle:
            if self._read < TRICKLE_RATE * (self._waited - self._since):
                raise TimedOutError(f"{answer.peer} sends a trickle")
            self._since, self._read = self._waited, 0
        return count


def _exactly(answer: Answer, nbytes: int) -> bytearray:
    """The next bytes. Raises UnreachableError where the body ends before, and as a read does."""
    body = bytearray(nbytes)
    view = memoryview(body)
    while view:
        count = answer.readinto(view)
        if not count:
            raise UnreachableError(f"the answer of {answer.peer} ended too early", hint="try again")
        view = view[count:]
    return body
