"""Worker: runs calls of ``worker.py`` in other processes and tells how they ended."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]


@dataclass
class Ended:
    """How a call ended: its exit code (the negative number of the signal that killed it) and what it told before."""

    code: int = -1
    cpu_seconds: float = 0.0
    told: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    message: str = ""

    @property
    def was_killed(self) -> bool:
        """True if ``kill_after`` ended it."""
        return self.code == -signal.SIGPROF


class WorkerFailedError(Exception):
    """The worker itself could not start, or broke off."""


class Worker:
    """A worker process, started behind the command ``prefix`` and with ``options`` of Popen. A context manager.

    It runs ``worker.py``, or another ``module`` of these tests, which knows more calls.
    """

    def __init__(self, prefix: Sequence[str] = (), *, module: str = "tests.faults.worker", **options: Any) -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **{"cwd": ROOT, **options},
        )
        try:
            self._read("ready")
        except WorkerFailedError:
            self.close()
            raise

    def run_all(self, *calls: dict[str, Any]) -> list[Ended]:
        """Calls at the same time, each in a process of its own, from beginning to end."""
        assert self._process.stdin is not None
        self._calls = [Ended() for _ in calls]
        self._process.stdin.write(json.dumps(calls) + "\n")
        self._process.stdin.flush()
        for ended, (code, cpu_seconds) in zip(self._calls, self._read("ended"), strict=True):
            ended.code, ended.cpu_seconds = code, cpu_seconds
        return self._calls

    def run(self, call: str, **arguments: Any) -> Ended:
        """One call."""
        return self.run_all({"call": call, **arguments})[0]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()  # closes its pipes too

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, wanted: str) -> Any:
        """What the worker says under the name ``wanted``; meanwhile what calls tell is noted."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if wanted in said:
                return said[wanted]
            if "call" in said:
                ended = self._calls[said["call"]]
                ended.told += [said["told"]] if "told" in said else []
                ended.error = said.get("error", ended.error)
                ended.message = said.get("message", ended.message)
        raise WorkerFailedError("the worker ended; what it said on stderr was captured")


def moments(worker: Worker, count: int, *calls: dict[str, Any]) -> list[float]:
    """Values of ``kill_after`` for calls that take as long as these, which are run to their end.

    One at random in each of ``count`` equal parts, in random order: so each phase is met that is longer than a part.
    """
    took = []
    for call in calls:
        ended = worker.run(**call)
        assert ended.code == 0, ended
        took.append(ended.cpu_seconds)
    chance = random.Random(count)
    found = [max(took) * (part + chance.random()) / count for part in range(count)]
    chance.shuffle(found)
    return found
