"""The version of the package. It is that of ``kernel/Cargo.toml``, from which an installed package has its own."""

from __future__ import annotations

from typing import Final

__version__: Final = "0.1.0"
