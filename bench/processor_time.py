"""Where the processor time of our client goes: its stages wrapped, each charged with what its own thread used in it.

Exact where the kernel works in the calling thread, that is on one core: see bench.worker.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

from xetstore import _kernel
from xetstore.protocol.dedup import DedupPlanner, QueryRule
from xetstore.remote.http import HttpCas
from xetstore.remote.transport import Answer

READ, SHA256, CUT, PLAN, ENCODE, SEND = "read", "SHA-256", "cut and hash", "plan", "encode", "send"
ASK, RECEIVE, DECODE, WRITE, REGISTER = "ask", "receive", "decode and hash", "write", "register"

STAGES: Final[tuple[tuple[str, Any, str], ...]] = (
    (READ, os, "readv"),
    (CUT, _kernel, "find_chunks"),
    (PLAN, DedupPlanner, "plan"),
    (PLAN, QueryRule, "selected"),
    (PLAN, DedupPlanner, "learn"),
    (ENCODE, _kernel, "encode_chunks"),
    (SEND, HttpCas, "put_xorb"),
    (REGISTER, HttpCas, "put_shard"),
    (ASK, HttpCas, "find_chunks"),
    (ASK, HttpCas, "reconstruct"),
    (RECEIVE, Answer, "take"),
    (DECODE, _kernel, "decode_chunks"),
    (WRITE, os, "pwrite"),
    (WRITE, os, "pwritev"),
)


class Profile:
    """Seconds of processor time by stage; what one stage spends inside another counts for the inner one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._local = threading.local()

    @classmethod
    def installed(cls) -> Profile:
        """A profile of this process from now on."""
        profile = cls()
        for stage, owner, name in STAGES:
            setattr(owner, name, profile.timed(stage, getattr(owner, name)))
        sha256 = hashlib.sha256

        class TimedSha256:
            def __init__(self, data: bytes = b"") -> None:
                self._digest = sha256(data)
                self.update = profile.timed(SHA256, self._digest.update)
                self.digest = self._digest.digest
                self.hexdigest = self._digest.hexdigest

        hashlib.sha256 = TimedSha256  # type: ignore[assignment]  # it does what is asked of it here
        return profile

    def timed(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """``work``, charged to a stage."""

        def timed(*args: Any, **named: Any) -> Any:
            inner: list[float] = self._local.__dict__.setdefault("inner", [])
            inner.append(0.0)
            start = time.thread_time()
            try:
                return work(*args, **named)
            finally:
                spent = time.thread_time() - start
                own = spent - inner.pop()
                if inner:
                    inner[-1] += spent
                with self._lock:
                    self.seconds[stage] += own

        return timed
