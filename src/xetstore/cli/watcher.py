"""Watcher: events of a transfer, beside its bytes, as notes for people or as JSON lines, on stderr."""

from __future__ import annotations

import re
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xetstore.events import CacheDisabled, Damaged, Event, Forgotten, Resumed, Retrying
from xetstore.protocol.hashes import Hash
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.cli.output import Output


class Watcher:
    """Takes the events of a store, from any thread.

    ``as_records`` prints every one as JSON. Else what a user wants to know is a note or a warning; of calls that are
    made again one note at a time, and only on a terminal, because a user waits there; each where details are wanted.
    """

    def __init__(self, output: Output, *, as_records: bool = False) -> None:
        self._output = output
        self._as_records = as_records
        self._quiet_until = 0.0

    def __call__(self, event: Event) -> None:
        """Tell of an event what a user wants to know."""
        if self._as_records:
            self._output.event(event_record(event))
            return
        match event:
            case Retrying(reason=reason, delay_seconds=delay):
                self._retrying(reason, delay)
            case Damaged(what=what, refetching=True):
                self._output.note(f"{what}; fetching it again")
            case Resumed(path=path, kept_bytes=kept):
                self._output.note(f"{path}: {size_text(kept)} are here from an earlier attempt")
            case Forgotten(reason=reason):
                self._output.note(f"{reason}: uploading again what it needs")
            case CacheDisabled(reason=reason):
                self._output.warning(f"going on without the cache: {reason}")
            case _:
                pass

    def _retrying(self, reason: str, delay: float) -> None:
        now = time.monotonic()
        if not self._output.verbose and (not self._output.on_terminal or now < self._quiet_until):
            return
        self._quiet_until = now + max(delay, 1)
        self._output.note(f"retrying in {delay:.0f} s: {reason}" if delay >= 1 else f"retrying: {reason}")


def event_record(event: Event) -> dict[str, Any]:
    """An event as JSON: its name in ``event``, and its fields.

    >>> event_record(Retrying("put_xorb", "the connection was reset", 1, 0.25))["event"]
    'retrying'
    """
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
    return {"event": name, **{field.name: _plain(getattr(event, field.name)) for field in fields(event)}}


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Hash | Path) else value
