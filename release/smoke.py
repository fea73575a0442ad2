"""Put, get and serve with the package that is installed. A program of its own: it imports nothing of the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path


def main(folder: Path) -> None:
    """Use the library, the command, and a server between the two."""
    import xetstore

    place = Path(xetstore.__file__)
    assert Path(sys.prefix) in place.parents, f"{place} is not what was installed"
    folder.mkdir()
    data = os.urandom(5 << 20)
    (folder / "file").write_bytes(data)
    with xetstore.open(folder / "store") as store:
        info = store.put(folder / "file")
        store.get(info.hash, folder / "copy")
    assert (folder / "copy").read_bytes() == data
    command = shutil.which("xet", path=str(Path(sys.executable).parent))
    assert command, "the command xet is not there"
    told = subprocess.run([command, "--version"], check=True, capture_output=True, text=True, timeout=60).stdout
    assert told.split() == ["xet", xetstore.__version__], told
    read = subprocess.run(
        [command, "--store", str(folder / "store"), "cat", str(info.hash)], check=True, capture_output=True, timeout=60
    )
    assert read.stdout == data
    if sys.platform != "win32":
        _serve(command, folder, str(info.hash), data)
    print(f"xetstore {xetstore.__version__} puts, gets and serves")


def _serve(command: str, folder: Path, name: str, data: bytes) -> None:
    import xetstore

    words = [command, "serve", str(folder / "store"), "--port", "0", "--workers", "1"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert server.stdout
        url = None
        for line in server.stdout:
            if found := re.search(r"http://127\.0\.0\.1:[0-9]+", line):
                url = found.group()
                break
        assert url, "the server did not start"
        issued = subprocess.run(
            [command, "--store", str(folder / "store"), "token", "issue", "--scope", "read"],
            check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        with xetstore.open(url, token=issued.stdout.split()[-1]) as store:
            store.get(name, folder / "far")
        assert (folder / "far").read_bytes() == data
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
