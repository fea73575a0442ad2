"""FirstQueries: the dedup queries that are a client's first, and are answered even if the chunk is not known."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

FIRST_QUERIES: Final = 10
"""Of a session. The reference client begins 8 files at once, and asks for the first chunk of each."""
MAX_SESSIONS: Final = 4096
"""Sessions remembered, some 200 bytes each."""
_MAX_NAME_CHARS: Final = 64


class FirstQueries:
    """The number of queries that each session has asked. One event loop's."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()

    def expects(self, namespace: str, session: str) -> bool:
        """True if the next query of a session is one of its first. ``session`` is its name, empty if it has none."""
        is_name = 0 < len(session) <= _MAX_NAME_CHARS
        return is_name and self._counts.get((namespace, session), 0) < FIRST_QUERIES

    def take(self, namespace: str, session: str) -> bool:
        """Count a query. True if it is one of the first."""
        if not self.expects(namespace, session):
            return False
        key = namespace, session
        self._counts[key] = self._counts.get(key, 0) + 1
        self._counts.move_to_end(key)
        if len(self._counts) > MAX_SESSIONS:
            self._counts.popitem(last=False)
        return True
