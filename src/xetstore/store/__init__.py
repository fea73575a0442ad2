"""The store, for users: put, get, open and stat, the same over a directory, a server or a Hub."""

from typing import TYPE_CHECKING

from xetstore.loading import lazily

if TYPE_CHECKING:
    from xetstore.records import FileInfo, FileRecord, Totals
    from xetstore.store.content import GetReport
    from xetstore.store.opened import open_locator, open_store
    from xetstore.store.store import Store
    from xetstore.store.what import What
    from xetstore.transfer.scan import HashReport, hash_report

__all__ = [
    "FileInfo",
    "FileRecord",
    "GetReport",
    "HashReport",
    "Store",
    "Totals",
    "What",
    "hash_report",
    "open_locator",
    "open_store",
]

if not TYPE_CHECKING:  # where types are checked, a name that is not there stays an error
    __getattr__ = lazily(
        __name__,
        {
            "FileInfo": "xetstore.records",
            "FileRecord": "xetstore.records",
            "GetReport": "xetstore.store.content",
            "HashReport": "xetstore.transfer.scan",
            "Store": "xetstore.store.store",
            "Totals": "xetstore.records",
            "What": "xetstore.store.what",
            "hash_report": "xetstore.transfer.scan",
            "open_locator": "xetstore.store.opened",
            "open_store": "xetstore.store.opened",
        },
    )
