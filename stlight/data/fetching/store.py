"""Fetch the benchmark's files and verify those that are there.

`workflow/data_sources.yaml` lists the addresses. `workflow/data.lock.json` holds the SHA-256 of what was fetched first; later
fetches must match it. For a folder it is the SHA-256 of the names and SHA-256 of all its files. An installed package is not
written to: then `data.lock.json` under the data root holds what was fetched, beside what the package states.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from stlight.data.clips import DataError
from stlight.data.fetching.download import download, unpack
from stlight.data.prepare import digest, module_of
from stlight.experiments.field_types import DatasetName, PositiveInt
from stlight.experiments.yaml_files import ExperimentError, FileModel, read_file
from stlight.registry.dataset_specs import DATASETS
from stlight.runtime import run_lock
from stlight.runtime.atomic_files import StorageError, fingerprint, write_atomically

# A download or its content may be so many times as large as data_sources.yaml says, which is approximate.
_SLACK = 3
_LOCK = TypeAdapter(dict[str, str])


class Source(FileModel):
    """A file or folder of a data set and where to download it."""

    path: str = Field(pattern="^[a-z0-9_]+(/[A-Za-z0-9_.-]+)*$")
    """Where it lies under the data root."""
    urls: list[Annotated[str, Field(pattern="^https?://")]] = Field(min_length=1)
    """Tried in turn."""
    megabytes: PositiveInt
    """Approximate size of the download and of the unpacked files."""
    archive: str | None = Field(default=None, pattern="^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    """Name of the downloaded archive, if the file must be unpacked."""
    members: list[str] = Field(default_factory=list)
    """The folders to take from the archive, if `path` is a folder."""
    md5: str | None = Field(default=None, pattern="^[0-9a-f]{32}$")
    """As published, of the file at `path`."""

    def exists(self, data_root: Path) -> bool:
        """True if all of it lies under the data root, right or wrong."""
        path = data_root / self.path
        return all((path / name).is_dir() for name in self.members) if self.members else path.is_file()


class DatasetSources(FileModel):
    """How to download a data set."""

    counts: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]
    """Published numbers of training images or clips, and of test clips."""
    files: list[Source] = Field(min_length=1)


DataSources = dict[DatasetName, DatasetSources]
"""Content of `data_sources.yaml`."""


class DatasetStore:
    """The data sets under a data root: their sources and checksums."""

    def __init__(self, workflow: Path, data_root: Path) -> None:
        self._stated = read_file(workflow / "data_sources.yaml", DataSources)
        self.data_root = data_root
        installed = (workflow.parent / "__init__.py").is_file()
        self._shipped_lock_path = workflow / "data.lock.json"
        self._lock_path = data_root / "data.lock.json" if installed else self._shipped_lock_path
        self._lock = self._read_lock()

    def sources(self, dataset: str) -> list[Source]:
        """Return the sources of a data set, [] if none is stated. Raises `DataError` for an unknown data set."""
        if dataset not in DATASETS:
            raise DataError(f"no data set {dataset!r} to fetch; there are {', '.join(DATASETS)}")
        return self._stated[dataset].files if dataset in self._stated else []

    def verify(self, source: Source, accept: bool = False, found_at: Path | None = None) -> str:
        """Compare a file or folder with the lock file, or else with the published MD5.

        Returns how it was verified, "" if no checksum is known. Raises `DataError` if it differs, or returns "" with `accept`.
        """
        path = found_at or self.data_root / source.path
        if locked := self._lock.get(source.path):
            kind, found, expected, origin = "SHA-256", _sha256(source, path), locked, "in the lock file"
        elif source.md5:
            kind, found, expected, origin = "MD5", digest(path, "md5"), source.md5, "published"
        else:
            return ""
        if found == expected:
            return f"as {origin}"
        if accept:
            return ""
        raise DataError(
            f"{path} is not the published one: {kind} {found}, {origin} {expected}: replace it, or accept it: fetch --accept"
        )

    def fetch(self, dataset: str, *, accept: bool = False, say: Callable[[str], None] = print) -> Path:
        """Download what is missing of a data set and verify the rest. Returns a file that records what was found.

        With `accept`, existing files are taken as right and recorded in the lock file. Files of the user are never changed. A
        data set without sources is verified by its content only.
        Raises `DataError`, in one line, if a file cannot be fetched or is wrong.
        """
        marker = self.data_root / "fetched" / f"{dataset}.json"
        to_record: dict[str, str] = {}
        downloaded: list[Path] = []
        failures: list[str] = []
        # One fetch at a time, because all data sets share the lock file.
        with run_lock.hold(marker.parent, say):
            self._lock = self._read_lock()
            for source in self.sources(dataset):
                path = self.data_root / source.path
                try:
                    if not source.exists(self.data_root):
                        say(f"{path}: fetched from {self._bring(source, accept)}")
                        downloaded.append(path)
                    verified = self.verify(source, accept)
                    if path in downloaded or (accept and not verified):
                        to_record[source.path], verified = _sha256(source, path), "recorded in the lock file"
                    say(f"{path}: {verified or 'no checksum is known'}")
                except (DataError, StorageError) as error:
                    failures.append(str(error))
            if failures:
                raise DataError("; ".join(failures))
            try:
                counts, problem = self.check_counts(dataset)
            except DataError as error:
                if not self.sources(dataset):
                    raise
                for path in downloaded:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                raise DataError(f"{error}: {'deleted' if downloaded else 'move it away to fetch it again'}") from error
            if problem and not accept:
                raise DataError(problem)
            if not self.sources(dataset):
                say(f"{dataset}: {counts[0]} for training, {counts[1]} test clips, no checksum is known")
            if to_record:
                self._lock |= to_record
                write_atomically(self._lock_path, json.dumps(self._lock, indent=1, sort_keys=True) + "\n")
            facts = {"counts": counts, "noted": fingerprint(self.data_root, DATASETS[dataset].files)}
            write_atomically(marker, json.dumps(facts, indent=1) + "\n")
        return marker

    def check_counts(self, dataset: str) -> tuple[tuple[int, int], str]:
        """Return the numbers of training images or clips and test clips, and what is wrong with them, "" if nothing.

        Files in the lock file have the right numbers, and so has a data set without sources. Raises `DataError` for files that
        cannot be read.
        """
        sources = self.sources(dataset)
        paths = [self.data_root / name for name in DATASETS[dataset].files]
        if not sources and (missing := [path for path in paths if not path.exists()]):
            raise DataError(f"{missing[0]} is missing and data_sources.yaml has no address for it: put it there by hand")
        found = module_of(dataset).count(dataset, self.data_root)
        if all(source.path in self._lock for source in sources) or list(found) == (published := self._stated[dataset].counts):
            return found, ""
        return found, (
            f"{paths[0]}: {dataset} has {found[0]} for training and {found[1]} test clips,"
            f" expected {published[0]} and {published[1]}: fetch it again, or accept it: stlight fetch {dataset} --accept"
        )

    def _bring(self, source: Source, accept: bool) -> str:
        """Download a source, unpack it if it is an archive, and return where it came from."""
        path = self.data_root / source.path
        if path.is_dir() and any(path.iterdir()):
            raise DataError(f"{path} exists but is incomplete: move it away, or add what is missing")

        check = partial(self.verify, source, accept)
        target = path.with_name(source.archive) if source.archive else path
        by_hand = target.is_file()
        try:
            limit, kept = _SLACK * source.megabytes * 10**6, None if source.archive else check
            origin = str(target) if by_hand else download(source.urls, target, kept, limit)
        except DataError as error:
            checksum = f" (MD5 {source.md5})" if source.md5 else ""
            unpacked = f", or its content at {path}" if source.archive else ""
            raise DataError(f"{error}: put {target.name}{checksum} there by hand, at {target}{unpacked}") from error
        if source.archive:
            try:
                unpack(target, path, source.members, _SLACK * source.megabytes * 10**6, check)
            except DataError:
                if not by_hand:
                    target.unlink()
                raise
            if not by_hand:
                target.unlink()
        return origin

    def _read_lock(self) -> dict[str, str]:
        lock: dict[str, str] = {}
        for path in (self._shipped_lock_path, self._lock_path):
            try:
                lock |= _LOCK.validate_json(path.read_bytes())
            except FileNotFoundError:
                continue
            except ValidationError as error:
                raise ExperimentError(f"{path}: expected a SHA-256 for each path, as `fetch` writes them") from error
        return lock


def _sha256(source: Source, path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and SHA-256 of all files of a folder."""
    if not source.members:
        return digest(path)
    files = sorted(file for name in source.members for file in (path / name).rglob("*") if file.is_file())
    lines = "".join(f"{file.relative_to(path).as_posix()} {digest(file)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()
