"""A store file: what it may say, a sentence for every mistake, and no secret anywhere."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import traceback
from importlib.util import find_spec
from pathlib import Path

import pytest

from xetstore.blobs.ranges import read_all
from xetstore.cas import EmbeddedCas
from xetstore.cas.part_places import CACHE_BYTES, CacheFolder, PartUrl
from xetstore.cas.parts import StoreParts
from xetstore.cas.store_file import MAX_FILE_BYTES
from xetstore.errors import AccessDeniedError, NotFoundError, UsageError, XetError
from xetstore.extras import install_hint

SECRET = "xyzzy"
WHOLE = f"""
objects = "s3://bucket/some/prefix/"
index = "postgresql://xet:{SECRET}@db.example:5433/xet?sslmode=require"
cache = "cache"
cache_bytes = "2GiB"

[s3]
endpoint = "https://s3.example"
region = "eu-1"
access_key_id = "me"
secret_access_key = "{SECRET}"
"""


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "store.toml"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_a_store_file_names_every_part(tmp_path: Path) -> None:
    file = written(tmp_path, WHOLE)
    parts = StoreParts.read(file)
    assert isinstance(parts.objects, PartUrl)
    assert isinstance(parts.index, PartUrl)
    assert (parts.objects.scheme, parts.objects.reveal()) == ("s3", "s3://bucket/some/prefix")
    assert parts.index.reveal() == f"postgresql://xet:{SECRET}@db.example:5433/xet?sslmode=require"
    assert parts.index.shown == "postgresql://xet@db.example:5433/xet"
    assert parts.cache == CacheFolder(tmp_path / "cache", 2 << 30)
    assert parts.options["secret_access_key"] == SECRET
    assert parts.location == file
    assert not parts.is_directory


def test_paths_are_those_of_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    written(tmp_path, 'objects = "data"\nindex = "/var/index.sqlite3"\ncache = "../cache"')
    monkeypatch.chdir(tmp_path / "elsewhere")
    parts = StoreParts.read("../store.toml")
    assert isinstance(parts.objects, Path)
    assert parts.objects.resolve() == tmp_path / "data"
    assert parts.index == Path("/var/index.sqlite3")
    assert parts.cache is not None
    assert parts.cache.folder.resolve() == tmp_path.parent / "cache"
    assert parts.cache.max_bytes == CACHE_BYTES


def test_a_directory_has_its_parts_in_it(tmp_path: Path) -> None:
    for parts in (StoreParts.of_directory(tmp_path), StoreParts.at(str(tmp_path))):
        assert (parts.objects, parts.index, parts.location) == (tmp_path, tmp_path / "index.sqlite3", tmp_path)
        assert parts.is_directory
    written(tmp_path, f'objects = "."\nindex = "{tmp_path}/index.sqlite3"')
    assert StoreParts.at(tmp_path).location == tmp_path / "store.toml", "unless a store file is in it"


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("objects = ", "is no store file: Invalid value", "in TOML"),
        ('index = "i"', "does not say where the objects", "objects = "),
        ('objects = "o"', "does not say where the index", "postgresql://"),
        ('objects = "o"\nindex = "i"\ncahce = "c"', "a store has no 'cahce'", "did you mean cache?"),
        ('object = "o"\nindex = "i"', "a store has no 'object'", "did you mean objects?"),
        ('objects = "o"\nindex = "i"\nport = 8080', "a store has no 'port'", "objects, index, cache"),
        ('objects = 3\nindex = "i"', "objects is no text", None),
        ('objects = ""\nindex = "i"', "objects is no text", None),
        ('objects = "http://h/b"\nindex = "i"', "objects has the scheme http://", "s3://BUCKET"),
        ('objects = "s3://"\nindex = "i"', "names no bucket", "s3://BUCKET"),
        (f'objects = "s3://me:{SECRET}@bucket"\nindex = "i"', "holds more than a bucket", "[s3]"),
        (f'objects = "s3://bucket?key={SECRET}"\nindex = "i"', "holds more than a bucket", "[s3]"),
        ('objects = "o"\nindex = "mysql://h/d"', "index has the scheme mysql://", "postgresql://"),
        ('objects = "o"\nindex = "postgresql://"', "names no database", "postgresql://"),
        (f'objects = "o"\nindex = "postgresql://u:{SECRET}/x@h/d"', "@ behind its host", "%40"),
        (f'objects = "o"\nindex = "postgresql://u:{SECRET}?x@h/d"', "@ behind its host", "%40"),
        (f'objects = "o"\nindex = "postgresql://u:{SECRET}#x@h/d"', "names no database", "postgresql://"),
        (f'objects = "o"\nindex = "postgresql://[u:{SECRET}@h/d"', "names no database", "postgresql://"),
        ('objects = "o"\nindex = "i"\ncache = "s3://b"', "cache is a URL", "directory"),
        ('objects = "o"\nindex = "i"\ncache = "o/c"', "lies among the objects", "of its own"),
        ('objects = "o"\nindex = "i"\ncache_bytes = "1GiB"', "size of a cache, and there is none", "directory"),
        ('objects = "o"\nindex = "i"\ncache = "c"\ncache_bytes = "big"', "is not a size", None),
        ('objects = "o"\nindex = "i"\ncache = "c"\ncache_bytes = 5', "a cache of 5 bytes", "1 MiB"),
        ('objects = "o"\nindex = "i"\n[s3]\nregion = "r"', "[s3] is for objects in s3://, and these are in a", None),
        ('objects = "gs://b"\nindex = "i"\n[s3]\nregion = "r"', "[s3] is for objects in s3://, and these", None),
        ('objects = "s3://b"\nindex = "i"\n[s3.more]\nregion = "r"', "[s3] is no table of texts", "[s3]"),
        ('objects = "s3://b"\nindex = "i"\ns3 = "x"', "[s3] is no table of texts", "[s3]"),
    ],
)
def test_each_mistake_has_its_sentence(tmp_path: Path, text: str, said: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        StoreParts.read(written(tmp_path, text))
    assert said in str(caught.value)
    assert hint is None or hint in str(caught.value.hint)
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + str(caught.value.hint)


def test_what_is_no_store_file_is_named_for_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no store file .*missing\.toml"):
        StoreParts.at(tmp_path / "missing.toml")
    (tmp_path / "model.bin").write_bytes(b"\xff" * 100)
    (tmp_path / "long.txt").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    for name in ("model.bin", "long.txt"):
        with pytest.raises(UsageError, match=f"{name} is a file, and no store file"):
            StoreParts.at(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(UsageError, match="neither a directory nor a file"):
        StoreParts.at(tmp_path / "pipe.toml")
    (tmp_path / "folder.toml").mkdir()
    assert StoreParts.at(tmp_path / "folder.toml").is_directory, "a directory, whatever its name"


def test_parts_are_valid_or_are_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="relative path"):
        StoreParts(Path("objects"), tmp_path / "index.sqlite3")
    with pytest.raises(UsageError, match="in a directory"):
        StoreParts(tmp_path, tmp_path / "index.sqlite3", options={"region": "r"})


def test_flags_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parts = StoreParts.named("objects", "postgres://xet@db/xet", "cache", "1GiB")
    assert parts.objects == tmp_path / "objects"
    assert str(parts.index) == "postgresql://xet@db/xet"
    assert parts.cache == CacheFolder(tmp_path / "cache", 1 << 30)
    assert parts.location is None
    with pytest.raises(UsageError, match=r"^--index has the scheme ftp://"):
        StoreParts.named("objects", "ftp://h/p")


# Secrets


@pytest.mark.parametrize(
    "text",
    [
        f'objects = "o"\nindex = "postgresql://u:{SECRET}@h/d"',
        f'objects = "o"\nindex = "postgresql://h/d?password={SECRET}"',
        f'objects = "o"\nindex = "postgresql://h/d?scram_client_key={SECRET}"',
        f'objects = "o"\nindex = "postgresql://h/d?oauth_client_secret={SECRET}"',
        f'objects = "s3://b"\nindex = "i"\n[s3]\nsecret_access_key = "{SECRET}"',
        f'objects = "az://b"\nindex = "i"\n[az]\nAZURE_STORAGE_ACCOUNT_KEY = "{SECRET}"',
    ],
)
def test_a_file_with_a_secret_is_for_its_owner_alone(tmp_path: Path, text: str) -> None:
    StoreParts.read(written(tmp_path, text))
    for mode in (0o644, 0o640, 0o604, 0o602):
        file = written(tmp_path, text, mode)
        with pytest.raises(AccessDeniedError, match="which holds a secret") as caught:
            StoreParts.read(file)
        assert f"chmod 600 {file}" in str(caught.value.hint)
        assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "text",
    [
        'objects = "o"\nindex = "postgresql://u@h1:5432,h2:5433/d?sslmode=require"',
        'objects = "o"\nindex = "postgresql://u@h/d?passfile=/run/secrets/pgpass"',
        'objects = "s3://b"\nindex = "i"\n[s3]\nregion = "r"\naccess_key_id = "me"\nallow_http = true',
    ],
)
def test_a_file_without_a_secret_is_for_all(tmp_path: Path, text: str) -> None:
    StoreParts.read(written(tmp_path, text, 0o644))


def test_no_secret_is_shown(tmp_path: Path) -> None:
    parts = StoreParts.read(written(tmp_path, WHOLE))
    shown = [repr(parts), str(parts), repr(parts.index), str(parts.index), f"{parts.objects}", f"{parts!r:>10}"]
    assert not any(SECRET in text for text in shown)
    nameless = StoreParts.named("o", f"postgresql://u:{SECRET}@h/d?password={SECRET}&sslmode=require")
    assert SECRET not in f"{nameless} {nameless!r}"
    assert "postgresql://u@h/d" in str(nameless)


def test_stores_that_share_a_cache_do_not_share_their_objects(tmp_path: Path) -> None:
    key = "xorbs/aa/aa"
    stores = []
    for name in ("one", "other"):
        parts = StoreParts(tmp_path / name, tmp_path / f"{name}.sqlite3", CacheFolder(tmp_path / "cache"))
        stores.append(EmbeddedCas.open(parts))
        stores[-1].blobs.put_new(key, [name.encode()])
    for store, content in zip(stores * 2, [b"one", b"other"] * 2, strict=True):
        with store.blobs.get_range(key, 0, len(content)) as stream:
            assert read_all(stream, len(content)) == content
        store.blobs.settle()  # type: ignore[attr-defined]  # that of a cache
    for store in stores:
        assert store.scratch_folder is not None, "below the cache there is a directory"
        store.close()


# Drivers


@pytest.mark.parametrize(
    ("driver", "home", "text", "said", "extra"),
    [
        ("obstore", "blobs.bucket", 'objects = "s3://bucket"\nindex = "i"', "obstore", "s3"),
        (
            "psycopg",
            "database.postgres",
            'objects = "o"\nindex = "postgresql://127.0.0.1:9/d"',
            "psycopg",
            "postgres",
        ),
    ],
)
def test_a_missing_driver_is_one_sentence_with_the_extra(
    tmp_path: Path, driver: str, home: str, text: str, said: str, extra: str
) -> None:
    if find_spec(f"xetstore.{home}") is None:
        pytest.skip(f"there is no {home} yet")
    file = written(tmp_path, text)
    code = f"import sys; sys.modules[{driver!r}] = None; from xetstore.cli.main import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--store", file, "put", __file__], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert install_hint(extra) in done.stderr


def test_errors_of_a_store_file_travel(tmp_path: Path) -> None:
    with pytest.raises(XetError) as caught:
        StoreParts.read(written(tmp_path, WHOLE, 0o644))
    assert SECRET not in repr(pickle.loads(pickle.dumps(caught.value)))
