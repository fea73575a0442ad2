"""Running ``xet`` in tests: in this process, which is quick, or as a real one, which has exit codes and signals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from xetstore.cli.main import cli

COMMAND = (sys.executable, "-m", "xetstore")


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    data: bytes
    stderr: str

    @property
    def stdout(self) -> str:
        return self.data.decode()

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stderr.splitlines()]


class Xet:
    """The command, with XET_STORE set to a store in ``store``, or to ``url``, and a cache beside the store."""

    def __init__(self, store: Path, url: str | None = None, **environment: str) -> None:
        self.store = store
        self.variables = {
            "XET_STORE": url or str(store),
            "XET_CACHE": str(store.parent / "cache"),
            "XDG_CONFIG_HOME": str(store.parent / "config"),
            **environment,
        }

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.variables}

    def __call__(self, *args: object, stdin: str = "") -> Ran:
        result = CliRunner().invoke(cli, [str(arg) for arg in args], input=stdin, env=self.variables)
        return Ran(result.exit_code, result.stdout_bytes, result.stderr)

    def process(self, *args: object, **options: Any) -> Ran:
        done = subprocess.run(
            [*COMMAND, *(str(arg) for arg in args)],
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": self.environment, **options},
            timeout=60,
            check=False,
        )
        return Ran(done.returncode, done.stdout or b"", (done.stderr or b"").decode())

    def put(self, file: Path) -> str:
        """Store a file; its hash."""
        [record] = self("--json", "put", file).records
        return str(record["hash"])

    def xorbs(self) -> list[Path]:
        """The stored xorbs."""
        return sorted(path for path in (self.store / "xorbs").rglob("*") if path.is_file())


def flip_byte(path: Path, offset: int) -> None:
    """Change one byte of a file, read-only or not."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
