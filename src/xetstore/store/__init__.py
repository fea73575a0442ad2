"""The store, for users: put, get, open and stat, the same over a directory, a server or a Hub."""

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
