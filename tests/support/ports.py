"""Ports for servers of tests, which have the same one again after a restart."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

PORTS = range(10_000, 30_000)
"""Ports that no system gives to connections of its own."""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on, none of them one that the system may give away meanwhile."""
    ports: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports.append(port)
        if len(ports) == count:
            return ports
    raise OSError("no free ports")


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]
