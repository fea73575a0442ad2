"""Tensors of stored files: by name, loaded by reading their ranges only, over a directory and over a server."""

from __future__ import annotations

import asyncio
import inspect
import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import xetstore
from tests.support.around import AroundCas
from tests.support.live import live_server
from tests.support.strategies import splitmix64
from xetstore import aio
from xetstore.aio.tensors import AsyncTensor, AsyncTensors
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import EntryNotFoundError, FormatError, IntegrityError, InterruptedCallError, UsageError
from xetstore.interfaces import ByteStream
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import FetchRange, Reconstruction
from xetstore.store import Store
from xetstore.tensors import Tensor, Tensors

BIG_SHAPE = (40, 1 << 18)
NAME = "xet://alice/bert@main/model.safetensors"


def random(*shape: int) -> np.ndarray[Any, Any]:
    count = int(np.prod(shape))
    return np.frombuffer(splitmix64(count % 1000, 4 * count), np.int32).reshape(shape)


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    return {
        "big": np.frombuffer(splitmix64(1, 40 << 18), np.uint8).reshape(BIG_SHAPE),
        "small": np.arange(12, dtype=np.float32).reshape(3, 4),
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 7), np.float16),
        "flags": np.array([True, False, True]),
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, weights: dict[str, Any]) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_file(weights, path, metadata={"format": "np"})
    return path


