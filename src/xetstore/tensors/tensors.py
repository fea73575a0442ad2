"""Tensors: the tensors of a file, or of a model in several, by name; each is loaded by reading its range only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from numbers import Integral
from operator import index
from typing import Any

from xetstore.errors import UsageError, WrongTypeError
from xetstore.tensors.arrays import shaped
from xetstore.tensors.file import Home, TensorFile
from xetstore.tensors.header import Entry, shown


class Tensor:
    """A tensor in a stored file. Nothing of its bytes is read before :meth:`load` or :meth:`read`, or an index.

    ``dtype`` is the name of its type in the file, such as ``BF16`` or ``Q4_K``; ``shape`` is as numpy has it, also
    of GGUF, where files have it the other way round. Its ``nbytes`` bytes begin at ``start`` in the file.

    An index reads the range of the first axis alone: ``tensor[10:20]``, ``tensor[3, :, 0]``.
    """

    def __init__(self, home: Home, file: TensorFile, entry: Entry) -> None:
        self._home = home
        self._file = file
        self._entry = entry
        self.name = entry.name
        self.dtype = entry.dtype.name
        self.shape = entry.shape
        self.start = entry.start
        self.nbytes = entry.end - entry.start

    @property
    def file(self) -> str:
        """The name of its file, or the hash."""
        return self._file.name

    def load(self, start: int = 0, end: int | None = None, *, framework: str = "numpy", raw: bool = False) -> Any:
        """The tensor, or ``[start, end)`` of its first axis, as an array of numpy, or a tensor of ``"torch"``.

        It is the caller's own, and every byte was verified. Types that numpy does not have are those of ml_dtypes where
        that is installed. With ``raw`` the elements are unsigned numbers of the same bytes; what is quantized, or
        packed into parts of bytes, has its bytes as the last axis. UsageError where there is no such type, or where
        numpy or torch is not installed.
        """
        rows = self._rows(start, end)
        shape = self.shape if rows is None else (rows[1] - rows[0], *self.shape[1:])
        return shaped(self._read(rows), self._entry.dtype, shape, framework, raw=raw)

    def read(self, start: int = 0, end: int | None = None) -> bytes:
        """Its bytes as they are stored, or those of ``[start, end)`` of its first axis."""
        return bytes(self._read(self._rows(start, end)))

    def within(self, home: Home) -> Tensor:
        """The same tensor, read from another view of the store."""
        return Tensor(home, self._file, self._entry)

    def __getitem__(self, place: Any) -> Any:
        first, *rest = place if isinstance(place, tuple) and place else (place,)
        if self.shape and isinstance(first, slice):
            start, end, step = first.indices(self.shape[0])
            if step > 0:
                return self.load(start, max(start, end))[(slice(None, None, step), *rest)]
        elif self.shape and isinstance(first, Integral) and not isinstance(first, bool):
            at = int(first) + (self.shape[0] if first < 0 else 0)
            if not 0 <= at < self.shape[0]:
                raise IndexError(f"index {first} is not in the first axis of {self.shape}")
            return self.load(at, at + 1)[(0, *rest)]
        return self.load()[place]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if copy is False:
            raise ValueError("a stored tensor is always read anew")
        array = self.load()
        return array if dtype is None else array.astype(dtype)

    def __repr__(self) -> str:
        return f"Tensor({shown(self.name)}, {self.dtype}, {self.shape})"

    def _rows(self, start: int, end: int | None) -> tuple[int, int] | None:
        """The part of the first axis that is asked for; None for all."""
        if not self.shape:
            if (start, end) != (0, None):
                raise UsageError(f"{shown(self.name)} has no axis to take a part of")
            return None
        start, stop = _row(start), self.shape[0] if end is None else _row(end)
        if not 0 <= start <= stop <= self.shape[0]:
            raise UsageError(f"{start} to {stop} is no part of the first axis of {self.shape}")
        return start, stop

    def _read(self, rows: tuple[int, int] | None) -> bytearray:
        if rows is None or rows == (0, self.shape[0]):
            return self._file.read(self._home, self.start, self.start + self.nbytes)
        row = self._entry.dtype.nbytes(prod(self.shape[1:]))
        if row is None:
            raise UsageError(f"the rows of {shown(self.name)} are no whole bytes", hint="take all of it")
        return self._file.read(self._home, self.start + rows[0] * row, self.start + rows[1] * row)


def _row(value: Any) -> int:
    try:
        return index(value)
    except TypeError:
        raise WrongTypeError.of("a place in an axis", value, "a whole number") from None


class Tensors(Mapping[str, Tensor]):
    """The tensors of a stored file by name, in the order of their bytes. Of use as long as its store is open.

    ``format`` is ``safetensors`` or ``gguf``; ``metadata`` the texts of the one, or the typed values of the other.
    Threads may share it. Its header was read once; the file stays the same, even where its name moves on.
    """

    def __init__(self, tensors: Iterable[Tensor], format: str, metadata: Mapping[str, Any]) -> None:  # noqa: A002
        self._by_name = {tensor.name: tensor for tensor in tensors}
        self.format = format
        self.metadata = metadata

    def __getitem__(self, name: str) -> Tensor:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        return f"Tensors({len(self)} of {self.format})"
