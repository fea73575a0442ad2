"""Small files into memory, some dozens at a time: each is handed on when it is whole and right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from xetstore.errors import NotFoundError
from xetstore.transfer.download.batch import Batch, BatchPlan, Room
from xetstore.transfer.download.file_request import FileRequest

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash
    from xetstore.transfer.download.downloader import Downloader

SMALL_BYTES: Final = 1 << 20
"""Larger files come alone: what they have in common with others is little beside their bytes."""
HELD_BYTES: Final = 16 << 20
"""Bytes of files that are held at a time."""


def load_small(downloader: Downloader, files: Sequence[Hash], take: Callable[[Hash, memoryview], None]) -> None:
    """Hand to ``take`` those of at most :data:`~xetstore.interfaces.MANY_FILES` files that come well, in any order.

    What does not come in this way, be it large, damaged or not there, is left to the download of that file alone, which
    says why. Each is verified against its file hash.
    """
    context = downloader.context(workers=1)
    try:
        answer = context.batch_reconstruction(files)
    except NotFoundError:
        return
    if answer is None:
        return
    plan = BatchPlan.of(answer, [FileRequest(file, number) for number, file in enumerate(files)], SMALL_BYTES)
    batch = Batch(plan, context, Room(HELD_BYTES), lambda request, data: take(request.file, data))
    for part in batch.parts:
        batch.fetch(part)
