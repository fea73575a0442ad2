"""Repositories on two replicas: commits of both to one branch are all there, and each sees what the other made."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.hub import HubClient
from xetstore.hub.check import verify_names
from xetstore.hub.names import Kind
from xetstore.hub.rights import LOCAL
from xetstore.hub.service import EmbeddedHub

WRITERS, COMMITS = 4, 8


@pytest.fixture(scope="module")
def token(cluster: Cluster) -> str:
    with cluster.cas() as cas:
        accounts = EmbeddedHub(cas).accounts
        accounts.add_user("alice")
        return accounts.issue("alice")


def ask(cluster: Cluster, number: int, method: str, path: str, token: str, body: bytes = b"") -> Any:
    answer = cluster.replica(number).request(method, path, body=body, token=token)
    assert answer.status == 200, (answer.status, answer.body)
    return answer.json()


def commit_body(title: str, path: str, content: str, parent: str | None = None) -> bytes:
    header = {"key": "header", "value": {"summary": title} | ({"parentCommit": parent} if parent else {})}
    file = {"key": "file", "value": {"path": path, "content": content, "encoding": "utf-8"}}
    return "\n".join(map(json.dumps, (header, file))).encode()


def test_commits_of_two_replicas_to_one_branch_are_all_there(cluster: Cluster, token: str) -> None:
    ask(cluster, 0, "POST", "/api/repos/create", token, json.dumps({"name": "race"}).encode())

    def write(writer: int) -> list[str]:
        made = []
        for number in range(COMMITS):
            body = commit_body(f"w{writer} c{number}", f"w{writer}/{number}.txt", f"{writer} {number}")
            path = "/api/models/alice/race/commit/main"
            made.append(ask(cluster, writer % 2, "POST", path, token, body)["commitOid"])
        return made

    with ThreadPoolExecutor(WRITERS) as pool:
        made = [oid for oids in pool.map(write, range(WRITERS)) for oid in oids]
    assert len(set(made)) == WRITERS * COMMITS
    for number in range(2):
        listed = ask(cluster, number, "GET", "/api/models/alice/race/commits/main?limit=1000", token)
        assert {each["id"] for each in listed} >= set(made)
        assert len(listed) == WRITERS * COMMITS + 1
        tree = ask(cluster, number, "GET", "/api/models/alice/race/tree/main?recursive=true", token)
        assert sum(each["type"] == "file" for each in tree) == WRITERS * COMMITS + 1
    with cluster.cas() as cas:
        assert verify_names(EmbeddedHub(cas)) == []


def test_of_commits_with_the_same_parent_one_is_made(cluster: Cluster, token: str) -> None:
    ask(cluster, 0, "POST", "/api/repos/create", token, json.dumps({"name": "once"}).encode())
    parent = ask(cluster, 1, "GET", "/api/models/alice/once", token)["sha"]

    def write(writer: int) -> int:
        body = commit_body(f"w{writer}", f"{writer}.txt", "x", parent)
        path = "/api/models/alice/once/commit/main"
        return cluster.replica(writer % 2).request("POST", path, body=body, token=token).status

    with ThreadPoolExecutor(WRITERS) as pool:
        assert sorted(pool.map(write, range(WRITERS))) == [200, 412, 412, 412]
    with cluster.cas() as cas:
        assert EmbeddedHub(cas).repository(LOCAL, Kind.MODELS, "alice/once").revision().number == 2


def test_huggingface_hub_reads_from_one_replica_what_it_put_to_the_other(
    cluster: Cluster, token: str, tmp_path: Path
) -> None:
    with HubClient(cluster.url, tmp_path / "home", token) as client:
        assert client.call(_round_trip, str(tmp_path)) is True


def _round_trip(folder: str) -> bool:
    import os
    from pathlib import Path

    from huggingface_hub import HfApi, snapshot_download

    source = Path(folder, "source")
    source.mkdir()
    for number in range(6):
        (source / f"{number}.safetensors").write_bytes(os.urandom(700_000 + number))
    (source / "config.json").write_text("{}")
    api = HfApi()
    api.create_repo("alice/both")
    api.upload_folder(repo_id="alice/both", folder_path=source)
    out = Path(snapshot_download("alice/both"))
    return all((out / path.name).read_bytes() == path.read_bytes() for path in source.iterdir())
