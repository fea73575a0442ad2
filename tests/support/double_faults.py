"""What goes wrong in the double: everything that a network, a proxy or a server does to a call, one fault each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from tests.support.double import Answer, Call, Fault
from xetstore.protocol.suite import CHUNK_HEADER_BYTES


def flip(at: float, bit: int = 0) -> Fault:
    """One bit of the body is another: at an offset, or at a share of the body's length."""

    def change(call: Call, answer: Answer) -> bool:
        if answer.body:
            body = bytearray(answer.body)
            body[int(at * len(body)) if isinstance(at, float) else min(at, len(body) - 1)] ^= 1 << bit
            answer.body = bytes(body)
        return True

    return Fault(f"bit {bit} of byte {at} flipped", change=change)


def flip_chunk(where: str, scheme: int | None = None) -> Fault:
    """One bit of the first chunk of a scheme (0 stored, 1 LZ4, 2 BG4-LZ4): in its ``header`` or ``payload``."""

    def change(call: Call, answer: Answer) -> bool:
        body, at = bytearray(answer.body), 0
        while at + CHUNK_HEADER_BYTES <= len(body):
            size = int.from_bytes(body[at + 1 : at + 4], "little")
            if scheme is None or body[at + 4] == scheme:
                body[at + (2 if where == "header" else CHUNK_HEADER_BYTES + size // 2)] ^= 4
                answer.body = bytes(body)
                return True
            at += CHUNK_HEADER_BYTES + size
        return False

    return Fault(f"a bit flipped in the {where} of a chunk of scheme {scheme}", change=change)


def flip_length() -> Fault:
    """A bit of the Content-Length: it announces more than comes."""

    def change(call: Call, answer: Answer) -> bool:
        length = len(answer.body) if answer.declared is None else answer.declared
        answer.declared = length ^ (1 << max(length.bit_length(), 1))
        return True

    return Fault("a bit of the Content-Length flipped", change=change)


def change_number(pick: int, by: int = 1) -> Fault:
    """One of the numbers of a JSON answer is another."""

    def change(call: Call, answer: Answer) -> bool:
        numbers = list(re.finditer(rb"(?<=[:\[,])\d+", answer.body))
        if numbers:
            found = numbers[pick % len(numbers)]
            new = str(max(0, int(found[0]) + by)).encode()
            answer.body = answer.body[: found.start()] + new + answer.body[found.end() :]
        return True

    return Fault(f"number {pick} changed by {by}", change=change)


def change_json(name: str, edit: Callable[[Any], object]) -> Fault:
    """A JSON answer, edited in place."""

    def change(call: Call, answer: Answer) -> bool:
        if answer.status != 200 or not answer.body.startswith(b"{"):
            return False
        told = json.loads(answer.body)
        edit(told)
        answer.body = json.dumps(told).encode()
        return True

    return Fault(name, change=change)


def truncate(keep: float, *, honest: bool) -> Fault:
    """Only the first part of the body comes; an ``honest`` Content-Length says so."""

    def change(call: Call, answer: Answer) -> bool:
        kept = int(keep * len(answer.body)) if isinstance(keep, float) else min(keep, len(answer.body))
        if honest:
            answer.body = answer.body[:kept]
        else:
            answer.stop_at = kept
        return True

    return Fault(f"cut to {keep}, the length {'fits' if honest else 'does not'}", change=change)


def stall_before() -> Fault:
    """No answer."""
    return Fault("stalls before the answer", instead=lambda call: Answer(200, stop_at=-1, stall=True))


def stall_early() -> Fault:
    """No answer, and the request's body is not taken."""
    return Fault("stalls before the body is taken", early=lambda call: Answer(200, stop_at=-1, stall=True))


def stall_within(share: float = 0.5) -> Fault:
    """The body stops coming, the connection stays."""

    def change(call: Call, answer: Answer) -> bool:
        answer.stop_at, answer.stall = int(len(answer.body) * share), True
        return True

    return Fault(f"stalls at {share} of the body", change=change)


def reset_before() -> Fault:
    return Fault("reset before the answer", instead=lambda call: Answer(200, stop_at=-1, reset=True))


def reset_early(read: int = 0) -> Fault:
    return Fault(
        f"reset when {read} bytes were taken", early=lambda call: Answer(200, stop_at=-1, reset=True), read=read
    )


def reset_after() -> Fault:
    """The call is made, and the answer is lost."""

    def change(call: Call, answer: Answer) -> bool:
        answer.stop_at, answer.reset = -1, True
        return True

    return Fault("reset instead of the answer to a call that was made", change=change)


def reset_within(share: float = 0.5) -> Fault:
    def change(call: Call, answer: Answer) -> bool:
        answer.stop_at, answer.reset = int(len(answer.body) * share), True
        return True

    return Fault(f"reset at {share} of the body", change=change)


def close_before() -> Fault:
    return Fault("closed before the answer", instead=lambda call: Answer(200, stop_at=-1))


def status(code: int, *, retry_after: str | None = None, early: bool = False, body: bytes | None = None) -> Fault:
    """Another status, with the error of a server or of a proxy; ``early``: while the request is still being sent."""

    def answer(call: Call) -> Answer:
        told = body if body is not None else json.dumps({"code": "made_up", "message": "made up by a test"}).encode()
        headers = [("Content-Type", "application/json" if told.startswith(b"{") else "text/html")]
        if retry_after is not None:
            headers.append(("Retry-After", retry_after))
        return Answer(code, headers, told)

    name = f"{code}{' early' if early else ''}{f' with Retry-After {retry_after}' if retry_after else ''}"
    return Fault(name, early=answer) if early else Fault(name, instead=answer)


def garbage() -> Fault:
    return Fault(
        "garbage instead of HTTP", instead=lambda call: Answer(200, raw=b"\x16\x03\x01\x02\x00 SSH-2.0?\r\n\r\n")
    )


def html() -> Fault:
    page = b"<!doctype html><title>Welcome to the hotel's network</title><p>Log in first."
    return Fault("an HTML page", instead=lambda call: Answer(200, [("Content-Type", "text/html")], page))


def empty() -> Fault:
    def change(call: Call, answer: Answer) -> bool:
        answer.body = b""
        return True

    return Fault("an empty body", change=change)


def longer() -> Fault:
    """More than was asked for, and it is said so."""

    def change(call: Call, answer: Answer) -> bool:
        start, end = call.byte_range
        answer.body += bytes(1000)
        answer.set_header("Content-Range", f"bytes {start}-{end + 999}/{end + 100_000}")
        return True

    return Fault("a longer range", change=change)


def wrong_range() -> Fault:
    """The right bytes under the name of others."""

    def change(call: Call, answer: Answer) -> bool:
        start, end = call.byte_range
        answer.set_header("Content-Range", f"bytes {start + 1}-{end}/{end + 100_000}")
        return True

    return Fault("a wrong Content-Range", change=change)


def swapped() -> Fault:
    """Other bytes of the xorb, as many, under the name of those that were asked for."""

    def change(call: Call, answer: Answer) -> bool:
        size = len(answer.body)
        whole = call.double.peek(call.name, 0, 1 << 40)
        start, end = call.byte_range
        other = whole[end : end + size] or whole[:start][:size]
        answer.body = (other + answer.body)[:size] if other else answer.body[::-1]
        return True

    return Fault("another range of the same length", change=change)


def whole() -> Fault:
    """200 and the whole xorb."""

    def instead(call: Call) -> Answer:
        return Answer(200, [], call.double.peek(call.name, 0, 1 << 40))

    return Fault("200 with the whole xorb", instead=instead)


def redirect_loop() -> Fault:
    return Fault("a redirect to itself", instead=lambda call: Answer(302, [("Location", call.target)]))


def redirect(to: str) -> Fault:
    """To the same path and query somewhere else."""
    return Fault("a redirect elsewhere", instead=lambda call: Answer(302, [("Location", to + call.target)]))
