"""The benchmark's files: where they come from, whether those that are there are the right ones, and fetching what is missing.

`workflow/data_sources.yaml` says where from. `workflow/data.lock.json` holds the SHA-256 of what was first fetched, against
which it is verified ever after; of a folder, the SHA-256 of the names and sizes of its files.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stlight import run_lock
from stlight.config import BENCHMARK_FILES
from stlight.data.clips import DataError
from stlight.data.download import download
from stlight.data.prepare import count
from stlight.data.unpack import unpack
from stlight.experiment_files import ExperimentError, read_yaml
from stlight.files import StorageError, note, write_atomically

logger = logging.getLogger(__name__)

# An archive may hold so many times what it is said to take.
_SLACK = 3

Verdict = Literal["missing", "verified", "unverified", "wrong"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file of a data set, or one folder."""

    path: str
    urls: list[str]
    megabytes: int
    archive: str | None = None
    members: list[str] | None = None
    md5: str | None = None

    def is_there(self, data_root: Path) -> bool:
        """Whether all of it lies under the data root, right or wrong."""
        path = data_root / self.path
        return all((path / name).is_dir() for name in self.members or ()) if self.is_folder else path.is_file()

    @property
    def is_folder(self) -> bool:
        """Whether its path is a folder, of what an archive holds."""
        return self.members is not None and self.members != [Path(self.path).name]

    @property
    def fetched(self) -> str:
        """What its addresses give, named as in the lock file."""
        return str(Path(self.path).parent / self.archive) if self.archive else self.path


@dataclass(frozen=True)
class Found:
    """What lies at a source's path."""

    verdict: Verdict
    words: str
    facts: dict[str, Any]
    """Its bytes and SHA-256, where it is there."""


