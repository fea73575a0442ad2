"""Sockets: waiting for some of them, and what they have not sent."""

from __future__ import annotations

import select
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeAlias

if sys.platform == "linux":
    import fcntl
    import termios

Waited: TypeAlias = "socket.socket | int"
"""A socket, or its file number."""


def ready(read: Sequence[Waited], write: Sequence[Waited], timeout: float) -> set[int]:
    """Wait until one of the sockets can be read or written, or has failed: the file numbers of those."""
    reading, writing = [_number(sock) for sock in read], [_number(sock) for sock in write]
    if sys.platform == "win32":
        readable, writable, failed = select.select(reading, writing, writing, max(timeout, 0))
        return {*readable, *writable, *failed}
    poll = select.poll()
    for number in reading:
        poll.register(number, select.POLLIN)
    for number in writing:
        poll.register(number, select.POLLOUT | (select.POLLIN if number in reading else 0))
    return {number for number, _ in poll.poll(max(timeout, 0) * 1000)}


def unsent_bytes(sock: socket.socket | None) -> int:
    """The bytes written to a socket that the other side has not acknowledged; 0 where that is not known."""
    if sys.platform == "linux" and isinstance(sock, socket.socket):
        with suppress(OSError, ValueError):
            (count,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
            return int(count)
    return 0


def _number(sock: Waited) -> int:
    return sock if isinstance(sock, int) else sock.fileno()
