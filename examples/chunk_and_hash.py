"""Use the protocol as a library: cut bytes into chunks, hash them, and pack them into a xorb.

Shows: `xetstore.protocol`, which is pure (no file, no network). A chunk hash is BLAKE3 with a key. The name of a xorb
is the merkle root over its chunks, and the hash of a file is that root, keyed once more.
"""

import random

from xetstore.protocol import XorbBuilder, XorbVerifier, chunk_bytes, file_hash

content = random.Random(4).randbytes(1_000_000)
chunks = chunk_bytes(content)
print(f"{len(chunks)} chunks of {min(chunks.sizes):,} to {max(chunks.sizes):,} bytes")
root = chunks.root
print(f"hash of the file: {file_hash(root)}")

# A byte in front moves everything; the cuts follow the content, so nearly all chunks stay what they are.
moved = chunk_bytes(b"!" + content)
known = {chunks.digest(index) for index in range(len(chunks))}
shared = sum(moved.digest(index) in known for index in range(len(moved)))
print(f"with a byte in front: {shared} of {len(moved)} chunks are the same")

builder = XorbBuilder()
builder.append([content], chunks)
xorb, body = builder.finish()
print(f"xorb {xorb.hash}: {len(body):,} bytes")

verifier = XorbVerifier()  # as a server does: every chunk is decoded and hashed
verifier.update(body)
assert verifier.finish().hash == xorb.hash == root
print("the xorb is what its name says")
