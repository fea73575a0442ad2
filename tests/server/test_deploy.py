"""What lies in deploy/ is so: settings that exist, a unit that drains, and nginx, where it is installed."""

from __future__ import annotations

import configparser
import http.client
import re
import shlex
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from tests.server import nginx
from tests.server.nginx import needs_nginx
from tests.support.certificates import make_certificate
from tests.support.live import PATIENCE_SECONDS, Response, ServerProcess, until
from tests.support.ports import free_port
from tests.support.stored import scattered
from xetstore.cas.parts import CacheFolder, StoreParts
from xetstore.cli.main import cli
from xetstore.protocol.reconstruction import Reconstruction
from xetstore.server.app import ROUTES
from xetstore.server.settings import PREFIX, ServerSettings, flag_of, load_settings
from xetstore.testing.samples import Sample

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def uncommented(text: str) -> str:
    return re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)


# The sample of settings


def test_the_sample_is_valid_as_it_is() -> None:
    settings = load_settings({}, {}, DEPLOY / "xetstore.toml")
    assert settings == ServerSettings(public_url="https://xet.example.org", log_format="json")


def test_the_sample_shows_every_setting_with_its_default(tmp_path: Path) -> None:
    text = uncommented((DEPLOY / "xetstore.toml").read_text())
    assert sorted(re.findall(r"^(\w+) = ", text, re.MULTILINE)) == sorted(knob.name for knob in fields(ServerSettings))
    (tmp_path / "all.toml").write_text(text)
    shown = load_settings({}, {}, tmp_path / "all.toml")
    for knob in fields(ServerSettings):
        if knob.name not in ("public_url", "log_format", "tls_cert", "tls_key", "workers"):
            assert getattr(shown, knob.name) == knob.default, knob.name


# The sample of a store file


def test_the_sample_of_a_store_names_every_part() -> None:
    parts = StoreParts.read(DEPLOY / "store.toml")
    assert (str(parts.objects), str(parts.index)) == ("s3://xetstore/models", "postgresql://xet@db.example.org/xet")
    assert parts.cache == CacheFolder(Path("/var/cache/xetstore"))
    assert set(parts.options) == {"endpoint", "region"}


# The unit


@pytest.fixture(scope="module")
def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=True, interpolation=None, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "xetstore.service")
    return parser


def options_of(words: list[str]) -> list[str]:
    return [word for word in words if word.startswith("--")]


