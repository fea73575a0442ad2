"""`make bench-dedup`: versions of files stored in turn, by both clients and in several settings; written to DEDUP.md.

New bytes are the raw bytes of the xorbs that the store gained, counted alike for both. Each list of versions ends with
the last one put again.
"""

from __future__ import annotations

import argparse
import http.client
import os
import platform
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from bench import versions
from bench.delay import delayed
from bench.server import serving
from bench.worker import run_worker
from xetstore.cas import EmbeddedCas
from xetstore.cas.checksums import END_BYTES, told_section_bytes
from xetstore.protocol.hashes import Hash
from xetstore.protocol.xorb import XorbInfo
from xetstore.transfer.scan import hash_report

ROOT: Final = Path(__file__).parent
WHO: Final = {"ours": "xetstore", "theirs": "hf_xet"}
MB: Final = 1e6
GIB: Final = 2**30
_QUERY: Final = "/v1/chunks"
_XORB: Final = re.compile(r"(default\.)?[0-9a-f]{64}(-[0-9a-f]{16})?")

_WORDS: Final = """\
Versions of files are put in turn, by both clients into stores of their own; the last one twice. New are the raw bytes
of the xorbs that the store gained. Ideal is a store in which every chunk that is stored is found. A fresh client has
forgotten everything before each put; the delay is that of a round trip, by a proxy that does not limit the bandwidth.
What hf_xet puts again of files in short pieces (interleaved, monotonous) its own guard against fragmentation asks for:
it does so with a kept cache, too. Seconds are those of one put; of the others than the first the mean."""


@dataclass(frozen=True)
class Way:
    """How versions are put: by whom, into a directory or to a server, with what the client remembers or without.

    With a ``source`` client and server are those of another checkout.
    """

    who: str
    to_server: bool = True
    keeps_cache: bool = False
    delay_ms: int = 0
    source: Path | None = None

    @property
    def is_foreign(self) -> bool:
        """True if the store is not ours of today, and is not asked for the terms of files."""
        return self.source is not None or (not self.to_server and self.who == "theirs")

    def __str__(self) -> str:
        where = "directory" if not self.to_server else "server, kept cache" if self.keeps_cache else "server, fresh"
        who = WHO[self.who] if self.source is None else "before"
        return f"{who}, {where}" + (f", {self.delay_ms} ms" if self.delay_ms else "")

    @property
    def environment(self) -> dict[str, str]:
        """Of the processes of this way."""
        return {} if self.source is None else {"PYTHONPATH": str(self.source.resolve() / "src")}


SHORT_MS, LONG_MS = 20, 100
WAYS: Final = tuple(
    way
    for who in WHO
    for way in (
        Way(who, to_server=False, keeps_cache=True),
        Way(who, keeps_cache=True),
        Way(who),
        Way(who, delay_ms=SHORT_MS),
        Way(who, delay_ms=LONG_MS),
    )
)


@dataclass(frozen=True)
class Put:
    """One version put: what the store gained, raw and as it is stored, and what that took."""

    new_bytes: int
    stored_bytes: int
    seconds: float
    peak_mib: float
    requests: dict[str, int]
    terms: int
    fetches: int


@dataclass
class Column:
    """All versions of a corpus, put in one way."""

    way: Way
    puts: list[Put] = field(default_factory=list)

    def count(self, route: str = "") -> int:
        return sum(count for put in self.puts for name, count in put.requests.items() if name.startswith(route))


