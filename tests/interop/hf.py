"""The reference client, hf_xet, as these tests use it: over ``local://`` stores, away from caches and networks."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xetstore.protocol.hashes import Hash
from xetstore.records import FileInfo


class HfClient:
    """What hf_xet does. ``module`` is the imported package; its environment is set by the fixture ``hf``."""

    def __init__(self, module: Any) -> None:
        self._hf = module

    def hash_files(self, paths: Iterable[Path]) -> list[FileInfo]:
        """Hash and size of each file, without SHA-256."""
        return [self._info(found) for found in self._hf.hash_files([str(path) for path in paths])]

    def upload(self, store: HfStore, paths: Sequence[Path]) -> list[FileInfo]:
        """Store files by the older interface of the client."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            names = [str(path) for path in paths]
            return [self._info(found) for found in self._hf.upload_files(names, store.endpoint, None, None, None, None)]

    def upload_by_session(self, store: HfStore, paths: Sequence[Path]) -> list[FileInfo]:
        """Store files by the newer interface of the client."""
        commit = self._hf.XetSession().new_upload_commit(endpoint=store.endpoint)
        uploads = [commit.start_upload_file(str(path)) for path in paths]
        commit.wait_to_finish()
        return [self._info(upload.result().xet_info) for upload in uploads]

    def download(self, store: HfStore, file: FileInfo, out: Path) -> bytes:
        """Fetch a file; its bytes, which the client does not check."""
        group = self._hf.XetSession().new_file_download_group(endpoint=store.endpoint)
        group.start_download_file(self._hf.XetFileInfo(str(file.hash), file.size), str(out))
        group.wait_to_finish()
        data = out.read_bytes()
        out.unlink()
        return data

    def _info(self, found: Any) -> FileInfo:
        return FileInfo(Hash.parse(found.hash), found.file_size, found.sha256)


@dataclass(frozen=True)
class HfStore:
    """A directory behind a ``local://`` endpoint."""

    root: Path

    @property
    def endpoint(self) -> str:
        return f"local://{self.root}"

    @property
    def xorb_folder(self) -> Path:
        return self.root / "xet" / "xorbs" / "xorbs"

    @property
    def shard_cache(self) -> Path:
        """What the client remembers of shards, among them the answers to its dedup queries."""
        return self.root / "xet" / "shard-cache"

    def xorb_path(self, name: Hash) -> Path:
        return self.xorb_folder / f"default.{name}"

    def xorbs(self) -> dict[Hash, bytes]:
        """Every stored xorb by the name it is stored under."""
        found = sorted(path for path in self.xorb_folder.glob("default.*") if path.suffix != ".tagset")
        return {Hash.parse(path.name.removeprefix("default.")): path.read_bytes() for path in found}

    def shards(self) -> list[bytes]:
        """Every shard that was uploaded."""
        return [path.read_bytes() for path in sorted((self.root / "xet" / "xorbs" / "shards").glob("*.mdb"))]

    def cached_shards(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.shard_cache.glob("*.mdb"))]

    def replace_xorb(self, name: Hash, data: bytes) -> None:
        """Put other bytes under the name of a xorb, whether or not they are it."""
        path = self.xorb_path(name)
        path.unlink()
        path.write_bytes(data)
