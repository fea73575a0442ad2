"""Which Hub is meant, and with which token, as the environment of real clients says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from xetstore.errors import UsageError, kind_of
from xetstore.platform.homes import expanded
from xetstore.remote.network import origin_of
from xetstore.remote.tokens import Secret

DEFAULT_ENDPOINT: Final = "https://huggingface.co"

_YES: Final = ("1", "ON", "YES", "TRUE")


def hub_endpoint(environment: Mapping[str, str] = os.environ) -> str:
    """HF_ENDPOINT, else the public Hub."""
    return environment.get("HF_ENDPOINT", "").strip() or DEFAULT_ENDPOINT


def checked_endpoint(url: str) -> str:
    """A Hub's URL, without the slash at its end. Raises UsageError."""
    origin_of(url)
    if not url.isascii() or not url.isprintable() or set(url) & set("?# "):
        raise UsageError("the URL of the Hub has more than a path in it", hint=f"for example {DEFAULT_ENDPOINT}")
    return url.rstrip("/")


def hub_token(environment: Mapping[str, str] = os.environ) -> Secret | None:
    """HF_TOKEN, HUGGING_FACE_HUB_TOKEN, or the file that ``hf auth login`` writes; None without, or where
    HF_HUB_DISABLE_IMPLICIT_TOKEN says so. Raises UsageError for a token that cannot be one, and AccessDeniedError.
    """
    if environment.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in _YES:
        return None
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if text := environment.get(name, "").strip():
            return Secret(text)
    path = _token_path(environment)
    if path is None:
        return None
    try:
        text = path.read_text("ascii", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise kind_of(error)(
            f"the Hub's token file {path} cannot be read: {error.strerror or type(error).__name__}",
            hint="HF_HUB_DISABLE_IMPLICIT_TOKEN=1 goes without a token",
        ) from None
    return Secret(text) if text else None


def _token_path(environment: Mapping[str, str]) -> Path | None:
    """None for a user who has no home to keep it in."""
    for name in ("HF_TOKEN_PATH", "HF_HOME"):
        if named := environment.get(name):
            path = expanded(os.path.expandvars(named), name)
            return path if name == "HF_TOKEN_PATH" else path / "token"
    cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return expanded(os.path.expandvars(cache), "XDG_CACHE_HOME") / "huggingface" / "token"
    except UsageError:
        return None
