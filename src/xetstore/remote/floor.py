"""Floor: the least that a body has to move while it is waited for, so that a drip ends as silence does."""

from __future__ import annotations

from xetstore.sizes import size_text


class Floor:
    """Follows one body. ``rate`` is bytes per second, as the mean of ``seconds`` of waiting; 0 asks for nothing.

    Only waiting for the other side counts, and not what the caller does in between. Not thread-safe.

    >>> floor = Floor(1000, 60)
    >>> floor.waited(59, 10), floor.waited(2, 10), floor.waited(61, 100_000)
    (False, True, False)
    """

    __slots__ = ("_bytes", "_seconds", "_waited", "rate")

    def __init__(self, rate: float, seconds: float) -> None:
        self.rate = rate
        self._seconds = seconds
        self._bytes = 0
        self._waited = 0.0

    def waited(self, seconds: float, nbytes: int = 0) -> bool:
        """Take in a wait and the bytes after it. True if they are too few over the time that counts."""
        self._waited += seconds
        self._bytes += nbytes
        if self._waited < self._seconds:
            return False
        is_slow = self._bytes < self.rate * self._waited
        self._waited, self._bytes = 0.0, 0
        return is_slow

    def moved(self, nbytes: int) -> None:
        """Bytes came, or were taken, without a wait."""
        self._bytes += nbytes

    @property
    def text(self) -> str:
        """The rate that is asked for, for people."""
        return f"{size_text(int(self.rate))}/s over {self._seconds:g} s"
