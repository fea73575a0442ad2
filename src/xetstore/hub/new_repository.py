"""The files of a new repository: which paths are large files, and of a space its card."""

from __future__ import annotations

from collections.abc import Mapping

from xetstore.hub.attributes import FILE as ATTRIBUTES
from xetstore.hub.attributes import LARGE
from xetstore.hub.names import Kind, RepositoryName

_MODELS = (
    *("*.7z", "*.arrow", "*.avro", "*.bin", "*.bz2", "*.ckpt", "*.ftz", "*.gguf", "*.gz", "*.h5", "*.joblib"),
    *("*.lfs.*", "*.lz4", "*.mds", "*.mlmodel", "*.model", "*.msgpack", "*.npy", "*.npz", "*.onnx", "*.ot"),
    *("*.parquet", "*.pb", "*.pickle", "*.pkl", "*.pt", "*.pth", "*.rar", "*.safetensors", "saved_model/**/*"),
    *("*.tar.*", "*.tar", "*.tflite", "*.tgz", "*.wasm", "*.xz", "*.zip", "*.zst", "*tfevents*"),
)
_DATASETS = (
    *("*.pcm", "*.sam", "*.raw", "*.aac", "*.flac", "*.mp3", "*.ogg", "*.wav"),
    *("*.bmp", "*.gif", "*.png", "*.tiff", "*.jpg", "*.jpeg", "*.webp", "*.mp4", "*.webm"),
)


def first_files(name: RepositoryName, sdk: str | None) -> Mapping[str, bytes]:
    """The paths and contents of the first commit."""
    patterns = (*_MODELS, *_DATASETS) if name.kind is Kind.DATASETS else _MODELS
    files = {ATTRIBUTES: "".join(f"{pattern} {LARGE}\n" for pattern in patterns).encode()}
    if name.kind is Kind.SPACES:
        files["README.md"] = f"---\ntitle: {name.name}\nsdk: {sdk or 'static'}\n---\n".encode()
    return files
