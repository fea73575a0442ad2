""".gitattributes: which files of a repository are large files, by their path and size."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from xetstore.hub.patterns import compile_pattern

FILE: Final = ".gitattributes"
MAX_REGULAR_BYTES: Final = 10 << 20
"""Longer files are large ones, whatever their path: git would keep each version of them whole."""
MAX_LINES: Final = 2000
"""Lines behind these do not count."""

_SUFFIXES: Final = (
    ("7z", "arrow", "bin", "bz2", "ckpt", "ftz", "gguf", "gz", "h5", "joblib", "lz4", "mds", "mlmodel", "model")
    + ("msgpack", "npy", "npz", "onnx", "ot", "parquet", "pb", "pickle", "pkl", "pt", "pth", "rar", "safetensors")
    + ("tar", "tflite", "tgz", "wasm", "xz", "zip", "zst")
)
_MEDIA: Final = (
    "avi",
    "bmp",
    "flac",
    "gif",
    "jpeg",
    "jpg",
    "m4a",
    "mkv",
    "mov",
    "mp3",
    "mp4",
    "ogg",
    "opus",
    "pcm",
    "pdf",
    "png",
) + ("raw", "tiff", "wav", "webm", "webp")
_LFS: Final = "filter=lfs diff=lfs merge=lfs -text"

DEFAULT_TEXT: Final = "".join(
    f"{pattern} {_LFS}\n"
    for pattern in (*(f"*.{suffix}" for suffix in sorted(_SUFFIXES)), "*.tar.*", "saved_model/**/*", "*tfevents*")
)
"""The file of a new repository."""

DATASET_TEXT: Final = DEFAULT_TEXT + "".join(f"*.{suffix} {_LFS}\n" for suffix in sorted(_MEDIA))
"""The file of a new dataset: pictures, sound and films are large files there."""

_ATTRIBUTE: Final = re.compile(r"[-!]?[A-Za-z0-9_.][A-Za-z0-9_.-]*(=.*)?")
_LINE: Final = re.compile(r'[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^ \t]+))[ \t]+(.*)')


@dataclass(frozen=True, slots=True)
class Attributes:
    """The rules of one .gitattributes: patterns in the order of the file, each with True where it makes a large file.

    >>> rules = Attributes.parse("*.png filter=lfs\\nsmall.png -filter")
    >>> rules.is_large("a/b.png"), rules.is_large("small.png"), rules.is_large("b.bin")
    (True, False, False)
    """

    rules: tuple[tuple[re.Pattern[str], bool], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a file. Lines that say nothing of LFS, or nothing at all, do not count."""
        rules = []
        for line in text.split("\n", MAX_LINES)[:MAX_LINES]:
            found = _LINE.fullmatch(line.rstrip("\r \t"))
            if found is None or line.lstrip(" \t").startswith(("#", "[attr]", "!")):
                continue
            pattern = found[2] if found[1] is None else re.sub(r"\\(.)", r"\1", found[1])
            attributes = found[3].split()
            if not all(_ATTRIBUTE.fullmatch(attribute) for attribute in attributes):
                continue  # git takes no part of such a line
            for attribute in attributes:
                name, _, value = attribute.partition("=")
                if name.lstrip("-!") == "filter" and not pattern.endswith("/"):
                    rules.append((compile_pattern(pattern), name == "filter" and value == "lfs"))
        return cls(tuple(rules))

    def names_large(self, path: str) -> bool:
        """True if the path alone makes it a large file: the last pattern that matches says so."""
        for pattern, is_large in reversed(self.rules):
            if pattern.match(path):
                return is_large
        return False

    def is_large(self, path: str, size: int = 1) -> bool:
        """True if a file of ``size`` bytes is a large one. An empty one never is, because clients say so themselves."""
        return size > 0 and (size > MAX_REGULAR_BYTES or self.names_large(path))


@lru_cache(256)
def attributes_of(text: str) -> Attributes:
    """The rules of a text, which is read once."""
    return Attributes.parse(text)
