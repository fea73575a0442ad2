"""Stores and repositories as an fsspec filesystem: what is read, what is listed, and which errors callers get."""

from xetstore.fs.file import XetFile
from xetstore.fs.filesystem import XetFileSystem
from xetstore.fs.stores import DamagedFileError, StoreError

__all__ = ["DamagedFileError", "StoreError", "XetFile", "XetFileSystem"]
