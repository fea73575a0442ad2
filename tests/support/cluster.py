"""A cluster for tests: replicas of `xet serve` over PostgreSQL and SeaweedFS, and nginx, which asks them in turn."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.server import nginx
from tests.support.hf_process import Connection, Token
from tests.support.live import Reachable, ServerProcess
from tests.support.postgres import PostgresServer
from tests.support.seaweed import Seaweed, free_ports
from xetstore.access.keys import KeyRing
from xetstore.access.tokens import Scope, TokenAuthority
from xetstore.cas.service import EmbeddedCas

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "deploy" / "cluster" / "nginx.conf"


@dataclass
class Cluster(Reachable):
    """Replicas over the store in ``store_file``. ``url`` is that of nginx, which leads to one after the other.

    ``options`` are further ones of each replica.
    """

    folder: Path
    store_file: Path
    options: tuple[str, ...]
    ports: list[int]
    url: str
    replicas: list[ServerProcess | None] = field(default_factory=list)

    def start(self, number: int) -> ServerProcess:
        """Start a replica that does not run."""
        assert self.replicas[number] is None
        replica = ServerProcess(
            self.store_file,
            "--port",
            str(self.ports[number]),
            "--public-url",
            self.url,
            "--workers",
            "1",
            *self.options,
        )
        self.replicas[number] = replica
        return replica

    def kill(self, number: int) -> None:
        """SIGKILL for a replica."""
        replica, self.replicas[number] = self.replicas[number], None
        if replica is not None:
            replica.kill()
            replica.close()

    def terminate(self, number: int) -> int:
        """SIGTERM for a replica; its exit code once it has drained."""
        replica, self.replicas[number] = self.replicas[number], None
        assert replica is not None
        replica.terminate()
        try:
            return replica.wait()
        finally:
            replica.close()

    def replica(self, number: int) -> ServerProcess:
        """A replica that runs."""
        replica = self.replicas[number]
        assert replica is not None
        return replica

    @contextmanager
    def cas(self) -> Iterator[EmbeddedCas]:
        """The store itself, beside the replicas."""
        with EmbeddedCas.open(self.store_file) as opened:
            yield opened

    def token(self, scope: str = "write", *, namespace: str = "default", **more: Any) -> str:
        """A token, issued beside the replicas as the command line does."""
        with self.cas() as cas:
            authority = TokenAuthority(KeyRing.of(cas.secrets()))
            return authority.issue(scope=Scope(scope), namespace=namespace, **more)

    def connection(self, scope: str = "write", *, namespace: str = "default") -> Connection:
        """The connection of a client, with a token that outlives the test."""
        token: Token = self.token(scope, namespace=namespace, ttl_seconds=3600), 2**40
        return Connection(self.url, token)


def write_store_file(path: Path, *, objects: str, index: str, s3: Mapping[str, object]) -> Path:
    """A store file that only its owner may read, because it has the keys of the object store."""
    lines = [f'objects = "{objects}"', f'index = "{index}"', *(["[s3]"] if s3 else [])]
    lines += [f'{name} = "{value}"' for name, value in s3.items()]
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")
    return path


@contextmanager
def running(
    folder: Path,
    seaweed: Seaweed,
    postgres: PostgresServer,
    *options: str,
    replicas: int = 2,
    s3: Mapping[str, object] | None = None,
    index_port: int | None = None,
) -> Iterator[Cluster]:
    """A cluster with a store of its own, once all of it answers. It ends with the block.

    ``s3`` are other options for the objects than those of ``seaweed``, and ``index_port`` is another port than that of
    ``postgres``: they lead there through a proxy.
    """
    with ExitStack() as stack:
        index = stack.enter_context(postgres.database())
        if index_port is not None:
            index = index.replace(f":{postgres.port}/", f":{index_port}/")
        store = write_store_file(folder / "store.toml", objects=seaweed.prefix(), index=index, s3=s3 or seaweed.options)
        front, *ports = free_ports(replicas + 1)
        cluster = Cluster(folder, store, options, ports, f"http://127.0.0.1:{front}", [None] * replicas)
        for number in range(replicas):
            stack.callback(cluster.kill, number)
            cluster.start(number)
        stack.enter_context(nginx.running(folder, configuration(folder, front, ports), front))
        yield cluster


def configuration(folder: Path, front: int, ports: list[int]) -> Path:
    """The configuration of deploy/, for these ports, and with replicas asked in turn."""
    text = CONFIGURATION.read_text()
    text = re.sub(
        r"^    server xetstore-1:8080(.*)$", lambda found: _servers(ports, found[1]), text, flags=re.MULTILINE
    )
    text = re.sub(r"^    server xetstore-2:8080.*\n", "", text, flags=re.MULTILINE)
    text = text.replace("    least_conn;\n", "")
    text = text.replace("listen 80;", f"listen 127.0.0.1:{front};").replace("    listen [::]:80;\n", "")
    text = text.replace("/var/log/nginx/", f"{folder}/")
    assert all(str(port) in text for port in (front, *ports))
    return nginx.main_file(folder, text)


def _servers(ports: list[int], options: str) -> str:
    return "\n".join(f"    server 127.0.0.1:{port}{options}" for port in ports)