def test_the_unit_starts_what_there_is(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    program, command, *words = shlex.split(service["ExecStart"])
    assert (Path(program).name, command) == ("xet", "serve")
    known = {name for parameter in cli.commands["serve"].params for name in parameter.opts}
    assert set(options_of(words)) <= known
    assert words[0] == f"/var/lib/{service['StateDirectory']}"
    assert service["User"] != "root"


def test_the_unit_gives_requests_in_flight_more_time_than_the_server_does(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    assert service["KillSignal"] == "SIGTERM"
    assert int(service["TimeoutStopSec"]) > ServerSettings().drain_seconds + 5
    assert int(service["LimitNOFILE"]) > 10 * ServerSettings().max_connections


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_knows_every_line_of_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "xetstore.service").read_text()
    (tmp_path / "xetstore.service").write_text(text.replace("/opt/xetstore/bin/xet", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "xetstore.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if "xetstore.service" in line] == []


# The container


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def test_the_server_of_the_compose_file_is_reachable_through_nginx_only(compose: dict[str, Any]) -> None:
    server, proxy = compose["services"]["xetstore"], compose["services"]["nginx"]
    assert proxy["network_mode"] == "service:xetstore"
    assert server["ports"] == ["443:443"]
    settings = load_settings({}, server["environment"], None)
    assert settings.host == "127.0.0.1"
    assert int(server["stop_grace_period"].removesuffix("s")) > settings.drain_seconds + 5
    assert server["volumes"][0].partition(":")[0] in compose["volumes"]


def test_the_compose_file_uses_files_that_exist(compose: dict[str, Any]) -> None:
    build = compose["services"]["xetstore"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    for volume in compose["services"]["nginx"]["volumes"]:
        source = volume.partition(":")[0]
        assert (DEPLOY / source).exists() or source == "./certificates"


def test_the_image_runs_as_nobody_special_and_tells_whether_it_is_ready() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    runtime = text.rpartition("\nFROM ")[2]
    assert re.search(r"^USER (?!root)", runtime, re.MULTILINE)
    assert re.search(r"^VOLUME /data$", runtime, re.MULTILINE)
    assert "/health/ready" in runtime.partition("HEALTHCHECK")[2]
    assert 'CMD ["serve"]' in runtime
    assert "XET_STORE=/data" in runtime
    variables = set(re.findall(rf"\b({PREFIX}\w+)=", text))
    assert variables <= {PREFIX + knob.name.upper() for knob in fields(ServerSettings)}
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    copied = [word for line in re.findall(r"^COPY (?!--)(.*)$", text, re.MULTILINE) for word in line.split()[:-1]]
    for source in copied:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored


# A cluster


def documents(name: str) -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return list(yaml.safe_load_all((DEPLOY / "cluster" / name).read_text()))


def test_the_replicas_of_the_compose_file_are_one_store_behind_nginx() -> None:
    [compose] = documents("compose.yaml")
    services = compose["services"]
    replicas = {name: service for name, service in services.items() if service.get("image") == "xetstore"}
    upstreams = re.findall(r"^    server (\S+):8080", (DEPLOY / "cluster" / "nginx.conf").read_text(), re.MULTILINE)
    assert sorted(replicas) == sorted(upstreams) == ["xetstore-1", "xetstore-2"]
    assert services["nginx"]["ports"] == ["127.0.0.1:8080:80"], "tokens pass in clear: on this machine only"
    [network] = compose["networks"]["default"]["ipam"]["config"]
    for replica in replicas.values():
        assert "ports" not in replica
        settings = load_settings({}, {k: v for k, v in replica["environment"].items() if k.startswith(PREFIX)}, None)
        assert settings.trusted_proxies == (network["subnet"],)
        assert int(replica["stop_grace_period"].removesuffix("s")) > settings.drain_seconds + 5
        build = DEPLOY / "cluster" / replica["build"]["context"]
        assert (build / replica["build"]["dockerfile"]).samefile(DEPLOY / "Dockerfile")
        assert set(replica["depends_on"]) <= set(services)
    assert {word.partition(":")[0] for service in services.values() for word in service.get("volumes", ())} == {
        "./store.toml", "./nginx.conf", "./s3.json", *compose["volumes"]
    }  # fmt: skip


def test_the_manifests_roll_out_without_a_moment_in_which_no_replica_answers() -> None:
    parts = {document["kind"]: document for document in documents("kubernetes.yaml")}
    spec = parts["Deployment"]["spec"]
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    settings = load_settings({}, {entry["name"]: entry["value"] for entry in container["env"]}, None)
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert 0 < parts["PodDisruptionBudget"]["spec"]["minAvailable"] < spec["replicas"]
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > pause + settings.drain_seconds + 5
    assert pod["enableServiceLinks"] is False
    routes = {route.template for route in ROUTES}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in routes
    assert container["livenessProbe"]["httpGet"]["path"] != "/health/ready", "a database that is away restarts nothing"
    [port] = container["ports"]
    assert port["containerPort"] == settings.port
    assert {parts[kind]["spec"]["selector"]["app.kubernetes.io/name"] for kind in ("Service",)} == {"xetstore"}
    for selected in (spec["selector"], parts["PodDisruptionBudget"]["spec"]["selector"]):
        assert selected["matchLabels"] == spec["template"]["metadata"]["labels"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert container["args"][1] == "/etc/xetstore/store.toml"
    assert list(parts["ConfigMap"]["data"]) == ["store.toml"]


def test_the_readme_speaks_of_settings_and_files_that_exist() -> None:
    text = (DEPLOY / "README.md").read_text()
    known = {knob.name for knob in fields(ServerSettings)} | {"access"}
    assert set(re.findall(r"`(\w+) = ", text)) <= known
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (DEPLOY / target).exists()
    assert {PREFIX + name.upper() for name in known} >= set(re.findall(rf"{PREFIX}\w+", text))
    assert flag_of("host") not in text, "it is about the file of settings"


# nginx


@dataclass(frozen=True)
class Proxied:
    """A server process behind the nginx of deploy/, which listens on ``port``. ``logs`` is where nginx logs."""

    server: ServerProcess
    port: int
    context: ssl.SSLContext
    logs: Path

    def request(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Response:
        sent = dict(headers or {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        connection = http.client.HTTPSConnection("localhost", self.port, context=self.context, timeout=PATIENCE_SECONDS)
        with closing(connection):
            connection.request(method, path, body or None, sent)
            answer = connection.getresponse()
            return Response(answer.status, answer.headers, answer.read())

    def upload(self, sample: Sample, token: str) -> None:
        xorb = f"/v1/xorbs/default/{sample.xorb.hash}"
        assert self.request("POST", xorb, token=token, body=sample.body).json() == {"was_inserted": True}
        shard = sample.shard.serialize()
        assert self.request("POST", "/v1/shards", token=token, body=shard).status == 200


def configuration(folder: Path, *, port: int, upstream: str, store: Path) -> Path:
    """The nginx of deploy/ with names, ports and paths of a test, below a main file of its own."""
    certificate = make_certificate(folder / "certificate")
    site = (DEPLOY / "nginx.conf").read_text()
    edge = (DEPLOY / "nginx-edge.conf").read_text()
    for old, new in (
        ("127.0.0.1:8080", upstream),
        ("    listen 443 ssl;\n    listen [::]:443 ssl;\n", f"    listen 127.0.0.1:{port} ssl;\n"),
        ("xet.example.org", "localhost"),
        ("/etc/nginx/certificates/fullchain.pem", certificate.cert),
        ("/etc/nginx/certificates/privkey.pem", certificate.key),
        ("/var/log/nginx/", f"{folder}/"),
        ("# include /etc/nginx/xetstore-edge.conf;", f"include {folder}/edge.conf;"),
    ):
        assert old in site
        site = site.replace(old, new)
    assert "/var/lib/xetstore/" in edge
    (folder / "edge.conf").write_text(edge.replace("/var/lib/xetstore/", f"{store}/"))
    (folder / "site.conf").write_text(site)
    return nginx.main_file(folder, f"include {folder}/site.conf;")


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[Proxied]:
    port = free_port()
    with ServerProcess(
        tmp_path / "store", "--xorb-urls", "edge", "--public-url", f"https://localhost:{port}"
    ) as server:
        upstream = server.url.removeprefix("http://")
        config = configuration(tmp_path, port=port, upstream=upstream, store=tmp_path / "store")
        with nginx.running(tmp_path, config, port):
            context = ssl.create_default_context(cafile=tmp_path / "certificate" / "cert.pem")
            yield Proxied(server, port, context, tmp_path)


@needs_nginx
def test_nginx_passes_everything_on_and_serves_xorbs_from_the_disk_to_whom_the_server_allows_it(
    proxied: Proxied,
) -> None:
    sample = scattered(4)
    proxied.upload(sample, proxied.server.token("write"))
    read = proxied.server.token("read")
    answer = proxied.request("GET", f"/v1/reconstructions/{sample.file.hash}", token=read)
    found = Reconstruction.from_json(answer.body)
    [ranges] = found.fetches.values()
    assert len(ranges) == 4
    first = ranges[0]
    prefix = f"https://localhost:{proxied.port}"
    assert first.url.startswith(f"{prefix}/")
    path = first.url.removeprefix(prefix).partition("#")[0]  # a fragment is not sent
    assert re.fullmatch(f".*/{sample.xorb.hash}-[0-9a-f]{{16}}", path)
    allowed = f"bytes={first.byte_start}-{first.byte_end - 1}"
    for method in ("GET", "HEAD"):
        got = proxied.request(method, path, token=read, headers={"Range": allowed})
        assert got.status == 206
        assert got.body == (sample.body[first.byte_start : first.byte_end] if method == "GET" else b"")
        assert "X-Request-Id" not in got.headers, "it came from nginx itself"
        assert got.headers["ETag"] == f'"{path.rpartition("/")[2]}"'
        assert "private" in got.headers["Cache-Control"]
    assert proxied.request("GET", path, headers={"Range": allowed}).json()["code"] == "unauthenticated"

    # All that makes nginx send a whole object, or what is not in the file, is refused by the server.
    other = f"bytes={first.byte_end}-{first.byte_end + 10}"
    for headers in (
        {},
        {"Range": other},
        {"Range": f"bytes={first.byte_start}-"},
        {"Range": "bytes=-10"},
        {"Range": f"bytes={first.byte_start}-{len(sample.body)}"},
        {"Range": "bytes=9-0"},
        {"Range": allowed + "".join(f",{allowed[6:]}" for _ in range(40)) + f",{other[6:]}"},
        {"Range": allowed, "If-Range": '"another"'},
    ):
        refused = proxied.request("GET", path, token=read, headers=headers)
        assert refused.status in (403, 404, 416), headers
        assert refused.json()["code"]
    for headers in (
        {"Range": allowed, "If-Range": f'"{path.rpartition("/")[2]}"'},
        {"Range": allowed + "".join(f",{allowed[6:]}" for _ in range(40))},
        {"Range": ",".join([allowed, f"{ranges[1].byte_start}-{ranges[1].byte_end - 1}"])},
    ):
        got = proxied.request("GET", path, token=read, headers=headers)
        assert got.status in (206, 403, 416), headers
        assert sample.body[first.byte_end : ranges[1].byte_start] not in got.body


@needs_nginx
def test_nginx_keeps_to_the_machine_what_is_for_it(proxied: Proxied) -> None:
    for path in ("/metrics", "//metrics", "/%6detrics", "/v1/auth/xorb", "/_xetstore/auth", "/x/../metrics"):
        assert proxied.request("GET", path, token=proxied.server.admin_token).status in (403, 404), path
    assert proxied.request("GET", "/health/ready").status == 200
    told = proxied.request("GET", "/", headers={"Accept": "application/json"}).json()
    assert "files" not in told, "the totals are for this machine, which is not who asks through nginx"


@needs_nginx
def test_nginx_leaves_it_to_the_server_to_refuse_a_long_body(proxied: Proxied) -> None:
    with (
        socket.create_connection(("127.0.0.1", proxied.port), timeout=PATIENCE_SECONDS) as plain,
        proxied.context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        head = (
            f"POST /v1/shards HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {proxied.server.token('write')}\r\n"
        )
        connection.sendall(f"{head}Content-Length: {1 << 40}\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 413"


@needs_nginx
def test_nginx_logs_no_query_string(proxied: Proxied) -> None:
    path = f"/v1/xorbs/default/{'0' * 64}"
    proxied.request("GET", f"{path}?X-Xet-Signature=secret", headers={"Range": "bytes=0-1"})
    proxied.server.close()
    assert proxied.request("GET", f"{path}?X-Xet-Signature=secret", headers={"Range": "bytes=0-1"}).status >= 500
    log = proxied.logs / "xetstore.access.log"
    until(lambda: log.read_text().count(path) >= 2)  # nginx writes it when it has answered
    assert "secret" not in log.read_text() + (proxied.logs / "xetstore.error.log").read_text()
