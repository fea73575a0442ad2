"""Context: all that an upload works with, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xetstore.events import Emit, ignore
from xetstore.limits import NO_LIMITS, Limits
from xetstore.platform.threads import usable_cores
from xetstore.protocol.xorb import CompressionPolicy
from xetstore.transfer.upload.queries import QUERY_PATIENCE, QueryPatience
from xetstore.transfer.upload.sizing import UploadSizes, upload_sizes

if TYPE_CHECKING:
    from xetstore.cancellation import Cancellation
    from xetstore.interfaces import Cas
    from xetstore.transfer.upload.known import KnownXorbs


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """Options of an upload. With ``dry_run`` nothing is sent, stored or remembered. ``sizes`` are by default those that
    keep ``limits``.
    """

    policy: CompressionPolicy = CompressionPolicy.AUTO
    dry_run: bool = False
    limits: Limits = NO_LIMITS
    sizes: UploadSizes | None = None
    query_patience: QueryPatience = QUERY_PATIENCE

    def sizes_for(self, *, remote: bool) -> UploadSizes:
        """The sizes that hold; ``remote`` says that storing a xorb means sending it."""
        return self.sizes or upload_sizes(self.limits, remote=remote)


@dataclass(frozen=True, slots=True)
class Context:
    """The Cas that an upload writes to, whose calls end with ``cancellation``, and all that this machine remembers of
    it.
    """

    cas: Cas
    cancellation: Cancellation
    options: UploadOptions
    known: KnownXorbs | None = None
    emit: Emit = ignore

    @property
    def sizes(self) -> UploadSizes:
        """The sizes that hold."""
        return self.options.sizes_for(remote=self.cas.is_remote)

    @property
    def threads(self) -> int:
        """Threads that hash, and that compress, beside those that read and send: with a server to feed, fewer of them
        do as much with less.
        """
        return max(1, usable_cores() // (2 if self.cas.is_remote else 1))
