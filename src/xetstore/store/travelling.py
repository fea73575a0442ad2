"""Travelling: a store that is pickled by how it was opened, and is opened again where it is first used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self

from xetstore.errors import NotPicklableError
from xetstore.opening import open_cas
from xetstore.platform import forks

if TYPE_CHECKING:
    from xetstore.events import Emit
    from xetstore.limits import Limits
    from xetstore.opening import Opened, Reopening

_ARRIVING: Final = forks.rlock()
"""Held while a store that came from another process is opened."""


class Travelling:
    """The base of a store, which has no attribute but these when it has come, until one is asked for."""

    location: str
    _reopening: Reopening | None

    def __reduce__(self) -> tuple[Callable[..., Travelling], tuple[Any, ...]]:
        if self._reopening is None:
            raise NotPicklableError(
                f"{self!r} is made of an object of this process, which does not travel to another one",
                hint="make it with xetstore.open, or open the store in the worker",
            )
        self._reopening.check()
        return _arrived, (type(self), self._reopening)

    if not TYPE_CHECKING:  # where types are checked, an attribute that is not there stays an error

        def __getattr__(self, name: str) -> object:
            """Open a store that came from another process, when it is first used."""
            reopening = self.__dict__.get("_reopening")
            if reopening is not None and not name.startswith("__"):
                with _ARRIVING:
                    if "_opened" not in self.__dict__:
                        options = reopening.options
                        self._begin(open_cas(reopening.location, options), options.limits, options.on_event)
                        self._reopening = reopening
                if name in self.__dict__:
                    return self.__dict__[name]
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _begin(self, opened: Opened, limits: Limits, on_event: Emit) -> None:
        """Be the store that was opened."""
        raise NotImplementedError

    @classmethod
    def _come(cls, reopening: Reopening) -> Self:
        store = object.__new__(cls)
        store._reopening, store.location = reopening, reopening.location
        return store


def _arrived(kind: type[Travelling], reopening: Reopening) -> Travelling:
    return kind._come(reopening)
