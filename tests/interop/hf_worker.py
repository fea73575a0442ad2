"""A process of its own for one version of hf_xet, which reads its environment once: calls as JSON in, answers out.

Run as a script, not imported. It knows nothing of xetstore, so that any version of the client can be on its path.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import hf_xet

warnings.simplefilter("ignore", DeprecationWarning)

Answer = dict[str, Any]
STREAM_PARTS = (1, 65_536, 1_000_003)
"""How many bytes at a time are written to an upload stream, over and over."""


class Connection:
    """Where to connect, with which token, and where the next one comes from."""

    def __init__(
        self,
        endpoint: str | None,
        token: tuple[str, int] | None = None,
        refresh_url: str | None = None,
        refreshed: tuple[str, int] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.token = token
        self.refresh_url = refresh_url
        self.refreshed = refreshed
        self.refreshes = 0

    def legacy(self) -> tuple[Any, ...]:
        """The arguments of the older functions: endpoint, token, and a callable for the next token."""

        def refresh() -> tuple[str, int]:
            self.refreshes += 1
            assert self.refreshed is not None
            return self.refreshed[0], self.refreshed[1]

        token = None if self.token is None else (self.token[0], self.token[1])
        return self.endpoint, token, None if self.refreshed is None else refresh

    def session(self) -> dict[str, Any]:
        token, expires = self.token or (None, None)
        named = {
            "endpoint": self.endpoint,
            "token": token,
            "token_expiry_unix_secs": expires,
            "token_refresh_url": self.refresh_url,
        }
        return {name: value for name, value in named.items() if value is not None}


def upload_session(connection: Connection, paths: list[str]) -> Answer:
    commit = hf_xet.XetSession().new_upload_commit(**connection.session())
    uploads = [commit.start_upload_file(path) for path in paths]
    return committed(commit, lambda: [upload.result().xet_info for upload in uploads])


def upload_stream(connection: Connection, paths: list[str]) -> Answer:
    commit = hf_xet.XetSession().new_upload_commit(**connection.session())
    found = []
    for path in paths:
        stream = commit.start_upload_stream(name=path)
        for part in parts_of(Path(path).read_bytes()):
            stream.write(part)
        found.append(stream.finish().xet_info)
    return committed(commit, lambda: found)


def parts_of(data: bytes) -> Iterator[bytes]:
    at = 0
    for size in cycle(STREAM_PARTS):
        if at >= len(data):
            return
        yield data[at : at + size]
        at += size


def committed(commit: Any, found: Callable[[], list[Any]]) -> Answer:
    metrics = commit.wait_to_finish().dedup_metrics
    names = (
        *("new_bytes", "total_bytes", "deduped_bytes", "deduped_bytes_by_global_dedup", "xorb_bytes_uploaded"),
        "defrag_prevented_dedup_bytes",
    )
    return {"files": [info_of(info) for info in found()], **{name: getattr(metrics, name) for name in names}}


def upload_files(connection: Connection, paths: list[str]) -> Answer:
    found = hf_xet.upload_files(paths, *connection.legacy(), None, None)
    return {"files": [info_of(info) for info in found], "refreshes": connection.refreshes}


def upload_bytes(connection: Connection, paths: list[str]) -> Answer:
    contents = [Path(path).read_bytes() for path in paths]
    found = hf_xet.upload_bytes(contents, *connection.legacy(), None, None)
    return {"files": [info_of(info) for info in found], "refreshes": connection.refreshes}


def info_of(found: Any) -> Answer:
    size = found.file_size if hasattr(found, "file_size") else found.filesize
    return {"hash": found.hash, "size": size, "sha256": getattr(found, "sha256", None)}


def download_session(connection: Connection, files: list[Answer]) -> Answer:
    group = hf_xet.XetSession().new_file_download_group(**connection.session())
    for file in files:
        group.start_download_file(hf_xet.XetFileInfo(file["hash"], file["size"]), file["out"])
    group.wait_to_finish()
    return {}


def download_files(connection: Connection, files: list[Answer]) -> Answer:
    wanted = [hf_xet.PyXetDownloadInfo(file["out"], file["hash"], file["size"]) for file in files]
    hf_xet.download_files(wanted, *connection.legacy(), None)
    return {"refreshes": connection.refreshes}


def stream(connection: Connection, files: list[Answer]) -> Answer:
    """Ordered streams, all of them open at once."""
    group = hf_xet.XetSession().new_download_stream_group(**connection.session())
    streams = [
        (group.download_stream(hf_xet.XetFileInfo(file["hash"], file["size"]), file["start"], file["end"]), file["out"])
        for file in files
    ]
    for pieces, out in streams:
        with Path(out).open("wb") as target:
            for piece in pieces:
                target.write(piece)
    group.finish()
    return {}


def stream_unordered(connection: Connection, files: list[Answer]) -> Answer:
    """Unordered streams; each piece is written where the client says that it belongs in the range asked for."""
    group = hf_xet.XetSession().new_download_stream_group(**connection.session())
    for file in files:
        info = hf_xet.XetFileInfo(file["hash"], file["size"])
        with Path(file["out"]).open("wb") as target:
            for offset, piece in group.download_unordered_stream(info, file["start"], file["end"]):
                target.seek(offset)
                target.write(piece)
    group.finish()
    return {}


CALLS = {
    call.__name__: call
    for call in (
        *(upload_session, upload_stream, upload_files, upload_bytes),
        *(download_session, download_files, stream, stream_unordered),
    )
}


def main() -> None:
    # Old versions log to stdout.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asked = json.load(sys.stdin)
    connection = Connection(**asked["connection"])
    try:
        answer = CALLS[asked["call"]](connection, asked["subject"])
    except Exception as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    with answers:
        json.dump(answer, answers)


if __name__ == "__main__":
    main()
