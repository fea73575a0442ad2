"""Redirects: the one loop that follows them, and the rules of what is followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xetstore.errors import XetError
from xetstore.remote.network import origin_of

if TYPE_CHECKING:
    from xetstore.remote.transport import Answer

STATUSES: Final = frozenset((301, 302, 303, 307, 308))
SAME_METHOD: Final = frozenset((307, 308))
"""Those by which a body is sent again (RFC 9110, 15.4.8 and 15.4.9)."""


@dataclass(frozen=True, slots=True)
class Redirects:
    """A rule: the answer to a URL is followed to its ``target``, unless that is None, at most ``most`` times in a row.

    More of them are an ``error``, with a hint.
    """

    most: int
    target: Callable[[Answer, str], str | None]
    error: type[XetError]
    hint: str


def follow(url: str, ask: Callable[[str], Answer], rule: Redirects) -> Answer:
    """The first answer that is not followed. Raises the error of the rule, and what ``ask`` raises."""
    for _ in range(rule.most + 1):
        answer = ask(url)
        try:
            target = rule.target(answer, url)
        except BaseException:
            answer.close()
            raise
        if target is None:
            return answer
        answer.close()
        url = target
    raise rule.error(f"{origin_of(url).address} redirects more than {rule.most} times", hint=rule.hint)
