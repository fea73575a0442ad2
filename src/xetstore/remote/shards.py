"""Shards over HTTP: POST /v2/shards, whose answer is a stream of JSON frames, or POST /v1/shards (11.6)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import msgspec

from xetstore.errors import QuotaExceededError, RejectedShardError, TimedOutError, UnavailableError, XetError
from xetstore.protocol.shard import Shard
from xetstore.remote.problems import HINTS, refusal, tidy
from xetstore.remote.server import Credentials, Server
from xetstore.remote.transport import Answer

V1: Final = "POST /v1/shards"
V2: Final = "POST /v2/shards"
MAX_FRAME_BYTES: Final = 1 << 20
MAX_ANSWER_BYTES: Final = 1 << 20
READ_BYTES: Final = 64 << 10
COMMITS: Final = 10
"""The time for all of a commit, in times of what it may take to get a step further."""


_STAGES: Final = ("uploading", "syncing")


class _Frame(msgspec.Struct):
    """A line of the stream. Only its type is sure: what a server says beside is taken where it is as we know it."""

    type: str = ""
    verified: object = None
    stage: object = None
    result: object = 1
    message: object = ""
    retryable: object = False
    code: object = ""


class _Registered(msgspec.Struct):
    result: int


_FRAMES: Final = msgspec.json.Decoder(_Frame)
_V1_ANSWERS: Final = msgspec.json.Decoder(_Registered)


def put_shard(server: Server, shard: Shard) -> bool:
    """Register what ``shard`` names; True if anything of it is new. As :meth:`interfaces.Cas.put_shard`."""
    try:
        body = shard.serialize()
    except ValueError as error:
        raise RejectedShardError(f"the shard cannot be uploaded: {error}", hint="upload the files again") from None
    credentials = server.credentials(write=True)

    def post() -> bool:
        if not server.lacks(V2):
            with _post(server, "/v2/shards", body, credentials) as answer:
                if answer.status not in (404, 501):
                    return _v2_outcome(server, answer, credentials)
            server.fall_back(V2, V1)
        with _post(server, "/v1/shards", body, credentials) as answer:
            return _v1_outcome(server, answer, credentials)

    return server.retrying(V2, post)


def _post(server: Server, path: str, body: bytes, credentials: Credentials) -> Answer:
    # A server may be silent while it commits: the patience for that is longer than for other calls.
    return server.send("POST", path, credentials=credentials, body=body, timeout=server.transport.patience.shard)


def _v1_outcome(server: Server, answer: Answer, credentials: Credentials) -> bool:
    if not answer.is_success:
        raise _refused(server, answer, credentials)
    try:
        return bool(_V1_ANSWERS.decode(answer.read(MAX_ANSWER_BYTES)).result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _garbled(server) from None


def _v2_outcome(server: Server, answer: Answer, credentials: Credentials) -> bool:
    if not answer.is_success:
        raise _refused(server, answer, credentials)
    advance = _Advance(answer.peer, server.transport.patience.commit)
    for line in _lines(answer, advance):
        try:
            frame = _FRAMES.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _garbled(server) from None
        if frame.type == "result":
            return frame.result != 0
        if frame.type == "error":
            raise _frame_error(server, frame, credentials)
        advance.told(frame)
    raise UnavailableError(
        f"the shard at {server.origin.address}: the answer ended without a result",
        hint="it may have been registered or not; registering it again is safe",
    )


class _Advance:
    """Watches whether a server gets further with a commit. A repeated frame says that it is alive, and no more."""

    def __init__(self, peer: str, seconds: float) -> None:
        self._peer = peer
        self._seconds = seconds
        self._begun = self._since = time.monotonic()
        self._verified = -1.0
        self._stages: set[str] = set()

    def told(self, frame: _Frame) -> None:
        """Take in a frame: more that is verified, or one of the stages for the first time, is an advance."""
        verified = frame.verified if isinstance(frame.verified, int | float) else -1
        if frame.type == "validating" and verified > self._verified:
            self._verified = verified
        elif frame.type == "committing" and frame.stage in _STAGES and frame.stage not in self._stages:
            self._stages.add(str(frame.stage))
        else:
            return
        self._since = time.monotonic()

    def check(self) -> None:
        """Raise TimedOutError where it has not got further for too long."""
        now = time.monotonic()
        if now - self._since > self._seconds:
            text = f"has not got further with the shard for {self._seconds:g} s"
        elif now - self._begun > COMMITS * self._seconds:
            text = f"has not registered the shard within {COMMITS * self._seconds:g} s"
        else:
            return
        raise TimedOutError(
            f"{self._peer} {text}", hint="it may have been registered or not; registering it again is safe"
        )


def _lines(answer: Answer, advance: _Advance) -> Iterator[bytes]:
    """The lines of the stream that are not blank. The last one need not end."""
    pending = bytearray()
    buffer = memoryview(bytearray(READ_BYTES))
    while count := answer.readinto(buffer, has_floor=False):
        pending += buffer[:count]
        *whole, rest = pending.split(b"\n")
        if any(len(line) > MAX_FRAME_BYTES for line in (*whole, rest)):
            raise UnavailableError(
                f"{answer.peer} sent a line of more than {MAX_FRAME_BYTES} bytes where it should say how far it is",
                hint="try again; if it stays so, the server does not speak the Xet protocol",
            )
        yield from (bytes(line) for line in whole if line.strip())
        pending = bytearray(rest)
        advance.check()
    if pending.strip():
        yield bytes(pending)


def _frame_error(server: Server, frame: _Frame, credentials: Credentials) -> XetError:
    said = frame.message if isinstance(frame.message, str) else ""
    for secret in credentials.secrets:
        said = said.replace(secret, "***")
    said = tidy(said) or "no explanation"
    message = f"the shard at {server.origin.address}: {said}"
    if frame.retryable is True:
        return UnavailableError(message, hint="try again later")
    if frame.code == QuotaExceededError.code:
        return QuotaExceededError(message, hint=HINTS[QuotaExceededError])
    return refusal("", said, message, otherwise=RejectedShardError)


def _refused(server: Server, answer: Answer, credentials: Credentials) -> XetError:
    return server.refused(answer, "the shard", credentials, bad_request=RejectedShardError)


def _garbled(server: Server) -> UnavailableError:
    return UnavailableError(
        f"the shard at {server.origin.address}: what came for an answer is not JSON of the right form",
        hint="try again; if it stays so, the server does not speak the Xet protocol",
    )
