"""Fetch the benchmark's files and verify those that are there.

`workflow/data_sources.yaml` lists the addresses. `workflow/data.lock.json` holds the SHA-256 of what was fetched first; later
fetches must match it. For a folder it is the SHA-256 of the names and SHA-256 of all its files.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from stlight.data.clips import DataError
from stlight.data.fetching.download import download
from stlight.data.fetching.unpack import unpack
from stlight.data.prepare import module_of
from stlight.experiments.field_types import DatasetName, PositiveInt
from stlight.experiments.yaml_files import ExperimentError, FileModel, read_file
from stlight.registry.dataset_specs import DATASETS
from stlight.runtime import run_lock
from stlight.runtime.atomic_files import StorageError, fingerprint, write_atomically

logger = logging.getLogger(__name__)

# A download or an archive may be so many times as large as data_sources.yaml says, which is approximate.
_SLACK = 3
_LOCK = TypeAdapter(dict[str, dict[str, Any]])


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
    members: list[Annotated[str, Field(min_length=1)]] | None = Field(default=None, min_length=1)
    """The files or folders to take from the archive."""
    md5: str | None = Field(default=None, pattern="^[0-9a-f]{32}$")
    """As published, of the file or the archive."""

    @model_validator(mode="after")
    def _an_archive_has_members(self) -> Self:
        if (self.archive is None) != (self.members is None):
            raise ValueError("archive and members must be given together")
        return self

    @property
    def is_folder(self) -> bool:
        """True if `path` is a folder that holds the archive's members."""
        return self.members is not None and self.members != [Path(self.path).name]

    @property
    def download_path(self) -> str:
        """Path under the data root of what the addresses give: the archive, or the file itself."""
        return str(Path(self.path).parent / self.archive) if self.archive else self.path

    def exists(self, data_root: Path) -> bool:
        """True if all of it lies under the data root, right or wrong."""
        path = data_root / self.path
        return all((path / name).is_dir() for name in self.members or ()) if self.is_folder else path.is_file()


class DatasetSources(FileModel):
    """How to download a data set."""

    counts: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]
    """Published numbers of training images or clips, and of test clips."""
    files: list[Source] = Field(min_length=1)


DataSources = dict[DatasetName, DatasetSources]
"""Content of `data_sources.yaml`."""


class FileState(NamedTuple):
    """The state of a source's file or folder, with its size and checksums unless it is missing."""

    state: Literal["missing", "verified", "unverified", "wrong"]
    detail: str
    facts: dict[str, Any]


