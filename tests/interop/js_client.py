"""@huggingface/hub in a process of its own, against a server; what it asks of a Hub is answered beside it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.hf_process import Wanted
from tests.support.proxy import Seen
from tests.support.servers import Server
from xetstore.protocol.hashes import Hash
from xetstore.records import FileInfo

SCRIPT = Path(__file__).parent / "js" / "hub.mjs"
TIMEOUT_SECONDS = 120
BUCKET = "buckets/some/bucket"
MODEL = "some/model"


class JsError(Exception):
    """What the client threw; ``status`` is that of the answer it threw for, if it was one."""

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class JsClient:
    """A client with tokens of a server, ``scope`` that of those it uploads with.

    ``seen`` is what it asked the server in its last call.
    """

    server: Server
    folder: Path
    scope: str = "write"

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.seen: list[Seen] = []

    def upload(self, paths: Sequence[Path], repo: str = BUCKET) -> list[dict[str, str]]:
        """What the commit says of each file: its ``hash`` in a bucket, its ``sha256`` in any other repository."""
        files = [{"path": f"{i}.bin", "file": str(path)} for i, path in enumerate(paths)]
        committed = self._call("upload", {"repo": repo, "files": files})["committed"]
        return [committed[file["path"]] for file in files]

    def edit(self, original: FileInfo, edits: Mapping[tuple[int, int], bytes]) -> Hash:
        """The hash of a stored file with some of its ranges replaced."""
        listed = []
        for i, ((start, end), content) in enumerate(edits.items()):
            path = self.folder / f"edit {i}"
            path.write_bytes(content)
            listed.append({"start": start, "end": end, "file": str(path)})
        subject = {"repo": BUCKET, "path": "edited", "original": _file(original), "edits": listed}
        return Hash.parse(self._call("edit", subject)["committed"]["edited"]["hash"])

    def download(self, wanted: Sequence[FileInfo | Wanted], *, parallel: bool = True) -> list[bytes]:
        """The bytes of files, or of ranges of them."""
        outs = [self.folder / f"out {i}" for i in range(len(wanted))]
        files = [_file(info) | {"out": str(out), "parallel": parallel} for info, out in zip(wanted, outs, strict=True)]
        self._call("download", {"files": files})
        return [out.read_bytes() for out in outs]

    def _call(self, call: str, subject: Mapping[str, Any]) -> dict[str, Any]:
        tokens = {"read": self.server.token("read"), "write": self.server.token(self.scope)}
        asked = {"cas": self.server.endpoint, "tokens": tokens, "call": call, "subject": subject}
        ended = subprocess.run(
            ["node", str(SCRIPT)],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        if ended.returncode:
            raise JsError(ended.stderr, None)
        told: dict[str, Any] = json.loads(ended.stdout)
        self.seen = [Seen(*request) for request in told["requests"]]
        if "error" in told:
            raise JsError(f"{told['error']}: {told['message']}", told.get("status"))
        return told


def _file(info: FileInfo | Wanted) -> dict[str, Any]:
    start, end = (info.start, info.end) if isinstance(info, Wanted) else (None, None)
    return {"hash": str(info.hash), "size": info.size, "start": start, "end": end}
