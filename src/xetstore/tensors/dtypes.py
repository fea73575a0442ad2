"""The types of tensors: the bytes of each, and its name in numpy and torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class DType:
    """A type of elements. ``block`` of them take ``block_bytes`` bytes, and are never stored apart.

    ``numpy`` is a name for `numpy.dtype`, with its byte order, or a type of ml_dtypes; ``torch`` an attribute of torch.
    Both are None where there is no such type: of what is quantized, or packed into parts of bytes.
    """

    name: str
    block: int
    block_bytes: int
    numpy: str | None = None
    torch: str | None = None

    def nbytes(self, elements: int) -> int | None:
        """Bytes of this many elements; None where these are not whole blocks."""
        blocks, rest = divmod(elements, self.block)
        return None if rest else blocks * self.block_bytes


def _plain(name: str, size: int, numpy: str, torch: str) -> DType:
    return DType(name, 1, size, numpy, torch)


SAFETENSORS: Final = {
    dtype.name: dtype
    for dtype in (
        _plain("BOOL", 1, "?", "bool"),
        _plain("U8", 1, "u1", "uint8"),
        _plain("I8", 1, "i1", "int8"),
        _plain("U16", 2, "<u2", "uint16"),
        _plain("I16", 2, "<i2", "int16"),
        _plain("U32", 4, "<u4", "uint32"),
        _plain("I32", 4, "<i4", "int32"),
        _plain("U64", 8, "<u8", "uint64"),
        _plain("I64", 8, "<i8", "int64"),
        _plain("F16", 2, "<f2", "float16"),
        _plain("F32", 4, "<f4", "float32"),
        _plain("F64", 8, "<f8", "float64"),
        _plain("C64", 8, "<c8", "complex64"),
        _plain("BF16", 2, "ml_dtypes.bfloat16", "bfloat16"),
        _plain("F8_E5M2", 1, "ml_dtypes.float8_e5m2", "float8_e5m2"),
        _plain("F8_E4M3", 1, "ml_dtypes.float8_e4m3fn", "float8_e4m3fn"),
        _plain("F8_E8M0", 1, "ml_dtypes.float8_e8m0fnu", "float8_e8m0fnu"),
        _plain("F8_E5M2FNUZ", 1, "ml_dtypes.float8_e5m2fnuz", "float8_e5m2fnuz"),
        _plain("F8_E4M3FNUZ", 1, "ml_dtypes.float8_e4m3fnuz", "float8_e4m3fnuz"),
        DType("F4", 2, 1),
        DType("F6_E2M3", 4, 3),
        DType("F6_E3M2", 4, 3),
    )
}
"""The types of safetensors, by their names there."""

GGML: Final = {
    0: SAFETENSORS["F32"],
    1: SAFETENSORS["F16"],
    2: DType("Q4_0", 32, 18),
    3: DType("Q4_1", 32, 20),
    6: DType("Q5_0", 32, 22),
    7: DType("Q5_1", 32, 24),
    8: DType("Q8_0", 32, 34),
    9: DType("Q8_1", 32, 36),
    10: DType("Q2_K", 256, 84),
    11: DType("Q3_K", 256, 110),
    12: DType("Q4_K", 256, 144),
    13: DType("Q5_K", 256, 176),
    14: DType("Q6_K", 256, 210),
    15: DType("Q8_K", 256, 292),
    16: DType("IQ2_XXS", 256, 66),
    17: DType("IQ2_XS", 256, 74),
    18: DType("IQ3_XXS", 256, 98),
    19: DType("IQ1_S", 256, 50),
    20: DType("IQ4_NL", 32, 18),
    21: DType("IQ3_S", 256, 110),
    22: DType("IQ2_S", 256, 82),
    23: DType("IQ4_XS", 256, 136),
    24: SAFETENSORS["I8"],
    25: SAFETENSORS["I16"],
    26: SAFETENSORS["I32"],
    27: SAFETENSORS["I64"],
    28: SAFETENSORS["F64"],
    29: DType("IQ1_M", 256, 56),
    30: SAFETENSORS["BF16"],
    34: DType("TQ1_0", 256, 54),
    35: DType("TQ2_0", 256, 66),
    39: DType("MXFP4", 32, 17),
}
"""The types of GGUF, by their numbers."""