@dataclass
class Table:
    """A corpus in all ways. ``ideal`` are the bytes of chunks that the versions before do not have."""

    corpus: str
    sizes: list[int]
    ideal: list[int]
    columns: list[Column]

    def new_bytes(self) -> list[str]:
        names = [f"v{number}" for number in range(1, len(self.sizes))]
        lines = [f"| MB new | {' | '.join(names)} | again | of ideal | without v1 |", "|---" * (len(names) + 4) + "|"]
        rows = [("ideal", self.ideal)]
        rows += [(str(column.way), [put.new_bytes for put in column.puts]) for column in self.columns]
        for name, new in rows:
            cells = " | ".join(f"{nbytes / MB:.2f}" for nbytes in new)
            lines.append(f"| {name} | {cells} | **{self._share(new, 0)}** | {self._share(new, 1)} |")
        return lines

    def costs(self) -> list[str]:
        lines = [
            "| | terms per GiB | fetches per GiB | dedup queries | all requests | stored MB | s v1 | s others "
            "| peak MiB |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        gib = sum(self.sizes) / GIB
        for column in self.columns:
            puts = column.puts
            made = [
                "-" if column.way.is_foreign else f"{sum(counts) / gib:,.0f}"
                for counts in ([put.terms for put in puts], [put.fetches for put in puts])
            ]
            asked = [f"{column.count(route):,}" if column.way.to_server else "-" for route in (_QUERY, "")]
            others = statistics.fmean(put.seconds for put in puts[1:])
            lines.append(
                f"| {column.way} | {' | '.join(made + asked)} | {sum(put.stored_bytes for put in puts) / MB:.1f} "
                f"| {puts[0].seconds:.2f} | {others:.2f} | {max(put.peak_mib for put in puts):.0f} |"
            )
        return lines

    def share(self, way: Way, first: int = 0) -> str:
        [column] = [column for column in self.columns if column.way == way]
        return self._share([put.new_bytes for put in column.puts], first)

    def _share(self, new: Sequence[int], first: int) -> str:
        least = sum(self.ideal[first:])
        return f"{sum(new[first:]) / least:.3f}" if least else "-"


class Ideal:
    """A store that knows every chunk it has."""

    def __init__(self) -> None:
        self._chunks: set[Hash] = set()

    def new_bytes(self, folder: Path) -> int:
        new = 0
        for path in sorted(folder.iterdir()):
            for chunk, size in hash_report(path, keep_chunks=True).chunks or ():
                new += 0 if chunk in self._chunks else size
                self._chunks.add(chunk)
        return new


class Place:
    """Where one way puts versions: a store of its own, perhaps with a server and a proxy, and a cache."""

    def __init__(self, way: Way, work: Path, endpoint: str, server_url: str | None) -> None:
        self.way = way
        self.store = work / "store"
        self._cache = work / "cache"
        self._names = work / "names"
        self._endpoint = endpoint
        self._server_url = server_url
        self._xorbs: dict[Path, tuple[int, int]] = {}

    @classmethod
    @contextmanager
    def opened(cls, way: Way, work: Path) -> Iterator[Place]:
        work.mkdir(parents=True)
        store = work / "store"
        with ExitStack() as stack:
            if not way.to_server:
                yield cls(way, work, f"local://{store}" if way.who == "theirs" else str(store), None)
                return
            url = stack.enter_context(serving(store, environment=way.environment)).url
            endpoint = stack.enter_context(delayed(url, way.delay_ms)) if way.delay_ms else url
            yield cls(way, work, endpoint, url)

    def put(self, folder: Path) -> tuple[Put, list[str]]:
        """Put the files of a folder in one call of a new process; what that was, and the hashes of the files."""
        if not self.way.keeps_cache:
            shutil.rmtree(self._cache, ignore_errors=True)
        (new, stored), asked = self._sizes(), self._requests()
        told = run_worker(
            *(self.way.who, "put_many", folder, self._endpoint, self._names),
            cache=self._cache,
            environment=self.way.environment,
        )
        after_new, after_stored = self._sizes()
        requests = {route: count - asked.get(route, 0) for route, count in self._requests().items()}
        hashes = self._names.read_text().split()
        terms, fetches = self._reconstructions(hashes)
        put = Put(after_new - new, after_stored - stored, told["seconds"], told["peak_mib"], requests, terms, fetches)
        return put, hashes

    def _sizes(self) -> tuple[int, int]:
        """Raw and stored bytes of all xorbs."""
        for path in self.store.rglob("*"):
            if path not in self._xorbs and _XORB.fullmatch(path.name) and "xorbs" in path.parts:
                self._xorbs[path] = _raw_bytes(path), path.stat().st_size
        return sum(raw for raw, _ in self._xorbs.values()), sum(stored for _, stored in self._xorbs.values())

    def _requests(self) -> dict[str, int]:
        """Requests that the server has answered, by route."""
        if self._server_url is None:
            return {}
        connection = http.client.HTTPConnection(self._server_url.removeprefix("http://"), timeout=60)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        counts: dict[str, int] = {}
        for route, count in re.findall(r'^xetstore_http_requests_total\{.*route="([^"]*)".*} (\S+)$', text, re.M):
            if not route.startswith(("/metrics", "/health")):
                counts[route] = counts.get(route, 0) + int(float(count))
        return counts

    def _reconstructions(self, hashes: Sequence[str]) -> tuple[int, int]:
        """Terms of these files, and ranges of xorbs that a reader of each fetches."""
        if self.way.is_foreign:
            return 0, 0
        terms = fetches = 0
        with EmbeddedCas.open(self.store, create=False) as cas:
            for name in hashes:
                answer = cas.reconstruct(Hash.parse(name))
                terms += len(answer.terms)
                fetches += sum(map(len, answer.fetches.values()))
        return terms, fetches


def _raw_bytes(path: Path) -> int:
    """Raw bytes of a stored xorb, by its footer, of which the last four bytes tell how long it is."""
    with path.open("rb") as xorb:
        size = xorb.seek(0, os.SEEK_END)
        xorb.seek(size - END_BYTES)
        end = size - told_section_bytes(xorb.read())
        xorb.seek(end - 4)
        region_bytes = end - 4 - int.from_bytes(xorb.read(4), "little")
        xorb.seek(region_bytes)
        return XorbInfo.parse_footer(xorb.read(end - region_bytes), offset=region_bytes).raw_bytes


def measure(corpus: str, work: Path, ways: Sequence[Way], *, seed: int, scale: float) -> Table:
    """Put all versions of a corpus in all ways; one after another, and who is first takes turns."""
    folders = versions.write(corpus, work / "versions", seed=seed, scale=scale)
    folders.append(folders[-1])
    ideal = Ideal()
    table = Table(corpus, [], [], [Column(way) for way in ways])
    with ExitStack() as stack:
        places = [stack.enter_context(Place.opened(way, work / str(number))) for number, way in enumerate(ways)]
        for turn, folder in enumerate(folders):
            table.sizes.append(sum(path.stat().st_size for path in folder.iterdir()))
            table.ideal.append(ideal.new_bytes(folder))
            agreed: list[str] = []
            for at in range(len(places)):
                at = (at + turn) % len(places)
                put, hashes = places[at].put(folder)
                table.columns[at].puts.append(put)
                agreed = agreed or hashes
                if hashes != agreed:
                    raise SystemExit(f"{corpus}: {places[at].way} gave other hashes")
    shutil.rmtree(work)
    return table


def short_form(tables: Sequence[Table], ways: Sequence[Way]) -> list[str]:
    """A line for each way, a column for each corpus: new bytes of all versions against the ideal."""
    lines = [
        f"| new bytes of ideal | {' | '.join(table.corpus for table in tables)} |",
        "|---" * (len(tables) + 1) + "|",
    ]
    return lines + [f"| {way} | {' | '.join(table.share(way) for table in tables)} |" for way in ways]


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-dedup", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="by default another one each run")
    parser.add_argument("--scale", type=float, default=1.0, help="of the sizes; the demo has one size")
    parser.add_argument("--quick", action="store_true", help="scale 0.1, without the short delay; no page is written")
    parser.add_argument("--corpora", nargs="*", choices=versions.NAMES, default=versions.NAMES)
    parser.add_argument(
        "--ways", default="", help="only ways that have these words in their names, or those behind a /"
    )
    parser.add_argument("--against", type=Path, help="another checkout of this, built: its client and server as well")
    parser.add_argument("--page", type=Path, default=ROOT / "DEDUP.md", help="the page to write")
    chosen = parser.parse_args()
    scale = 0.1 if chosen.quick else chosen.scale
    every = [way for way in WAYS if not chosen.quick or way.delay_ms != SHORT_MS]
    if chosen.against is not None:
        every += [replace(way, source=chosen.against) for way in every if way.who == "ours"]
    ways = [way for way in every if _is_chosen(way, chosen.ways)]
    print(f"seed {chosen.seed}, scale {scale:g}", flush=True)
    shared_memory = Path("/dev/shm")
    tables: list[Table] = []
    sections: list[str] = []
    with tempfile.TemporaryDirectory(
        prefix="xetstore-dedup-", dir=shared_memory if shared_memory.is_dir() else None
    ) as folder:
        for corpus in chosen.corpora:
            start = time.perf_counter()
            tables.append(measure(corpus, Path(folder, "corpus"), ways, seed=chosen.seed, scale=scale))
            sections.append("\n".join([f"## {corpus}", "", *tables[-1].new_bytes(), "", *tables[-1].costs()]))
            print(f"\n{sections[-1]}\n\n({time.perf_counter() - start:.0f} s)", flush=True)
    short = "\n".join(short_form(tables, ways))
    print(f"\n{short}")
    if not chosen.quick:
        head = (
            f"# Deduplication\n\n`make bench-dedup` on {platform.system()}, {os.cpu_count()} cores, Python "
            f"{platform.python_version()}, hf_xet 1.8.0; seed {chosen.seed}, scale {scale:g}.\n\n{_WORDS}\n\n"
        )
        chosen.page.write_text(head + "\n\n".join([short, *sections]) + "\n")


def _is_chosen(way: Way, wanted: str) -> bool:
    return any(all(word in str(way) for word in words.split()) for words in wanted.split("/"))


if __name__ == "__main__":
    main()
