"""Context: all that an upload works with, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
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
    from xetstore.transfer.upload.remembered import RememberedFiles


class Unchanged(StrEnum):
    """The treatment of files that are as they were when they were put before."""

    READ = "read"
    """Read them; nothing is remembered."""
    SKIP = "skip"
    """Do not read them, where the store has them; remember all others."""
    RENEW = "renew"
    """Read them, and remember all anew."""


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """Options of an upload. With ``dry_run`` nothing is sent, stored or remembered. ``sizes`` are by default those that
    keep ``limits``. ``unchanged`` is about files that are remembered and that the Cas has.
    """

    policy: CompressionPolicy = CompressionPolicy.AUTO
    dry_run: bool = False
    limits: Limits = NO_LIMITS
    sizes: UploadSizes | None = None
    query_patience: QueryPatience = QUERY_PATIENCE
    unchanged: Unchanged = Unchanged.READ

    def sizes_for(self, *, remote: bool) -> UploadSizes:
        """The sizes that hold; ``remote`` says that storing a xorb means sending it."""
        return self.sizes or upload_sizes(self.limits, remote=remote)


@dataclass(frozen=True, slots=True)
class Context:
    """The Cas that an upload writes to, whose calls end with ``cancellation``, and all that this machine remembers: of
    that Cas, and of files.
    """

    cas: Cas
    cancellation: Cancellation
    options: UploadOptions
    known: KnownXorbs | None = None
    emit: Emit = ignore
    remembered: RememberedFiles | None = None

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
