"""Tensors of stored files: the headers of safetensors and GGUF, and one tensor by reading its range only."""

from xetstore.tensors.opening import open_tensors
from xetstore.tensors.tensors import Tensor, Tensors

__all__ = ["Tensor", "Tensors", "open_tensors"]
