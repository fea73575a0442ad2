"""A server that lies about sizes: of any file it says that it goes on and on, and it makes all of it from one chunk."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.support.scripted import Scripted, Seen, Step, head, raw, reply
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import FetchRange, Reconstruction, Term
from xetstore.testing.samples import make_sample, random_bytes

CHUNKS = 1000
"""So many times is the xorb named in an answer; its raw bytes are 64 KiB or so."""

SAMPLE = make_sample(random_bytes(100_000, 1))


def liar(change: Callable[[Seen, Reconstruction], Reconstruction] = lambda _, told: told) -> Scripted:
    """The server. ``change`` changes what it says of a file."""
    count, size = len(SAMPLE.xorb.chunks), SAMPLE.xorb.chunks.total_bytes
    xorb = SAMPLE.xorb.hash
    server: Scripted

    def answer(seen: Seen) -> Step:
        if "/reconstructions/" in seen.path:
            first, last = re.findall(r"\d+", seen.headers.get("range", "bytes=0-99999999"))[:2]
            # As many as are asked for.
            terms = (Term(xorb, 0, count, size),) * (-(-(int(last) + 1 - int(first)) // size))
            fetch = FetchRange(xorb, f"{server.url}/xorb", 0, count, 0, len(SAMPLE.body))
            return reply(200, change(seen, Reconstruction(0, terms, {xorb: (fetch,)})).to_v2_json())
        if seen.path == "/xorb":
            span = f"bytes 0-{len(SAMPLE.body) - 1}/{len(SAMPLE.body)}"
            told = {"Content-Range": span, "Content-Length": str(len(SAMPLE.body))}
            return raw(head(206, told), bytes(SAMPLE.body), then="keep")
        return reply(404)

    server = Scripted(answer)
    return server


def file_name() -> Hash:
    """A file that is nothing of what the server makes."""
    return Hash.parse("1" * 64)
