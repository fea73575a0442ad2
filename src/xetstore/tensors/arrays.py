"""Bytes as arrays of numpy or tensors of torch, each imported when it is first asked for."""

from __future__ import annotations

from typing import Any, Final

from xetstore.errors import UsageError
from xetstore.tensors.dtypes import DType

FRAMEWORKS: Final = ("numpy", "torch")


def shaped(data: bytearray, dtype: DType, shape: tuple[int, ...], framework: str, *, raw: bool) -> Any:
    """An array over ``data``, which it may change. With ``raw`` its elements are unsigned numbers of the same bytes.

    What is packed or quantized then has its bytes as the last axis.
    """
    if framework not in FRAMEWORKS:
        raise UsageError(f"{framework[:80]!r} is no framework", hint=f"there are {' and '.join(map(repr, FRAMEWORKS))}")
    kind = dtype
    if raw:
        kind, shape = _as_numbers(dtype, shape)
    return _numpy(data, kind, shape) if framework == "numpy" else _torch(data, kind, shape)


def _as_numbers(dtype: DType, shape: tuple[int, ...]) -> tuple[DType, tuple[int, ...]]:
    size = dtype.block_bytes
    if dtype.block == 1:
        return DType(f"U{8 * size}", 1, size, f"<u{size}", f"uint{8 * size}"), shape
    nbytes = dtype.nbytes(shape[-1])
    if nbytes is None:
        raise UsageError(f"its rows are not whole bytes of {dtype.name}", hint="read() gives all of its bytes")
    return DType("U8", 1, 1, "u1", "uint8"), (*shape[:-1], nbytes)


def _numpy(data: bytearray, dtype: DType, shape: tuple[int, ...]) -> Any:
    try:
        import numpy
    except ImportError:
        raise UsageError("numpy is not installed", hint="pip install numpy; read() gives the bytes") from None
    return numpy.frombuffer(data, _numpy_type(numpy, dtype)).reshape(shape)


def _numpy_type(numpy: Any, dtype: DType) -> Any:
    name = dtype.numpy
    if name is None:
        raise _no_such(dtype, "numpy")
    _, dot, attribute = name.rpartition("ml_dtypes.")
    if not dot:
        return numpy.dtype(name)
    try:
        import ml_dtypes

        return numpy.dtype(getattr(ml_dtypes, attribute))
    except (ImportError, AttributeError):
        raise UsageError(
            f"numpy alone has no {dtype.name}",
            hint='pip install ml_dtypes, or load(raw=True) for unsigned numbers, or load(framework="torch")',
        ) from None


def _torch(data: bytearray, dtype: DType, shape: tuple[int, ...]) -> Any:
    try:
        import torch
    except ImportError:
        raise UsageError("torch is not installed", hint="pip install torch; load() gives an array of numpy") from None
    if dtype.torch is None:
        raise _no_such(dtype, "torch")
    kind = getattr(torch, dtype.torch, None)
    if kind is None:
        raise UsageError(f"this torch has no {dtype.torch}", hint="a newer torch, or load(raw=True)")
    if not data:
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(data, dtype=kind).reshape(shape)


def _no_such(dtype: DType, framework: str) -> UsageError:
    return UsageError(
        f"{framework} has no {dtype.name}, which is packed or quantized",
        hint="load(raw=True) gives its bytes as an array, read() as bytes",
    )
