"""AsyncTensors: the tensors of a stored file for asyncio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from xetstore.aio.calls import Caller
from xetstore.store import Store
from xetstore.tensors import Tensor, Tensors


class AsyncTensor(Caller):
    """A :class:`xetstore.tensors.Tensor` whose bytes are awaited."""

    def __init__(self, store: Store, tensor: Tensor) -> None:
        super().__init__(store)
        self._tensor = tensor
        self.name = tensor.name
        self.dtype = tensor.dtype
        self.shape = tensor.shape
        self.start = tensor.start
        self.nbytes = tensor.nbytes
        self.file = tensor.file

    async def load(self, start: int = 0, end: int | None = None, *, framework: str = "numpy", raw: bool = False) -> Any:
        """The tensor, or ``[start, end)`` of its first axis, as an array."""
        return await self.once(lambda store: self._tensor.within(store).load(start, end, framework=framework, raw=raw))

    async def read(self, start: int = 0, end: int | None = None) -> bytes:
        """Its bytes as they are stored, or those of ``[start, end)`` of its first axis."""
        return await self.once(lambda store: self._tensor.within(store).read(start, end))

    def __repr__(self) -> str:
        return f"Async{self._tensor!r}"


class AsyncTensors(Mapping[str, AsyncTensor]):
    """The tensors of a stored file by name, as :class:`xetstore.tensors.Tensors`. Its header has been read."""

    def __init__(self, store: Store, tensors: Tensors) -> None:
        self._store = store
        self._tensors = tensors
        self.format = tensors.format
        self.metadata = tensors.metadata

    def __getitem__(self, name: str) -> AsyncTensor:
        return AsyncTensor(self._store, self._tensors[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"Async{self._tensors!r}"
