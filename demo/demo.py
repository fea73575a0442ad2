"""`make demo`: three versions of a few files go into a store, come back verified, and damage is refused."""

from __future__ import annotations

import filecmp
import io
import json
import shutil
import struct
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
from picture import draw

import xetstore
from xetstore.errors import IntegrityError

OUT = Path(__file__).parent.parent / "demo-out"
MB = 1_000_000


def make_versions(folder: Path) -> list[list[Path]]:
    """Three versions of three files: a tensor file with 1 % changed, a growing CSV, an archive."""
    rng = np.random.default_rng(7)
    weights = [rng.standard_normal(4 * MB, dtype=np.float32) * np.float32(0.02) for _ in range(16)]
    texts = [rng.integers(97, 123, 6 * MB, dtype=np.uint8).tobytes() for _ in range(8)]
    versions = []
    for version in (1, 2, 3):
        target = folder / f"v{version}"
        target.mkdir(parents=True)
        if version > 1:
            layer = weights[5 * version]
            layer[: len(layer) // 6] *= np.float32(1.01)  # a sixth of one layer of sixteen: 1 %
            texts.append(rng.integers(97, 123, 6 * MB, dtype=np.uint8).tobytes())
        write_tensors(target / "model.safetensors", weights)
        write_csv(target / "events.csv", rows=450_000 + 200_000 * version)
        write_archive(target / "corpus.tar", texts)
        versions.append(sorted(target.iterdir()))
    return versions


def write_tensors(path: Path, weights: list[np.ndarray]) -> None:
    """A safetensors file of bf16 layers."""
    header, at = {}, 0
    for i, layer in enumerate(weights):
        header[f"layers.{i}.weight"] = {
            "dtype": "BF16",
            "shape": [len(layer)],
            "data_offsets": [at, at + 2 * len(layer)],
        }
        at += 2 * len(layer)
    encoded = json.dumps(header).encode()
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(encoded)) + encoded)
        for layer in weights:
            out.write((layer.view(np.uint32) >> 16).astype(np.uint16).tobytes())


def write_csv(path: Path, rows: int) -> None:
    """A table to which every version appends."""
    values = np.random.default_rng(11).integers(0, 100_000, size=(rows, 3)).tolist()
    with path.open("w") as out:
        out.writelines(
            f"{i},2026-11-{i % 28 + 1:02d},user{a},{b},{c / 100:.2f}\n" for i, (a, b, c) in enumerate(values)
        )


def write_archive(path: Path, texts: list[bytes]) -> None:
    """An archive that gains a member at its front with every version: everything behind it moves."""
    with tarfile.open(path, "w") as archive:
        for i, text in reversed(list(enumerate(texts))):
            member = tarfile.TarInfo(f"corpus/part-{i:03d}.txt")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))


def flip_one_byte(store: Path) -> Path:
    """Damage the largest xorb of a store in its middle."""
    xorb = max((p for p in (store / "xorbs").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    xorb.chmod(0o644)
    with xorb.open("r+b") as data:
        data.seek(xorb.stat().st_size // 2)
        byte = data.read(1)[0]
        data.seek(-1, io.SEEK_CUR)
        data.write(bytes([byte ^ 1]))
    return xorb


def name_versions(store: xetstore.Store, versions: list[list[Path]]) -> bool:
    """Commit each version to a repository and tag it; True if the first one, restored by its name, is the same."""
    repository = store.create_repo("demo/corpus")
    for number, files in enumerate(versions, 1):
        start = time.perf_counter()
        repository.commit(add={path.name: path for path in files}, message=f"Version {number}")
        repository.create_tag(f"v{number}")
        print(f"  v{number}: one commit in {time.perf_counter() - start:.2f} seconds; its chunks were stored already")
    repository.download("v1", OUT / "restored")
    names = [path.name for path in versions[0]]
    folder = versions[0][0].parent
    return filecmp.cmpfiles(folder, OUT / "restored", names, shallow=False)[0] == names


def main() -> int:
    """Run the demo; the exit code says whether everything held."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    print("Making three versions of a model, a table and an archive ...")
    versions = make_versions(OUT / "files")
    hashes: dict[Path, xetstore.Hash] = {}

    print(f"\nStoring them in {OUT / 'store'}\n\n{'version':8}{'logical':>12}{'new':>12}{'stored':>12}{'seconds':>9}")
    with xetstore.open(OUT / "store") as store:
        for number, files in enumerate(versions, 1):
            start = time.perf_counter()
            reports = store.put_many(files)
            seconds = time.perf_counter() - start
            hashes |= {report.path: report.info.hash for report in reports}
            columns = [sum(r.info.size for r in reports), sum(r.new_bytes for r in reports)]
            columns.append(sum(r.stored_bytes for r in reports))
            print(f"v{number:<7}" + "".join(f"{n / MB:9.1f} MB" for n in columns) + f"{seconds:9.2f}")
        totals = store.totals()
        saved = 100 - 100 * totals.stored_bytes / totals.logical_bytes
        taken = f"{totals.logical_bytes / MB:.1f} MB, take {totals.stored_bytes / MB:.1f} MB"
        print(f"\n{totals.files} files, {taken}: {saved:.0f} % saved")

        print("\nGetting every file back and comparing it byte by byte ...")
        for path, file_hash in hashes.items():
            copy = OUT / "copy"
            report = store.get(file_hash, copy)
            if not report.verified or not filecmp.cmp(path, copy, shallow=False):
                print(f"  {path.parent.name}/{path.name} came back different")
                return 1
            copy.unlink()
        print(f"  {len(hashes)} files are identical, and were verified by hash on the way")

        print("\nGiving the versions names: a repository with a tag for each ...")
        if not name_versions(store, versions):
            print("  v1 came back different")
            return 1
        print("  xet://demo/corpus@v1 was restored by its name, and is identical")

    print("\nFlipping one bit in a copy of the store ...")
    shutil.copytree(OUT / "store", OUT / "damaged")
    flip_one_byte(OUT / "damaged")
    refused = 0
    with xetstore.open(OUT / "damaged", create=False) as store:
        for path, file_hash in hashes.items():
            try:
                store.get(file_hash, OUT / "copy")
                (OUT / "copy").unlink()
            except IntegrityError as error:
                refused += 1
                print(f"  {path.parent.name}/{path.name} refused: {error}")
    if not refused or (OUT / "copy").exists():
        print("  the damage was not noticed")
        return 1

    draw(versions, OUT / "shared-chunks.svg")
    print(f"\nWhich chunks each version shares: {OUT / 'shared-chunks.svg'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
