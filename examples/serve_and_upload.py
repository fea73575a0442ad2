"""Run a server, upload to it with the Hugging Face client, and download with ours.

Shows: `xet serve` and `xet token` (`pip install 'xetstore[server]'`), `hf_xet` with our server as its endpoint, and
`xetstore.open` with a URL. Where `hf_xet` is not installed, our own client uploads.
"""

import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import xetstore

XET = [sys.executable, "-m", "xetstore"]

with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    store, source, copy = folder / "store", folder / "model.bin", folder / "copy.bin"
    source.write_bytes(random.Random(3).randbytes(2_000_000))
    # The client of Hugging Face remembers what it has uploaded: here, for this server only.
    os.environ["HF_HOME"] = os.environ["HF_XET_CACHE"] = str(folder / "hf")

    # --port 0 takes any free port; the first line of stdout has the URL.
    server = subprocess.Popen(
        [*XET, "serve", str(store), "--port", "0", "--json", "--log-level", "error"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        issue = [*XET, "token", "issue", "--store", str(store), "--scope", "write", "--ttl", "10m"]
        token = subprocess.run(issue, capture_output=True, text=True, check=True).stdout.strip()

        if importlib.util.find_spec("hf_xet") is not None:
            import hf_xet

            expires_at = int(time.time()) + 600
            commit = hf_xet.XetSession().new_upload_commit(endpoint=url, token=token, token_expiry_unix_secs=expires_at)
            upload = commit.start_upload_file(str(source))
            commit.wait_to_finish()
            file, client = upload.result().xet_info.hash, "hf_xet"
        else:
            with xetstore.open(url, token=token) as remote:
                file, client = str(remote.put(source).hash), "xetstore"
        print(f"uploaded by {client}: {file[:16]}")

        with xetstore.open(url, token=token, cache=False) as remote:
            report = remote.get(file, copy)
        assert copy.read_bytes() == source.read_bytes()
        print(f"downloaded by xetstore: {report.size:,} bytes, verified: {report.verified}")
    finally:
        server.terminate()
        server.communicate(timeout=60)
