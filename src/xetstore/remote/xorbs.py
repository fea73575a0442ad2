"""Xorbs up: by a grant to wherever the server wants the bytes, or by POST to the server itself (11.5)."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

from xetstore.errors import IntegrityError, NotFoundError, UnavailableError, XetError
from xetstore.events import FellBack
from xetstore.protocol import kernel
from xetstore.protocol.hashes import Hash
from xetstore.remote.problems import problem_of
from xetstore.remote.server import Credentials, Server

if TYPE_CHECKING:
    from typing_extensions import Buffer

POST: Final = "POST /v1/xorbs"
GRANTS: Final = "POST /v1/xorb-grants"
COMMITS: Final = "POST /v1/xorb-commits"
PUT: Final = "PUT to the grant's URL"
MAX_GRANTS: Final = 3
MAX_ANSWER_BYTES: Final = 1 << 20
PREFIX: Final = "default"

_METHOD: Final = re.compile(r"[A-Z]{3,16}")
_OURS: Final = frozenset({"content-length", "transfer-encoding", "connection", "host", "expect", "upgrade", "te"})


class _Grant(msgspec.Struct):
    id: str
    method: str
    url: str
    headers: dict[str, str]


class _Inserted(msgspec.Struct):
    was_inserted: bool


_GRANT_ANSWERS: Final = msgspec.json.Decoder(_Grant)
_POST_ANSWERS: Final = msgspec.json.Decoder(_Inserted)


class XorbUpload:
    """One xorb on its way up."""

    def __init__(self, server: Server, xorb: Hash, body: Buffer) -> None:
        self._server = server
        self._xorb = xorb
        self._body = memoryview(body).cast("B")
        self._credentials: Credentials = server.credentials(write=True)

    def run(self) -> bool:
        """Store it; True if it is new. As :meth:`interfaces.Cas.put_xorb`."""
        if not self._server.lacks(GRANTS):
            stored = self._by_grant()
            if stored is not None:
                return stored
        return self._server.retrying(POST, self._post)

    def _post(self) -> bool:
        answer = self._server.send(
            "POST",
            f"/v1/xorbs/{PREFIX}/{self._xorb}",
            credentials=self._credentials,
            body=self._body,
        )
        with answer:
            if not answer.is_success:
                raise self._server.refused(answer, self._name, self._credentials, bad_request=IntegrityError)
            try:
                return _POST_ANSWERS.decode(answer.read(MAX_ANSWER_BYTES)).was_inserted
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise self._garbled() from None

    def _by_grant(self) -> bool | None:
        """Send it by a grant. True if it is new; None if it has to be posted."""
        document = {
            "length": len(self._body),
            "checksum": {"algo": "crc64nvme", "value": str(kernel.crc64_nvme(self._body))},
        }
        asked = msgspec.json.encode(document)
        for _ in range(MAX_GRANTS):
            grant = self._server.retrying(GRANTS, partial(self._ask, asked))
            if grant is None:
                self._server.fall_back(GRANTS, POST)
                return None
            if isinstance(grant, bool):
                return False
            try:
                is_new = self._server.retrying(PUT, partial(self._put, grant))
            except UnavailableError:
                break
            if is_new is None:
                continue
            if self._server.retrying(COMMITS, partial(self._commit, grant)):
                return is_new
        self._server.emit(FellBack(PUT, POST))
        return None

    def _ask(self, asked: bytes) -> _Grant | bool | None:
        """A grant; True if the xorb is stored already; None if there are no grants here."""
        answer = self._server.send(
            "POST",
            f"/v1/xorb-grants/{PREFIX}/{self._xorb}",
            credentials=self._credentials,
            headers={"content-type": "application/json"},
            body=asked,
        )
        with answer:
            if answer.status == 200:
                answer.read(MAX_ANSWER_BYTES)
                return True
            if answer.status == 404:
                return None
            if answer.status != 201:
                raise self._server.refused(answer, self._name, self._credentials, bad_request=IntegrityError)
            try:
                grant = _GRANT_ANSWERS.decode(answer.read(MAX_ANSWER_BYTES))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise self._garbled() from None
        if grant.id in ("", ".", "..") or not _METHOD.fullmatch(grant.method):
            raise self._garbled()
        return grant

    def _put(self, grant: _Grant) -> bool | None:
        """Put the bytes. True if they were not there before; None if the grant was refused."""
        headers = {name: value for name, value in grant.headers.items() if name.lower() not in _OURS}
        with self._server.send_to(grant.method, grant.url, headers=headers, body=self._body) as answer:
            if answer.status == 412:
                return False
            if answer.is_success:
                return True
            error = problem_of(
                answer,
                f"{self._name} at {answer.peer}",
                secrets=tuple(value for value in headers.values() if len(value) >= 16),
            )
            if isinstance(error, UnavailableError):
                raise error
            return None

    def _commit(self, grant: _Grant) -> bool:
        """False if the grant is not known (any more)."""
        answer = self._server.send(
            "POST",
            f"/v1/xorb-commits/{PREFIX}/{self._xorb}/grant/{quote(grant.id, safe='')}",
            credentials=self._credentials,
        )
        with answer:
            if answer.is_success:
                answer.read(MAX_ANSWER_BYTES)
                return True
            error = self._server.refused(answer, self._name, self._credentials, bad_request=IntegrityError)
            if isinstance(error, NotFoundError):
                return False
            raise error

    @property
    def _name(self) -> str:
        return f"xorb {self._xorb}"

    def _garbled(self) -> XetError:
        return UnavailableError(
            f"{self._name} at {self._server.origin.address}: what came for an answer is not JSON of the right form",
            hint="try again; if it stays so, the server does not speak the Xet protocol",
        )
