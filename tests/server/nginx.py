"""nginx, where it is installed, in front of a server of a test."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.live import PATIENCE_SECONDS

NGINX = shutil.which("nginx")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt-get install nginx")


def main_file(folder: Path, http: str) -> Path:
    """A whole configuration with these lines in its ``http`` block, and all that nginx writes in ``folder``."""
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # As the superuser, nginx would have another user read the store.
    user = "user root;\n" if Path("/proc/self").stat().st_uid == 0 else ""
    path = folder / "nginx.conf"
    path.write_text(f"{user}daemon off;\npid {folder}/pid;\nevents {{}}\nhttp {{\n{temporary}{http}\n}}\n")
    return path


@contextmanager
def running(folder: Path, config: Path, port: int) -> Iterator[None]:
    """nginx with this configuration, once it listens on ``port``."""
    assert NGINX is not None
    command = [NGINX, "-e", str(folder / "start.log"), "-p", str(folder), "-c", str(config)]
    subprocess.run([*command, "-t", "-q"], check=True)
    with subprocess.Popen(command) as process:
        try:
            _wait_for(port, process)
            yield
        finally:
            process.terminate()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until it listens; the test's own timeout ends it otherwise."""
    while True:
        assert process.poll() is None
        try:
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS).close()
        except ConnectionRefusedError:
            threading.Event().wait(0.02)
        else:
            return