@pytest.fixture(params=["directory", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("XET_CACHE", str(tmp_path / "cache"))
    if request.param == "directory":
        with xetstore.open(tmp_path / "store") as opened:
            yield opened
        return
    with (
        EmbeddedCas.open(tmp_path / "store") as cas,
        live_server(cas, auth="none") as server,
        xetstore.open(server.url) as opened,
    ):
        yield opened


def test_a_file_is_a_mapping_of_names_to_tensors(store: Store, model: Path, weights: dict[str, Any]) -> None:
    tensors = store.tensors(store.put(model))
    assert set(tensors) == set(weights)
    assert (tensors.format, tensors.metadata) == ("safetensors", {"format": "np"})
    big = tensors["big"]
    assert (big.name, big.dtype, big.shape, big.nbytes) == ("big", "U8", BIG_SHAPE, 40 << 18)
    assert model.read_bytes()[big.start : big.start + 100] == weights["big"].tobytes()[:100]
    assert "missing" not in tensors
    with pytest.raises(KeyError):
        tensors["missing"]
    assert repr(big) == "Tensor('big', U8, (40, 262144))"


def test_a_tensor_is_what_the_real_library_loads(store: Store, model: Path) -> None:
    tensors = store.tensors(str(store.put(model).hash))
    for name, expected in load_file(model).items():
        loaded = tensors[name].load()
        assert (loaded.dtype, loaded.shape) == (expected.dtype, expected.shape)
        assert np.array_equal(loaded, expected)
        assert np.array_equal(np.asarray(tensors[name]), expected)
        assert tensors[name].read() == expected.tobytes()
        loaded[...] = 0  # it is the caller's own


def test_a_part_of_the_first_axis_is_what_numpy_takes(store: Store, model: Path, weights: dict[str, Any]) -> None:
    big, expected = store.tensors(store.put(model).hash)["big"], weights["big"]
    assert np.array_equal(big.load(3, 5), expected[3:5])
    assert big.read(39) == expected[39:].tobytes()
    assert big.load(7, 7).shape == (0, BIG_SHAPE[1])
    for index in (
        0,
        -1,
        np.int64(4),
        slice(3, 5),
        slice(-2, None),
        slice(1, 30, 10),
        slice(9, 2),
        slice(None, None, -1),
    ):
        assert np.array_equal(big[index], expected[index]), index
    assert np.array_equal(big[2:4, 5], expected[2:4, 5])
    assert np.array_equal(big[2, 5:9], expected[2, 5:9])
    assert np.array_equal(big[..., 5], expected[..., 5])
    for outside in (40, -41):
        with pytest.raises(IndexError):
            big[outside]
    for start, end in ((0, 41), (5, 3), (-1, 2)):
        with pytest.raises(UsageError):
            big.load(start, end)
    wrong: list[Any] = ["0", 0.5, None]
    for start in wrong:
        with pytest.raises(TypeError, match="a whole number"):
            big.load(start)
    scalar = store.tensors(store.put(model).hash)["scalar"]
    assert scalar[()] == 2.5
    with pytest.raises(UsageError, match="no axis"):
        scalar.load(0, 1)


# --- The bytes that are read ----------------------------------------------------------------------------


class CountedCas(AroundCas):
    """Counts questions and fetched bytes."""

    def __init__(self, cas: EmbeddedCas) -> None:
        super().__init__(cas)
        self.asked: list[tuple[int, int | None]] = []
        self.fetched = 0

    def reconstruct(
        self, file: Hash, start: int = 0, end: int | None = None, *, hashes: bool = False, inline: int = 0
    ) -> Reconstruction:
        self.asked.append((start, end))
        return super().reconstruct(file, start, end, hashes=hashes)

    def fetch_xorb(self, fetch: FetchRange) -> ByteStream:
        self.fetched += fetch.byte_end - fetch.byte_start
        return super().fetch_xorb(fetch)


def test_the_header_is_read_once_and_a_tensor_by_its_range(tmp_path: Path, model: Path) -> None:
    with EmbeddedCas.open(tmp_path / "store") as cas:
        counted = CountedCas(cas)
        store = Store(counted)
        file = store.put(model).hash
        tensors = store.tensors(file)
        assert len(counted.asked) == 1
        assert counted.fetched < 512 << 10
        [*tensors.items()], tensors.metadata, tensors["big"].shape
        assert len(counted.asked) == 1
        counted.fetched = 0
        tensors["small"].load()
        assert counted.asked[1:] == [(tensors["small"].start, tensors["small"].start + 48)]
        assert counted.fetched <= 2 * (128 << 10)
        counted.fetched = 0
        tensors["big"].load(10, 14)  # 1 MiB of 10, and at most one chunk at either end
        assert 1 << 20 <= counted.fetched <= (1 << 20) + 2 * (129 << 10)
        counted.fetched = 0
        tensors["big"].load(5, 5), tensors["empty"].load()
        assert (counted.fetched, len(counted.asked)) == (0, 3)


def test_what_is_damaged_is_never_handed_out(tmp_path: Path, model: Path) -> None:
    with xetstore.open(tmp_path / "store") as store:
        tensors = store.tensors(store.put(model).hash)
        for xorb in (tmp_path / "store" / "xorbs").rglob("*-*"):
            data = bytearray(xorb.read_bytes())
            data[len(data) // 2] ^= 1
            xorb.chmod(0o600)
            xorb.write_bytes(data)
        with pytest.raises(IntegrityError):
            tensors["big"].load()


# --- Names ----------------------------------------------------------------------------------------------


def test_a_name_stands_for_its_file_and_the_file_stays_when_the_name_moves_on(
    store: Store, model: Path, weights: dict[str, Any]
) -> None:
    repo = store.create_repo("alice/bert")
    repo.commit({"model.safetensors": model, "notes.txt": b"hello, this is no file of tensors"})
    tensors = store.tensors(NAME)
    assert tensors["small"].file == "xet://alice/bert/model.safetensors"
    save_file({"small": np.zeros((3, 4), np.float32)}, model.parent / "other")
    repo.commit({"model.safetensors": model.parent / "other"})
    assert np.array_equal(tensors["big"].load(1, 2), weights["big"][1:2])
    assert list(store.tensors(NAME)) == ["small"]  # too small for the store: git keeps it
    assert np.array_equal(store.tensors(NAME)["small"].load(), np.zeros((3, 4)))
    for path, error in (
        ("missing.safetensors", EntryNotFoundError),
        ("notes.txt", FormatError),
        ("missing.safetensors.index.json", EntryNotFoundError),
    ):
        with pytest.raises(error, match=path):
            store.tensors(f"xet://alice/bert/{path}")
    with pytest.raises(UsageError):
        store.tensors("xet://alice/bert")
    with pytest.raises(UsageError):
        store.tensors("model.safetensors")
    for content in (b"", b"short", b"a text, and no file of tensors"):
        with pytest.raises(FormatError, match="no file of safetensors or GGUF"):
            store.tensors(store.put(content))


def test_a_model_in_several_files_is_one_mapping(store: Store, tmp_path: Path) -> None:
    parts = [{f"layer.{part}.{kind}": random(part + 1, 70_000) for kind in "ab"} for part in range(3)]
    places: dict[str, str] = {}
    for number, part in enumerate(parts):
        save_file(part, tmp_path / f"model-{number}.safetensors", metadata={"format": "pt"})
        places |= dict.fromkeys(part, f"model-{number}.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    repo = store.create_repo("alice/bert")
    repo.commit({f"weights/{path.name}": path for path in tmp_path.glob("model*")})
    tensors = store.tensors("xet://alice/bert@main/weights/model.safetensors.index.json")
    assert set(tensors) == set(places)
    assert tensors.metadata == {"format": "pt"}
    for part in parts:
        for name, expected in part.items():
            assert np.array_equal(tensors[name][-1], expected[-1])
            assert tensors[name].file.endswith(places[name])


@pytest.mark.parametrize(
    "index",
    [
        b"[]",
        b"{",
        b'{"weight_map": {}}',
        b'{"weight_map": {"a": 1}}',
        b'{"weight_map": {"a": "../other.safetensors"}}',
        b'{"weight_map": {"a": ".."}}',
        b'{"weight_map": {"missing": "part.safetensors"}}',
        b'{"weight_map": {"a": "missing.safetensors"}}',
        b'{"weight_map": {"a": "part.safetensors", "a": "part.safetensors"}}',
    ],
)
def test_an_index_that_tells_what_is_not_there_is_refused(tmp_path: Path, index: bytes) -> None:
    save_file({"a": np.zeros(3)}, tmp_path / "part")
    with xetstore.open(tmp_path / "store") as store:
        repo = store.create_repo("alice/bert")
        repo.commit({"part.safetensors": tmp_path / "part", "m.safetensors.index.json": index})
        with pytest.raises((FormatError, EntryNotFoundError)):
            store.tensors("xet://alice/bert/m.safetensors.index.json")


# --- Types ----------------------------------------------------------------------------------------------


def stored(store: Store, path: Path, dtype: str, shape: list[int], data: bytes) -> Tensor:
    text = json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return store.tensors(store.put(path).hash)["w"]


def test_types_that_numpy_lacks_are_those_of_ml_dtypes_or_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with xetstore.open(tmp_path / "store") as store:
        for name, dtype in (
            ("BF16", ml_dtypes.bfloat16),
            ("F8_E4M3", ml_dtypes.float8_e4m3fn),
            ("F8_E5M2", ml_dtypes.float8_e5m2),
            ("F8_E8M0", ml_dtypes.float8_e8m0fnu),
        ):
            expected = np.array([[0.5, 1, 2], [4, 8, 16]], dtype)
            tensor = stored(store, tmp_path / name, name, [2, 3], expected.tobytes())
            assert tensor.load().dtype == dtype
            assert np.array_equal(tensor[1], expected[1])
            with monkeypatch.context() as without:
                without.setitem(sys.modules, "ml_dtypes", None)
                with pytest.raises(UsageError, match=f"numpy alone has no {name}") as caught:
                    tensor.load()
                assert "raw=True" in str(caught.value.hint)
                assert np.array_equal(tensor.load(raw=True), expected.view(f"u{expected.itemsize}"))
        packed = stored(store, tmp_path / "F4", "F4", [3, 4], bytes(range(6)))
        with pytest.raises(UsageError, match="numpy has no F4"):
            packed.load()
        assert packed.load(1, 3, raw=True).tolist() == [[2, 3], [4, 5]]
        odd = stored(store, tmp_path / "odd", "F4", [2, 3], bytes(3))
        assert odd.read() == bytes(3)
        for work in (lambda: odd.load(raw=True), lambda: odd.read(0, 1)):
            with pytest.raises(UsageError, match="whole bytes"):
                work()


def test_without_numpy_there_are_names_shapes_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with xetstore.open(tmp_path / "store") as store:
        tensor = stored(store, tmp_path / "file", "F32", [3], bytes(12))
        monkeypatch.setitem(sys.modules, "numpy", None)
        monkeypatch.setitem(sys.modules, "torch", None)
        assert tensor.read(1) == bytes(8)
        with pytest.raises(UsageError, match="numpy is not installed"):
            tensor.load()
        with pytest.raises(UsageError, match="torch is not installed"):
            tensor.load(framework="torch")
        with pytest.raises(UsageError, match="'jax' is no framework"):
            tensor.load(framework="jax")


def test_torch_gets_its_own_types(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    with xetstore.open(tmp_path / "store") as store:
        data = np.array([0.5, 2, -1], ml_dtypes.bfloat16).tobytes()
        loaded = stored(store, tmp_path / "file", "BF16", [3], data).load(framework="torch")
        assert loaded.dtype == torch.bfloat16
        assert loaded.tolist() == [0.5, 2, -1]
        assert stored(store, tmp_path / "none", "F32", [0, 4], b"").load(framework="torch").shape == (0, 4)


def test_tensors_of_gguf_are_listed_and_the_quantized_ones_are_bytes(store: Store, tmp_path: Path) -> None:
    weights = np.linspace(-1, 1, 8 * 256, dtype=np.float32).reshape(8, 256)
    kind = gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("float", weights)
    writer.add_tensor("quantized", gguf.quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensors = store.tensors(store.put(tmp_path / "model.gguf").hash)
    assert (tensors.format, tensors.metadata["general.architecture"]) == ("gguf", "llama")
    assert np.array_equal(tensors["float"][3:5], weights[3:5])
    quantized = tensors["quantized"]
    assert (quantized.dtype, quantized.shape, quantized.nbytes) == ("Q8_0", (8, 256), 8 * 8 * 34)
    with pytest.raises(UsageError, match="numpy has no Q8_0") as caught:
        quantized.load()
    assert "raw=True" in str(caught.value.hint)
    [judge] = [one for one in gguf.GGUFReader(tmp_path / "model.gguf").tensors if one.name == "quantized"]
    assert np.array_equal(quantized.load(2, 6, raw=True), judge.data[2:6])
    assert np.array_equal(
        gguf.quants.dequantize(quantized.load(raw=True), kind), gguf.quants.dequantize(judge.data, kind)
    )


# --- Calls ----------------------------------------------------------------------------------------------


def test_an_interrupt_ends_the_calls_under_way_and_no_later_ones(store: Store, model: Path) -> None:
    store.create_repo("alice/bert").commit({"model.safetensors": model})
    tensors = store.tensors(NAME)
    store.interrupt()
    assert tensors["small"].load().shape == (3, 4)
    store.close()
    with pytest.raises(InterruptedCallError):
        tensors["small"].load()


def test_asyncio_has_the_same(store: Store, model: Path, weights: dict[str, Any]) -> None:
    store.create_repo("alice/bert").commit({"model.safetensors": model})

    async def work() -> None:
        twin = aio.AsyncStore(store)
        tensors = await twin.tensors(NAME)
        assert set(tensors) == set(weights)
        assert (tensors.format, tensors.metadata) == ("safetensors", {"format": "np"})
        loaded = await asyncio.gather(*(tensor.load() for tensor in tensors.values()))
        for name, array in zip(tensors, loaded, strict=True):
            assert np.array_equal(array, weights[name])
        assert await tensors["small"].read(1, 2) == weights["small"][1:2].tobytes()
        loading = asyncio.ensure_future(tensors["big"].load())
        await asyncio.sleep(0)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert (await tensors["big"].load(0, 1)).shape == (1, BIG_SHAPE[1])

    asyncio.run(asyncio.wait_for(work(), 60))


@pytest.mark.parametrize(("kind", "twin"), [(Tensor, AsyncTensor), (Tensors, AsyncTensors)])
def test_the_twins_have_the_same_verbs(kind: type, twin: type) -> None:
    verbs = {name: verb for name, verb in vars(kind).items() if inspect.isfunction(verb) and not name.startswith("_")}
    verbs.pop("within", None)  # the view that every call of a twin makes
    assert set(verbs) == {name for name, verb in vars(twin).items() if inspect.isfunction(verb) and name[0] != "_"}
    for name, verb in verbs.items():
        assert inspect.signature(verb).parameters == inspect.signature(getattr(twin, name)).parameters


def test_a_tensor_travels_to_another_process_as_its_store_does(tmp_path: Path, model: Path) -> None:
    with xetstore.open(tmp_path / "store") as store:
        tensors = store.tensors(store.put(model))
        travelled = pickle.loads(pickle.dumps(tensors))
        assert np.array_equal(travelled["small"].load(), tensors["small"].load())
        assert travelled.metadata == tensors.metadata
