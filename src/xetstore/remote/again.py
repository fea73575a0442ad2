"""Putting files again by their hashes over HTTP: POST /v1/files/again, which other servers do not know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from xetstore.errors import IntegrityError, UsageError
from xetstore.interfaces import MANY_PUT_AGAIN
from xetstore.protocol.binding import again_question
from xetstore.protocol.hashes import Hash, split_hashes
from xetstore.protocol.suite import HASH_BYTES
from xetstore.remote.server import Credentials, Server

AGAIN: Final = "POST /v1/files/again"
_NO_SUCH_CALL: Final = (404, 405, 501)


def put_again(server: Server, files: Sequence[Hash], *, dry_run: bool) -> set[Hash]:
    """As :meth:`interfaces.Cas.put_again`."""
    asked = {*files}
    if len(asked) > MANY_PUT_AGAIN:
        raise UsageError(f"at most {MANY_PUT_AGAIN} files can be put again at once, not {len(asked)}")
    if not asked or server.lacks(AGAIN):
        return set()
    body = b"".join(sorted(file.digest for file in asked))
    credentials = server.credentials(write=not dry_run)

    def ask() -> set[Hash]:
        here = _ask(server, body, credentials, dry_run=dry_run)
        if not here <= asked:
            raise IntegrityError(
                f"{server.origin.address}: what came for an answer is not what was asked for", hint="try again"
            )
        return here

    return server.asked_twice(AGAIN, ask)


def _ask(server: Server, body: bytes, credentials: Credentials, *, dry_run: bool) -> set[Hash]:
    path = "/v1/files/again" + ("?dry_run=true" if dry_run else "")
    headers = {"content-type": "application/octet-stream"}
    with server.send("POST", path, credentials=credentials, headers=headers, body=body) as answer:
        if answer.status in _NO_SUCH_CALL:
            server.fall_back(AGAIN, "reading files")
            return set()
        if not answer.is_success:
            raise server.refused(answer, "files that are put again", credentials)
        told = server.read_bound(answer, len(body), again_question(body))
    if len(told) % HASH_BYTES:
        raise IntegrityError(f"{server.origin.address}: what came for an answer are no hashes", hint="try again")
    return {*map(Hash, split_hashes(told))}
