"""hf_xet in a process of its own, of any version and with any environment, against a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xetstore.protocol.hashes import Hash
from xetstore.records import FileInfo

WORKER = Path(__file__).parents[1] / "interop" / "hf_worker.py"
TIMEOUT_SECONDS = 120

Token = tuple[str, int]
"""A token and when it expires, in unix seconds."""


class HfError(Exception):
    """What the client raised: the name of its exception, and its message."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


@dataclass(frozen=True)
class Connection:
    """How a client reaches a server; ``refreshed`` is what the callable of the older functions returns."""

    endpoint: str | None
    token: Token | None = None
    refresh_url: str | None = None
    refreshed: Token | None = None


@dataclass(frozen=True)
class Uploaded:
    """What an upload told; the numbers of bytes are those of the session API."""

    infos: list[FileInfo]
    told: dict[str, Any]

    @property
    def new_bytes(self) -> int:
        return int(self.told["new_bytes"])

    @property
    def bytes_kept_together(self) -> int:
        """What the client's own guard against fragmentation (10.4) did not take from what it knew to be stored."""
        return int(self.told["defrag_prevented_dedup_bytes"])

    @property
    def bytes_by_global_dedup(self) -> int:
        return int(self.told["deduped_bytes_by_global_dedup"])


@dataclass(frozen=True)
class Wanted:
    """Bytes ``[start, end)`` of a file, or all of it; its size may be unknown."""

    hash: Hash
    size: int | None
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True)
class HfProcess:
    """One client: its connection, the folder that it remembers things in, and its environment.

    ``path`` is where its version of hf_xet is installed, None for the one of this environment.
    """

    connection: Connection
    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None

    def upload(self, paths: Sequence[Path], how: str = "upload_session") -> Uploaded:
        """Upload by one of the worker's functions. Raises HfError."""
        told = self.call(how, [str(path) for path in paths])
        files = told.pop("files")
        infos = [FileInfo(Hash.parse(file["hash"]), file["size"], file["sha256"]) for file in files]
        return Uploaded(infos, told)

    def download(self, infos: Sequence[FileInfo | Wanted], how: str = "download_session") -> list[bytes]:
        """The bytes of some files, by one of the worker's functions. Raises HfError."""
        folder = self.home / "out"
        folder.mkdir(parents=True, exist_ok=True)
        files = [
            {
                "hash": str(info.hash),
                "size": info.size,
                "start": info.start if isinstance(info, Wanted) else None,
                "end": info.end if isinstance(info, Wanted) else None,
                "out": str(folder / str(i)),
            }
            for i, info in enumerate(infos)
        ]
        self.call(how, files)
        contents = []
        for i in range(len(files)):
            path = folder / str(i)
            contents.append(path.read_bytes())
            path.unlink()
        return contents

    def call(self, call: str, subject: Any) -> dict[str, Any]:
        """One call of the worker, in a new process. Raises HfError for what the client raised."""
        asked = {"call": call, "connection": asdict(self.connection), "subject": subject}
        ended = subprocess.run(
            [sys.executable, str(WORKER)],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            env=self._environment(),
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        if ended.returncode:
            raise HfError(f"exit code {ended.returncode}", ended.stderr)
        told: dict[str, Any] = json.loads(ended.stdout)
        if "error" in told:
            raise HfError(told["error"], told["message"])
        return told

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
        return {
            **kept,
            "HF_HOME": str(self.home),
            "HF_XET_CACHE": str(self.home / "xet"),
            "HF_XET_TELEMETRY_ENABLED": "0",
            "HF_XET_CLIENT_RETRY_BASE_DELAY": "50ms",
            "PYTHONSAFEPATH": "1",
            **({} if self.path is None else {"PYTHONPATH": str(self.path)}),
            **self.environment,
        }