class DatasetStore:
    """The data sets under a data root: their sources and checksums."""

    def __init__(self, workflow: Path, data_root: Path) -> None:
        content = read_file(workflow / "data_sources.yaml", DataSources)
        self._sources = {dataset: stated.files for dataset, stated in content.items()}
        self._published_counts = {dataset: stated.counts for dataset, stated in content.items()}
        self.data_root = data_root
        self._lock_path = workflow / "data.lock.json"
        self._unreachable: set[str] = set()
        self._read_lock()

    def sources(self, dataset: str) -> list[Source]:
        """Return the sources of a data set: none if it cannot be downloaded. Raises `DataError` for an unknown one."""
        if dataset not in DATASETS:
            raise DataError(f"no data set {dataset!r} to fetch; there are {', '.join(DATASETS)}")
        return self._sources.get(dataset, [])

    def verify(self, source: Source) -> FileState:
        """Compare a source's file or folder with the lock file, or else with the published checksum."""
        if not source.exists(self.data_root):
            return FileState("missing", "", {})
        path = self.data_root / source.path
        facts = _folder_facts(path, source.members or []) if source.is_folder else _file_facts(path)
        return self._compare(facts, source.path, None if source.archive else source.md5)

    def _compare(self, facts: dict[str, Any], path: str, published_md5: str | None) -> FileState:
        locked = self._read_lock().get(path)
        for label, key, expected, origin in (
            ("SHA-256", "sha256", locked and locked["sha256"], "in the lock file"),
            ("MD5", "md5", published_md5, "published"),
        ):
            if expected and facts[key] != expected:
                return FileState("wrong", f"{label} {facts[key]}, {origin} {expected}", facts)
            if expected:
                return FileState("verified", f"as {origin}", facts)
        return FileState("unverified", "no checksum is known", facts)

    def fetch(self, dataset: str, *, accept: bool = False, say: Callable[[str], None] = print) -> Path:
        """Download what is missing of a data set and verify the rest. Returns a file that records what was found.

        With `accept`, existing files are taken as right and recorded in the lock file. Files of the user are never changed.
        Raises `DataError`, in one line, if a file cannot be fetched or is wrong.
        """
        marker = self.data_root / "fetched" / f"{dataset}.json"
        sources = self.sources(dataset)
        facts: dict[str, Any] = {}
        new: dict[str, Any] = {}
        """To be recorded in the lock file once everything has been read."""
        downloaded: list[Source] = []
        failures: list[str] = []
        # One fetch at a time, because all data sets share the lock file.
        with run_lock.hold(marker.parent, say):
            for source in sources:
                path = self.data_root / source.path
                try:
                    if not source.exists(self.data_root):
                        say(f"{path}: fetched from {self._bring(source, accept, new)}")
                        downloaded.append(source)
                    state, detail, facts[source.path] = self.verify(source)
                    if state == "wrong" and not accept:
                        raise DataError(
                            f"{path} is not the published one ({detail}): move it away and fetch again, or accept it as it is:"
                            f" python -m stlight fetch {dataset} --accept"
                        )
                    if source in downloaded or (accept and state != "verified"):
                        new[source.path], detail = facts[source.path], "recorded in the lock file"
                    say(f"{path}: {detail}")
                except (DataError, StorageError) as error:
                    failures.append(str(error))
            if failures:
                raise DataError("; ".join(failures))
            try:
                counts, problem = self.check_counts(dataset)
            except DataError as error:
                for path in (self.data_root / source.path for source in downloaded):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                remedy = "deleted" if downloaded else "move it away to fetch it again"
                raise DataError(f"{error}: {remedy}") from error
            if problem and not accept:
                raise DataError(problem)
            if problem:
                new["counts"] = self._read_lock().get("counts", {}) | {dataset: counts}
            self._record(new)
            noted = fingerprint(self.data_root, DATASETS[dataset].files)
            write_atomically(marker, json.dumps({"files": facts, "counts": counts, "noted": noted}, indent=1) + "\n")
        return marker

    def check_counts(self, dataset: str) -> tuple[list[int], str]:
        """Count training images or clips and test clips. Returns the counts and what is wrong with them, "" if nothing.

        Raises `DataError` for files that cannot be read.
        """
        found = list(module_of(dataset).count(dataset, self.data_root))
        expected = self._read_lock().get("counts", {}).get(dataset, self._published_counts.get(dataset, found))
        if found == expected:
            return found, ""
        path = self.data_root / DATASETS[dataset].files[0]
        return found, (
            f"{path}: {dataset} has {found[0]} for training and {found[1]} test clips, expected {expected[0]} and"
            f" {expected[1]}: fetch it again, or accept it as it is: python -m stlight fetch {dataset} --accept"
        )

    def _bring(self, source: Source, accept: bool, new: dict[str, Any]) -> str:
        """Download a source, unpack it if it is an archive, and return where it came from. Adds the archive to `new`."""
        path, downloaded = self.data_root / source.path, self.data_root / source.download_path
        if path.is_dir() and any(path.iterdir()):
            raise DataError(f"{path} exists but is incomplete: move it away, or add what is missing")
        if not source.archive:
            return self._download(source, downloaded, accept)
        by_hand = downloaded.is_file()
        if by_hand:
            self._check(source, downloaded, accept)
        origin = str(downloaded) if by_hand else self._download(source, downloaded, accept)
        new[source.download_path] = _file_facts(downloaded)
        try:
            unpack(downloaded, path, source.members or [], _SLACK * source.megabytes * 10**6)
        except DataError:
            if not by_hand:
                downloaded.unlink()
            raise
        if not by_hand:
            downloaded.unlink()
        return origin

    def _download(self, source: Source, target: Path, accept: bool) -> str:
        try:
            return download(
                source.urls,
                target,
                check=lambda part: self._check(source, part, accept),
                resumable=bool(source.md5 or source.download_path in self._read_lock()),
                max_bytes=_SLACK * source.megabytes * 10**6,
                unreachable=self._unreachable,
            )
        except DataError as error:
            checksum = f" (MD5 {source.md5})" if source.md5 else ""
            unpacked = f", or its content at {self.data_root / source.path}" if source.archive else ""
            raise DataError(f"{error}: put {target.name}{checksum} there by hand, at {target}{unpacked}") from error

    def _check(self, source: Source, path: Path, accept: bool) -> None:
        """Raise `DataError` if a download is wrong and not to be accepted."""
        found = self._compare(_file_facts(path), source.download_path, source.md5)
        if found.state == "wrong" and not accept:
            raise DataError(f"{path} has {found.facts['bytes']} bytes with {found.detail}")

    def _read_lock(self) -> dict[str, dict[str, Any]]:
        try:
            return _LOCK.validate_json(self._lock_path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValidationError as error:
            raise ExperimentError(
                f"{self._lock_path}: expected bytes and sha256 for each path, as `fetch` writes them"
            ) from error

    def _record(self, new: dict[str, Any]) -> None:
        """Add entries to the lock file, which users commit. If it cannot be written, a warning shows them."""
        kept = {name: {k: v for k, v in facts.items() if k not in ("md5", "files")} for name, facts in new.items()}
        lock = self._read_lock()
        if lock | kept == lock:
            return
        try:
            write_atomically(self._lock_path, json.dumps(lock | kept, indent=1, sort_keys=True) + "\n")
        except StorageError as error:
            logger.warning("%s; the new entries are %s", error, kept)


def _file_facts(path: Path) -> dict[str, Any]:
    digests = {"md5": hashlib.md5(usedforsecurity=False), "sha256": hashlib.sha256()}
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            for digest in digests.values():
                digest.update(chunk)
    return {"bytes": path.stat().st_size} | {name: digest.hexdigest() for name, digest in digests.items()}


def _folder_facts(folder: Path, members: list[str]) -> dict[str, Any]:
    """Return size, number of files, and the SHA-256 of the names and SHA-256 of all files."""
    paths = sorted(path for name in members for path in (folder / name).rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): _file_facts(path) for path in paths}
    lines = "".join(f"{name} {facts['sha256']}\n" for name, facts in files.items())
    size = sum(facts["bytes"] for facts in files.values())
    return {"bytes": size, "files": len(files), "sha256": hashlib.sha256(lines.encode()).hexdigest()}
