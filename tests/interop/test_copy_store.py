"""A served store that clients fill is backed up meanwhile, lost, and restored: clients go on with their old tokens."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

import xetstore
from tests.cli.runner import Xet
from tests.support.hf_process import HfError, HfProcess
from tests.support.servers import Server
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas, verify_invariants

MIB = 1 << 20


def files(folder: Path, seed: int) -> list[Path]:
    """Three files; one of them shares most of its content with that of every other seed."""
    folder.mkdir()
    shared = splitmix64(1, 2 * MIB)
    for number in range(3):
        content = splitmix64(100 * seed + number, 300_000)
        (folder / str(number)).write_bytes(content + (shared if number == 2 else b""))
    return sorted(folder.iterdir())


def test_a_store_is_restored_from_its_backup_and_clients_go_on(tmp_path: Path) -> None:
    store, backup = tmp_path / "store", tmp_path / "backup"
    xet = Xet(store)
    options = ("copy-store", "--secrets", "--since-last")
    paths = {name: files(tmp_path / name, seed) for seed, name in enumerate(("anna", "bert", "carl"), 1)}
    contents = {name: [path.read_bytes() for path in of] for name, of in paths.items()}
    with Server(store) as server:
        connections = {name: server.connect(namespace=name) for name in paths}
        clients = {name: HfProcess(connection, tmp_path / f"home-{name}") for name, connection in connections.items()}
        uploaded = {name: clients[name].upload(paths[name]).infos for name in ("anna", "bert")}
        assert xet(*options, store, backup).code == 0
        # In use: our own client puts files of a third namespace while the store is copied.
        token = server.token(namespace="carl")[0]
        ended: list[bool] = []

        def put() -> None:
            with xetstore.open(server.endpoint, token=token, cache=False) as remote:
                ended.extend(bool(remote.put(path)) for path in paths["carl"])

        writer = threading.Thread(target=put)
        writer.start()
        try:
            while writer.is_alive():
                assert xet(*options, store, backup).code == 0
        finally:
            writer.join()
        assert ended == [True] * 3
        uploaded["carl"] = clients["carl"].upload(paths["carl"]).infos
        assert xet(*options, store, backup).code == 0
        port = server.port
    with EmbeddedCas.open(backup) as cas:
        verify_invariants(cas)

    shutil.rmtree(store)
    assert xet("copy-store", "--secrets", backup, store).code == 0
    assert xet("check", "--read-data").code == 0
    with Server(store, port=port):
        for name, client in clients.items():
            assert client.download(uploaded[name]) == contents[name]
            other = uploaded["bert" if name == "anna" else "anna"][0]
            with pytest.raises(HfError, match="404"):
                client.download([other])
        again = HfProcess(connections["anna"], tmp_path / "new home").upload(paths["anna"])
        assert again.infos == uploaded["anna"]
        assert again.new_bytes == 0
