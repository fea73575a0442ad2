"""The store for asyncio: every verb of Store and of Repository, run in a thread.

A task that is cancelled gives up its own call only.
A canceller waits until the thread has ended, so that nothing is left of the call, no temporary file and no open
socket. Callbacks (progress, errors, events) are called from these threads.
"""

from xetstore.aio.file import AsyncFile
from xetstore.aio.repository import AsyncRepository
from xetstore.aio.store import AsyncStore, hash_file, open, open_locator  # noqa: A004  # the package's verbs

__all__ = ["AsyncFile", "AsyncRepository", "AsyncStore", "hash_file", "open", "open_locator"]
