"""Context: all that a download works with, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from xetstore.errors import XetError
from xetstore.limits import NO_LIMITS, Limits
from xetstore.protocol.inline import MOST_INLINE_BYTES
from xetstore.transfer.download.reconstructions import WINDOW_BYTES
from xetstore.transfer.download.reuse.reuse import Reuse

if TYPE_CHECKING:
    from xetstore.events import Emit
    from xetstore.interfaces import Cas
    from xetstore.protocol.hashes import Hash
    from xetstore.protocol.reconstruction import BatchReconstruction
    from xetstore.transfer.download.workers import Workers

BATCH_INLINE_BYTES: Final = 2 << 20
"""Bytes that come along with the reconstruction of a batch of small files, of which several are asked for at a time."""


@dataclass(frozen=True, slots=True)
class DownloadOptions:
    """Options of downloads.

    ``workers`` fixes the number of fetches at a time: without it the processor, or over a network the goodput, decides
    within ``limits``. One reconstruction asks for at most ``window_bytes`` of a file. A worker reads and decodes
    ``piece_bytes`` of a xorb at a time: few enough to stay in the processor's cache. A second look asks for
    ``group_bytes`` at a time.
    """

    limits: Limits = NO_LIMITS
    workers: int | None = None
    window_bytes: int = WINDOW_BYTES
    piece_bytes: int = 1 << 20
    group_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class Context:
    """The Cas that a download reads, its threads and bounds, and all that is here already."""

    cas: Cas
    workers: Workers
    options: DownloadOptions
    emit: Emit
    reuse: Reuse = field(default_factory=Reuse)

    @property
    def inline_bytes(self) -> int:
        """The bytes that may come along with a reconstruction: none where it takes no round trip to fetch them."""
        return MOST_INLINE_BYTES if self.cas.is_remote else 0

    def batch_reconstruction(self, files: Sequence[Hash]) -> BatchReconstruction | None:
        """The reconstruction of several files, with bytes of them. As :meth:`interfaces.Cas.reconstruct_many`."""
        inline = min(self.inline_bytes, BATCH_INLINE_BYTES)
        return self.cas.reconstruct_many(files, inline=inline) if inline else self.cas.reconstruct_many(files)

    def suspect(self, xorb: Hash) -> None:
        """Say that bytes of a xorb came out wrong, so that its store looks at it, and the next put heals it."""
        with suppress(XetError):  # the error that led here is the one to tell
            self.cas.suspect(xorb)

    @property
    def damage_hint(self) -> str:
        """The hint for a xorb that came out wrong twice."""
        if self.cas.is_remote:
            return (
                "it came so twice, with fresh addresses: put the file again, or ask the server's operator to check"
                " its store"
            )
        return "put the file again, and what is damaged is stored anew; `xet check --read-data` lists what else is"

    @property
    def answer_hint(self) -> str:
        """The hint for answers of a Cas that do not fit together."""
        if self.cas.is_remote:
            return "the server, or something before it, gives wrong answers: try again, then tell who runs it"
        return "`xet check` lists what is damaged"
