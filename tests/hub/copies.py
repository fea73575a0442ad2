"""Stores with something in every table of names, and all that is in these."""

from __future__ import annotations

import hashlib
from typing import Any

from tests.support.hubs import uploaded
from xetstore.access.scope import Scope
from xetstore.hub.access_requests import AccessRequests
from xetstore.hub.buckets import Bucket, PutFile
from xetstore.hub.discussions import Discussions
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.operations import AddFile, AddPointer, Delete
from xetstore.hub.queries import Part, copying
from xetstore.hub.queries.copying import Table
from xetstore.hub.repository import Repository
from xetstore.hub.rights import Actor, Role
from xetstore.hub.service import EmbeddedHub
from xetstore.protocol.hashes import Hash
from xetstore.testing import make_sample, random_bytes, upload


def large(repository: Repository, seed: int) -> AddPointer:
    """A pointer to a new file of a repository."""
    one = make_sample(random_bytes(3000, seed))
    upload(repository.cas, one)
    return AddPointer(f"large{seed}.bin", hashlib.sha256(one.data).digest(), len(one.data))


def fill(hub: EmbeddedHub) -> None:
    """Something in every table."""
    accounts = hub.accounts
    alice = accounts.add_user("Alice")
    accounts.add_user("bob")
    accounts.add_org("acme", "Acme & Co")
    accounts.add_member("acme", "bob", Role.WRITE)
    accounts.issue("Alice", name="laptop")
    actor = Actor(name="Alice", scope=Scope.WRITE, user_id=alice.id, orgs={"acme": Role.ADMIN})
    bert = hub.create(actor, RepositoryName(Kind.MODELS, "Alice", "bert"))
    bert.commit("main", [AddFile("a/b.txt", b"one"), large(bert, 1)], "first\n\nwith words")
    bert.create_branch("dev")
    bert.commit("dev", [AddFile("dev.txt", b"two"), large(bert, 2)], "on dev")
    bert.commit("main", [Delete("a/b.txt")], "second")
    bert.create_tag("v1", "main", "a tag with words")
    talk = Discussions(bert)
    number = talk.open("Why?", "Because.").number
    talk.comment(number, "More of it")
    bert.commit("main", [AddFile("pr.txt", b"three")], "propose", create_pull_request=True)
    acme = hub.create(actor, RepositoryName(Kind.DATASETS, "acme", "data"), visibility="private")
    acme.commit("main", [AddFile(f"{i}.txt", b"%d" % i) for i in range(30)], "many")
    hub.update(actor, Kind.MODELS, "Alice/bert", gated="manual")
    AccessRequests(hub.cas.index, hub.now).ask(bert.row.id, "bob")
    hub.move(actor, Kind.DATASETS, "acme/data", RepositoryName(Kind.DATASETS, "acme", "facts"))
    logs = Bucket(hub.create(actor, RepositoryName(Kind.BUCKETS, "Alice", "logs")))
    logs.change([PutFile(f"day/{i}", uploaded(logs.repository, 500, 70 + i)) for i in range(3)])
    logs.change([PutFile("empty", Hash.ZERO)])
    gone = hub.create(actor, RepositoryName(Kind.MODELS, "Alice", "gone"))
    hub.delete(actor, Kind.MODELS, gone.name.id)
    part = Part(1, uploaded(bert, 400, 99), 400)
    hub.change(lambda writer, _: writer.put_part(bert.row.id, bytes(32), part, hub.now()))


def content(hub: EmbeddedHub, *, tokens: bool = False) -> dict[str, Any]:
    """All names of a store but those that are deleted, by the namespaces of its repositories."""
    found: dict[str, Any] = {}
    with hub.snapshot() as reader:
        ask = reader.connection.rows
        for table in tables():
            if table.name == "access_token" and not tokens:
                continue
            if table.is_owned:
                columns = ", ".join(f"{table.name}.{name}" for name in table.columns)
                statement = (
                    f"SELECT namespace, {columns} FROM {table.name}"
                    f" JOIN repository ON repository.id = {table.name}.repository_id"
                    " WHERE repository.deleted_at IS NULL"
                )
            else:
                columns = ", ".join(table.columns[1:] if table.name == "repository" else table.columns)
                living = "WHERE deleted_at IS NULL" if table.name == "repository" else ""
                statement = f"SELECT {columns} FROM {table.name} {living}"
            found[table.name] = sorted(ask(statement), key=repr)
        for name, columns in (
            ("former_name", "former_name.name_key"),
            ("git_object", "oid, git_object.kind, size, sha256, file_size, file, data"),
            ("ref", "ref.name, oid"),
        ):
            statement = (
                f"SELECT namespace, {columns} FROM {name} JOIN repository ON repository.id = {name}.repository_id"
                " WHERE repository.deleted_at IS NULL"
            )
            found[name] = sorted(ask(statement), key=repr)
    return found


def tables() -> list[Table]:
    return [value for value in vars(copying).values() if isinstance(value, Table)]
