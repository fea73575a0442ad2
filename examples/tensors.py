"""Load single tensors of a stored model, and list all of them without reading it.

Shows: `Store.tensors`, which reads the header of a safetensors file, and of a tensor its range only. The model is
written by hand, so that this needs no package; numpy is used where it is installed.
"""

import importlib.util
import json
import struct
import tempfile
from pathlib import Path

import xetstore

ROWS, COLUMNS = 10_000, 64


def write_model(path: Path) -> None:
    """A safetensors file: the length of its header, the header, the bytes of the tensors."""
    embeddings = b"".join(struct.pack(f"<{COLUMNS}f", *[row / 10] * COLUMNS) for row in range(ROWS))
    bias = struct.pack("<4f", 1, 2, 3, 4)
    end = len(embeddings)
    header = {
        "__metadata__": {"step": "1000"},
        "embeddings.weight": {"dtype": "F32", "shape": [ROWS, COLUMNS], "data_offsets": [0, end]},
        "head.bias": {"dtype": "F32", "shape": [4], "data_offsets": [end, end + len(bias)]},
    }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + embeddings + bias)


with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    write_model(folder / "model.safetensors")

    with xetstore.open(folder / "store") as store:
        store.create_repo("alice/bert").commit({"model.safetensors": folder / "model.safetensors"})
        tensors = store.tensors("xet://alice/bert@main/model.safetensors")
        print("metadata:", dict(tensors.metadata))
        for name, tensor in tensors.items():
            print(f"{name}: {tensor.dtype} {tensor.shape}, {tensor.nbytes:,} bytes")

        # The bytes as they are stored: no package is needed for them.
        print("head.bias:", struct.unpack("<4f", tensors["head.bias"].read()))
        if importlib.util.find_spec("numpy") is not None:
            rows = tensors["embeddings.weight"][100:103]  # only these rows are read
            print("rows:", rows.shape, "first of each:", rows[:, 0].tolist())
