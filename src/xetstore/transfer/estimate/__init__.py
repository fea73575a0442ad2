"""Estimates of the saving of storing files, before any of it is stored."""

from typing import Final

CELLS: Final = 100
"""The cells of which the picture of a file consists, unless it is said."""