class Library:
    """All sources of a workflow, and its lock file."""

    def __init__(self, workflow: Path, data_root: Path) -> None:
        content = read_yaml(workflow / "data_sources.yaml", workflow / "schemas" / "data_sources.schema.json")
        self.sources = {dataset: [Source(**entry) for entry in content[dataset]["files"]] for dataset in BENCHMARK_FILES}
        self._published = {dataset: content[dataset]["counts"] for dataset in BENCHMARK_FILES}
        self.data_root = data_root
        self._lock_path = workflow / "data.lock.json"
        self._hopeless: set[str] = set()

    def of(self, dataset: str) -> list[Source]:
        """The sources of a data set. Raises `DataError` for an unknown one."""
        if dataset not in self.sources:
            raise DataError(f"no data set {dataset!r} to fetch; there are {', '.join(BENCHMARK_FILES)}")
        return self.sources[dataset]

    def look(self, source: Source) -> Found:
        """Whether a source is there, and the right one: by the lock file, or else by what is published."""
        if not source.is_there(self.data_root):
            return Found("missing", "missing", {})
        path = self.data_root / source.path
        facts = _tree_facts(path, source.members or []) if source.is_folder else _file_facts(path)
        locked = self._lock().get(source.path)
        if locked:
            if facts["sha256"] == locked["sha256"]:
                return Found("verified", "as in the lock file", facts)
            return Found("wrong", f"SHA-256 {facts['sha256']}, in the lock file {locked['sha256']}", facts)
        if source.md5 and not source.archive:
            if facts["md5"] == source.md5:
                return Found("verified", "as published", facts)
            return Found("wrong", f"MD5 {facts['md5']}, published {source.md5}", facts)
        return Found("unverified", "there, but no checksum of it is known", facts)

    def fetch(self, dataset: str, *, accept: bool = False, say: Callable[[str], None] = print) -> Path:
        """Verify what is there of a data set and fetch the rest; returns a file that says what was found.

        With `accept` what is there is taken for right, and recorded in the lock file.
        Raises `DataError`, in one line, for what could not be fetched or is not what it should be; nothing of the user's is
        changed.
        """
        marker = self.data_root / "fetched" / f"{dataset}.json"
        sources = self.of(dataset)
        failures, facts = [], {}
        # One fetch at a time, for they share the lock file.
        with run_lock.hold(marker.parent, say):
            for source in sources:
                try:
                    found = self.look(source)
                    if found.verdict == "missing":
                        say(f"{self.data_root / source.path}: fetched from {self._bring(source)}")
                        found = self.look(source)
                    elif accept and found.verdict != "verified":
                        self._record(source.path, found.facts)
                        found = Found("verified", "accepted, and recorded in the lock file", found.facts)
                    if found.verdict == "wrong":
                        raise DataError(
                            f"{self.data_root / source.path} is not the published one ({found.words}): move it away and fetch"
                            f" again, or take it as it is: python -m stlight fetch {dataset} --accept"
                        )
                    say(f"{self.data_root / source.path}: {found.words}")
                    facts[source.path] = found.facts
                except (DataError, StorageError) as error:
                    failures.append(str(error))
            if failures:
                raise DataError("; ".join(failures))
            found_counts, words = self.check_counts(dataset)
            if words and not accept:
                raise DataError(words)
            if words:
                self._record("counts", self._lock().get("counts", {}) | {dataset: found_counts})
            noted = note(self.data_root, BENCHMARK_FILES[dataset])
            write_atomically(marker, json.dumps({"files": facts, "counts": found_counts, "noted": noted}, indent=1) + "\n")
        return marker

    def check_counts(self, dataset: str) -> tuple[list[int], str]:
        """How many training images or clips and test clips there are, and what is wrong with that: nothing if as published.

        Raises `DataError` for files that cannot be read.
        """
        found = list(count(dataset, self.data_root))
        expected = self._lock().get("counts", {}).get(dataset, self._published[dataset])
        if found == expected:
            return found, ""
        where = self.data_root / self.sources[dataset][0].path
        return found, (
            f"{where}: {dataset} has {found[0]} for training and {found[1]} test clips, expected {expected[0]} and"
            f" {expected[1]}: fetch it again, or take it as it is: python -m stlight fetch {dataset} --accept"
        )

    def _bring(self, source: Source) -> str:
        """Fetch a source, and unpack it if it comes in an archive; returns the address it came from."""
        target = self.data_root / source.fetched
        locked = self._lock()
        into = self.data_root / source.path if source.is_folder else (self.data_root / source.path).parent
        if some := [name for name in source.members or [] if (into / name).exists()]:
            raise DataError(f"{into} is not whole, but {some[0]} is there: move away what is there, or add what is missing")
        by_hand = source.archive is not None and target.is_file()
        if by_hand:
            # Or left by a call that had no room to unpack it.
            url = str(target)
            self._check(source, target, locked)
        else:
            try:
                url = download(
                    source.urls,
                    target,
                    check=lambda path: self._check(source, path, locked),
                    resumable=bool(source.md5 or source.fetched in locked),
                    about=source.megabytes * 10**6,
                    hopeless=self._hopeless,
                )
            except DataError as error:
                checksum = f" (MD5 {source.md5})" if source.md5 else ""
                or_content = f", or what it holds at {self.data_root / source.path}" if source.archive else ""
                raise DataError(f"{error}: put {target.name}{checksum} there by hand, at {target}{or_content}") from error
        if source.archive:
            try:
                unpack(target, into, source.members or [], _SLACK * source.megabytes * 10**6)
            except DataError:
                if not by_hand:
                    target.unlink()
                raise
        for name in dict.fromkeys((source.fetched, source.path)):
            if name not in locked:
                path = self.data_root / name
                whole = source.is_folder and name == source.path
                self._record(name, _tree_facts(path, source.members or []) if whole else _file_facts(path))
        if source.archive and not by_hand:
            target.unlink()
        return url

    def _check(self, source: Source, path: Path, locked: dict[str, Any]) -> None:
        """Raise `DataError` unless what was fetched is what was fetched first, or what is published."""
        facts = _file_facts(path)
        stated = locked.get(source.fetched, {}).get("sha256")
        if stated and facts["sha256"] != stated:
            raise DataError(f"gives {facts['bytes']} bytes with SHA-256 {facts['sha256']}, in the lock file {stated}")
        if source.md5 and facts["md5"] != source.md5:
            raise DataError(f"gives {facts['bytes']} bytes with MD5 {facts['md5']}, published {source.md5}")

    def _lock(self) -> dict[str, dict[str, Any]]:
        try:
            return dict(json.loads(self._lock_path.read_text()))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise ExperimentError(f"{self._lock_path}: not valid JSON: {error}") from error

    def _record(self, name: str, facts: dict[str, Any]) -> None:
        """Add to the lock file, to be committed. Where it cannot be written, a warning says what it would hold."""
        kept = {key: value for key, value in facts.items() if key not in ("md5", "files")}
        try:
            write_atomically(self._lock_path, json.dumps(self._lock() | {name: kept}, indent=1, sort_keys=True) + "\n")
        except StorageError as error:
            logger.warning("%s; %s has %s", error, name, kept)


def _file_facts(path: Path) -> dict[str, Any]:
    digests = {"md5": hashlib.md5(usedforsecurity=False), "sha256": hashlib.sha256()}
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            for digest in digests.values():
                digest.update(chunk)
    return {"bytes": path.stat().st_size} | {name: digest.hexdigest() for name, digest in digests.items()}


def _tree_facts(folder: Path, members: list[str]) -> dict[str, Any]:
    files = sorted(
        (path.relative_to(folder).as_posix(), path.stat().st_size)
        for name in members
        for path in (folder / name).rglob("*")
        if path.is_file()
    )
    digest = hashlib.sha256("".join(f"{name} {size}\n" for name, size in files).encode())
    return {"bytes": sum(size for _, size in files), "files": len(files), "sha256": digest.hexdigest()}


def free_bytes(data_root: Path) -> int:
    """Free disk where the data root is, or will be."""
    return shutil.disk_usage(next(p for p in (data_root, *data_root.absolute().parents) if p.is_dir())).free
