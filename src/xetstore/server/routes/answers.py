"""Answers that are made in memory: how much each may take, and holding it from before it is made until it was sent.

How large an answer gets is known from the rows of the index, before anything is computed for it. A small one is made at
once. A large one waits until the budget for reading has room, and is sent as stored bytes are: no faster than the
client takes it, to one that keeps its pace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from xetstore.cas.index import TermCount
from xetstore.errors import TooLargeError, UnavailableError, XetError
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3
from xetstore.server.http.sending import SentStream
from xetstore.server.threads import in_asking_thread

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from xetstore.server.ops.limits import ServerLimits
    from xetstore.server.site import Site

SMALL_BYTES: Final = 256 << 10
"""An answer that takes no more memory is made at once: there are threads for 40 of them."""
TERM_BYTES: Final = 480
"""Memory for each term of a reconstruction, measured; 131 of these are JSON."""
RANGE_BYTES: Final = 2200
"""Memory for each range with a URL of its own, measured; some 500 of these are JSON."""
USUAL_URL_BYTES: Final = 600
"""URLs that are no longer are in this. Each byte more is there twice; a session token may be 1,200 bytes of a URL."""
HASH_BYTES: Final = 80
"""Memory for each chunk hash: packed, and in JSON."""
_RANGES_OF_A_XORB: Final = 4096
"""More ranges that do not touch there cannot be in 8,192 chunks."""

_SMALL_TERMS: Final = SMALL_BYTES // (TERM_BYTES + RANGE_BYTES)
SMALL: Final = TermCount(_SMALL_TERMS, _SMALL_TERMS, SMALL_BYTES // HASH_BYTES)
"""A reconstruction of no more than that is small, whatever it consists of."""
SMALL_WITHOUT_HASHES: Final = replace(SMALL, chunks=_SMALL_TERMS * XET_GEARHASH_BLAKE3.max_xorb_chunks)


class LargeAnswer(Response):
    """An answer that holds ``amount`` bytes of the budget for reading while it is made, and until it was sent.

    ``make`` makes it, in a thread. ``if_busy`` is raised, or is the answer, where there is no room in time.
    """

    def __init__(
        self,
        make: Callable[[], Response],
        amount: int,
        *,
        limits: ServerLimits,
        holders: Sequence[str],
        if_busy: XetError | Response | None = None,
    ) -> None:
        super().__init__()
        self._make, self._amount, self._limits, self._holders = make, amount, limits, holders
        self._if_busy = if_busy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Make it and send it, as ASGI has it."""
        async with AsyncExitStack() as until_sent:
            try:
                await until_sent.enter_async_context(self._limits.reading.reserve(self._amount, self._holders))
            except UnavailableError as error:
                if self._if_busy is None:
                    raise
                if isinstance(self._if_busy, XetError):
                    raise self._if_busy from error
                answer = self._if_busy
            else:
                answer = await in_asking_thread(self._make)
            if answer.body and scope["method"] != "HEAD":
                answer = SentStream(
                    BytesIO(answer.body),
                    status_code=answer.status_code,
                    headers=answer.headers,
                    limits=self._limits,
                    amount=0,
                )
            await answer(scope, receive, send)


def memory_of(count: TermCount, *, hashes: bool, url_bytes: int = 0) -> int:
    """The memory that a reconstruction takes at most, with URLs of ``url_bytes``."""
    ranges = min(count.terms, count.xorbs * _RANGES_OF_A_XORB)
    range_bytes = RANGE_BYTES + 2 * max(0, url_bytes - USUAL_URL_BYTES)
    return count.terms * TERM_BYTES + ranges * range_bytes + count.chunks * HASH_BYTES * hashes


def enough_terms(site: Site) -> int:
    """Terms that are too many for any answer: no more of them have to be counted."""
    return site.settings.max_answer_bytes // TERM_BYTES + 1


def require_room(site: Site, amount: int, hint: str) -> None:
    """Raises TooLargeError for an answer that takes more memory than any may."""
    most = site.settings.max_answer_bytes
    if amount > most:
        site.metrics.answer_refused()
        raise TooLargeError(f"the answer would take {amount} bytes of memory, at most {most} are given", hint=hint)
