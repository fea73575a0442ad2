"""Stores and repositories as an fsspec filesystem: reading, listing, and the errors that callers get."""

from xetstore.fs.file import XetFile
from xetstore.fs.filesystem import XetFileSystem
from xetstore.fs.stores import DamagedFileError, StoreError

__all__ = ["DamagedFileError", "StoreError", "XetFile", "XetFileSystem"]
