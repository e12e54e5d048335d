"""Lists of recordings in S3, CSV or Parquet, with values of each; S3 Inventory's own format among them.

A list is streamed to a temporary file and read into a temporary database, so its size is limited by the disk alone.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, unquote_plus

import pyarrow as pa
import pyarrow.parquet as pq

from callphases.errors import ConfigurationError
from callphases.sidecars import as_text
from callphases.state.storage import ObjectPrefix, split_uri
from callphases.temporary_database import temporary_database

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

BATCH_ROWS = 10_000
LAST_MODIFIED = "LastModifiedDate"
"""The column of S3 Inventory that is the time of a call if no other is named."""
MANIFEST = "manifest.json"
_PUBLISHED = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\dZ/")
"""The folder of one publication of S3 Inventory.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html
"""
_CSV, _PARQUET = (".csv", ".csv.gz"), (".parquet",)
_DELIMITERS = ",;\t|"
csv.field_size_limit(1 << 24)


@dataclass(frozen=True)
class Wanted:
    """Which list to read, and how its rows are joined with recordings.

    Attributes:
        uri: as ``inventory`` in a pipeline file.
        join: the column that is compared.
        by_key: whether that is the recording's key, or an ID.
    """

    uri: str
    join: str
    by_key: bool


@dataclass(frozen=True)
class _File:
    """A file of a list; ``names`` are those of its columns where it does not have them itself."""

    name: str
    is_parquet: bool
    names: Sequence[str] | None = None


class Inventory:
    """The values of a list, by key or ID. ``find`` is thread-safe.

    Args:
        client: reaches the list.
        wanted: which list.
        fields: the columns that are asked for. None is ``LAST_MODIFIED``, of S3 Inventory alone.
        heartbeat: called now and then while the list is read.

    Attributes:
        is_of_s3: whether it is S3 Inventory's. Its times are in UTC.

    Raises:
        ConfigurationError: there is no such list, it can't be read, or it lacks a column.
        ServiceUnavailable: S3 does not answer.
    """

    def __init__(
        self,
        client: S3Client,
        wanted: Wanted,
        fields: Iterable[str | None],
        heartbeat: Callable[[], object] = lambda: None,
    ) -> None:
        self.is_of_s3 = False
        self._wanted, self._heartbeat = wanted, heartbeat
        self._client = client
        self._fields = sorted({field or LAST_MODIFIED for field in fields})
        self._lock = threading.Lock()
        self._database = temporary_database()
        self._database.execute("CREATE TABLE found (joined BLOB, texts TEXT)")
        self._read()
        # Sorting once at the end is many times faster than keeping a large table sorted.
        self._database.execute("CREATE INDEX by_joined ON found (joined)")

    def close(self) -> None:
        """Free the disk space."""
        self._database.close()

    def find(self, bucket: str, joined: str, field: str | None) -> str | None:
        """The value of a column for a key of ``bucket``, or for an ID; None if the list has none."""
        keys = [joined, f"s3://{bucket}/{joined}"] if self._wanted.by_key else [joined]
        with self._lock:
            for key in keys:
                rows = self._database.execute(
                    "SELECT texts FROM found WHERE joined = ? ORDER BY rowid DESC LIMIT 1", (_digest(key),)
                )
                if (row := rows.fetchone()) is not None:
                    text: str | None = json.loads(row[0])[self._fields.index(field or LAST_MODIFIED)]
                    return text
        return None

    def _read(self) -> None:
        prefix = ObjectPrefix(self._client, *self._place(self._wanted.uri))
        files = list(self._files(prefix))
        with tempfile.TemporaryDirectory(prefix="callphases-") as folder:
            path = Path(folder) / "list"
            for of_prefix, file in files:
                if not of_prefix.fetch(file.name, path):
                    raise self._wrong(f"there is no {of_prefix.uri_of(file.name)}")
                self._heartbeat()
                try:
                    self._add(file, path)
                except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error, pa.ArrowInvalid) as error:
                    what = "Parquet" if file.is_parquet else "CSV in UTF-8"
                    raise self._wrong(f"{of_prefix.uri_of(file.name)} is no {what} ({type(error).__name__})") from None

    @staticmethod
    def _place(uri: str) -> tuple[str, str]:
        """The folder of a URI, and the setting that an error names."""
        return uri[: uri.rfind("/") + 1], "inventory in the pipeline file"

    def _wrong(self, why: str) -> ConfigurationError:
        return ConfigurationError(f"inventory {self._wanted.uri}: {why}. Check recordings in the pipeline file.")

    def _files(self, prefix: ObjectPrefix) -> Iterator[tuple[ObjectPrefix, _File]]:
        """The files of the list, each with the prefix that its name is relative to."""
        name = self._wanted.uri.rpartition("/")[2]
        if not name:
            published = [one for one in prefix.folders() if _PUBLISHED.fullmatch(one)]
            for folder in reversed(published):  # the newest may not be complete yet
                if (body := prefix.get(folder + MANIFEST)) is not None:
                    yield from self._of_manifest(body)
                    return
            names = [one for one in prefix.names("") if one.lower().endswith(_CSV + _PARQUET)]
            if not names:
                raise self._wrong("the folder has no CSV or Parquet file")
            yield from ((prefix, _File(one, one.lower().endswith(_PARQUET))) for one in names)
        elif name == MANIFEST:
            body = prefix.get(name)
            if body is None:
                raise self._wrong("there is no such object")
            yield from self._of_manifest(body)
        else:
            yield prefix, _File(name, name.lower().endswith(_PARQUET))

    def _of_manifest(self, body: bytes) -> Iterator[tuple[ObjectPrefix, _File]]:
        """The files of S3 Inventory: https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html."""
        self.is_of_s3 = True
        try:
            document = json.loads(body)
            format_, schema = document["fileFormat"], document["fileSchema"]
            arn = str(document.get("destinationBucket") or "")
            keys = [str(file["key"]) for file in document["files"]]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._wrong("its manifest.json is none of S3 Inventory") from None
        if format_ not in ("CSV", "Parquet"):
            raise self._wrong(f"its format is {format_}; choose CSV or Parquet in the configuration of the inventory")
        bucket = arn.rpartition(":")[2] or split_uri(self._wanted.uri)[0]
        prefix = ObjectPrefix(self._client, f"s3://{bucket}/", self._place("")[1])
        names = [one.strip() for one in schema.split(",")] if format_ == "CSV" else None
        for key in keys:
            yield prefix, _File(key, format_ == "Parquet", names)

    def _add(self, file: _File, path: Path) -> None:
        rows = self._parquet_rows(path) if file.is_parquet else self._csv_rows(path, file.names)
        while batch := list(_first(rows, BATCH_ROWS)):
            self._database.executemany("INSERT INTO found VALUES (?, ?)", batch)
            self._heartbeat()

    def _csv_rows(self, path: Path, names: Sequence[str] | None) -> Iterator[tuple[bytes, str]]:
        with path.open("rb") as raw, _unzipped(raw) as plain:
            lines = io.TextIOWrapper(plain, encoding="utf-8-sig", newline="")
            delimiter = ","
            if names is None:
                head = lines.readline()
                delimiter = max(_DELIMITERS, key=head.count)
                reader = csv.reader(chain([head], lines), delimiter=delimiter)
                names = next(reader, [])
            else:
                reader = csv.reader(lines)
            yield from self._rows(names, reader)

    def _parquet_rows(self, path: Path) -> Iterator[tuple[bytes, str]]:
        with pq.ParquetFile(path) as table:
            names = table.schema_arrow.names
            wanted = self._places(names)
            columns = sorted({names[place] for place in wanted if place is not None})
            for batch in table.iter_batches(BATCH_ROWS, columns=columns):
                values = [batch.column(name).to_pylist() for name in columns]
                yield from self._rows(columns, zip(*values, strict=True))

    def _places(self, names: Sequence[str]) -> list[int | None]:
        """Where the columns are: the one to join by, the fields, and S3 Inventory's IsLatest, where there is one."""
        simple = [_simple(name) for name in names]

        def place(name: str) -> int:
            if name in names:
                return list(names).index(name)
            if _simple(name) in simple:
                return simple.index(_simple(name))
            raise self._wrong(f"it has no column {name}, but {', '.join(map(str, names)) or 'none at all'}")

        latest = simple.index("islatest") if self.is_of_s3 and "islatest" in simple else None
        return [place(self._wanted.join), *map(place, self._fields), latest]

    def _rows(self, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[tuple[bytes, str]]:
        join, *fields, latest = self._places(names)
        assert join is not None
        is_quoted = self.is_of_s3 and _simple(self._wanted.join) == "key"
        for row in rows:
            if len(row) < len(names) or row[join] in (None, ""):
                continue
            if latest is not None and str(row[latest]).lower() == "false":
                continue  # an older version
            found = json.dumps([as_text(row[place]) for place in fields if place is not None], ensure_ascii=False)
            joined = as_text(row[join]) or ""
            yield _digest(joined), found
            if is_quoted:
                for one in {unquote(joined), unquote_plus(joined)} - {joined}:
                    yield _digest(one), found


def _first(rows: Iterator[tuple[bytes, str]], count: int) -> Iterator[tuple[bytes, str]]:
    for _, row in zip(range(count), rows, strict=False):
        yield row


def _unzipped(file: BinaryIO) -> Any:
    """The file, or what it holds if it is gzipped, whatever its name is."""
    magic = file.read(2)
    file.seek(0)
    return gzip.GzipFile(fileobj=file) if magic == b"\x1f\x8b" else file


def _simple(name: str) -> str:
    """A column's name without case and signs: S3 Inventory's LastModifiedDate is last_modified_date in Parquet."""
    return re.sub(r"[\s_-]", "", str(name)).lower()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
