"""The benchmark's files: where they come from, whether those that are there are the right ones, and fetching what is missing.

`workflow/data_sources.yaml` says where from. `workflow/data.lock.json` holds the SHA-256 of what was first fetched, against
which it is verified ever after; of a folder, that of the names and SHA-256 of all its files.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stlight.data.clips import DataError
from stlight.data.fetching.download import download
from stlight.data.fetching.unpack import finish, unpack
from stlight.data.prepare import count
from stlight.experiments.yaml_files import ExperimentError, read_yaml
from stlight.registry.dataset_specs import DATASETS
from stlight.runtime import run_lock
from stlight.runtime.atomic_files import StorageError, note, write_atomically

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
        self.sources = {dataset: [Source(**entry) for entry in content[dataset]["files"]] for dataset in DATASETS}
        self._published = {dataset: content[dataset]["counts"] for dataset in DATASETS}
        self.data_root = data_root
        self._lock_path = workflow / "data.lock.json"
        self._hopeless: set[str] = set()
        self._lock()

    def of(self, dataset: str) -> list[Source]:
        """The sources of a data set. Raises `DataError` for an unknown one."""
        if dataset not in self.sources:
            raise DataError(f"no data set {dataset!r} to fetch; there are {', '.join(DATASETS)}")
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
        failures: list[str] = []
        facts: dict[str, Any] = {}
        new: dict[str, Any] = {}
        """For the lock file, once all has been read."""
        brought: list[Source] = []
        # One fetch at a time, for they share the lock file.
        with run_lock.hold(marker.parent, say):
            for source in sources:
                place = self.data_root / source.path
                try:
                    if not source.is_there(self.data_root):
                        say(f"{place}: fetched from {self._bring(source, accept, new)}")
                        brought.append(source)
                    found = self.look(source)
                    if found.verdict == "wrong" and not accept:
                        raise DataError(
                            f"{place} is not the published one ({found.words}): move it away and fetch again, or take it as it"
                            f" is: python -m stlight fetch {dataset} --accept"
                        )
                    if source in brought or (accept and found.verdict != "verified"):
                        new[source.path] = found.facts
                    say(f"{place}: {'recorded in the lock file' if source.path in new else found.words}")
                    facts[source.path] = found.facts
                except (DataError, StorageError) as error:
                    failures.append(str(error))
            if failures:
                raise DataError("; ".join(failures))
            try:
                counts, words = self.check_counts(dataset)
            except DataError as error:
                # Of no use, and in the way of a better one.
                for source in brought:
                    self._remove(source)
                remedy = "thrown away" if brought else "move it away to have it fetched again"
                raise DataError(f"{error}: {remedy}") from error
            if words and not accept:
                raise DataError(words)
            if words:
                new["counts"] = self._lock().get("counts", {}) | {dataset: counts}
            self._record(new)
            noted = note(self.data_root, DATASETS[dataset].files)
            write_atomically(marker, json.dumps({"files": facts, "counts": counts, "noted": noted}, indent=1) + "\n")
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

    def _bring(self, source: Source, accept: bool, new: dict[str, Any]) -> str:
        """Fetch a source, and unpack it if it comes in an archive; returns where from, and adds to what is to be recorded."""
        target = self.data_root / source.fetched
        # What is not recorded yet may still turn out to be useless; what was put there by hand is never removed.
        download_to = target.with_name(f"{target.name}.fetched") if source.archive else target
        place = self.data_root / source.path
        into, members = (place if source.is_folder else place.parent), source.members or []
        if source.archive and any(finish(archive, into, members) for archive in (target, download_to)):
            download_to.unlink(missing_ok=True)
            return "what was being unpacked when it was stopped"
        if some := [name for name in members if (into / name).exists()]:
            raise DataError(f"{into} is not whole, but {some[0]} is there: move away what is there, or add what is missing")
        archive, url = download_to, str(download_to)
        if source.archive and target.is_file():
            archive, url = target, str(target)
            self._check(source, target, accept)
        elif not (source.archive and download_to.is_file()):
            url = self._download(source, download_to, target, accept)
        if source.archive:
            new[source.fetched] = _file_facts(archive)
            try:
                unpack(archive, into, members, _SLACK * source.megabytes * 10**6, folders=source.is_folder)
            except DataError:
                download_to.unlink(missing_ok=True)
                raise
            download_to.unlink(missing_ok=True)
        return url

    def _download(self, source: Source, path: Path, by_hand: Path, accept: bool) -> str:
        try:
            return download(
                source.urls,
                path,
                check=lambda part: self._check(source, part, accept),
                resumable=bool(source.md5 or source.fetched in self._lock()),
                at_most=_SLACK * source.megabytes * 10**6,
                hopeless=self._hopeless,
            )
        except DataError as error:
            checksum = f" (MD5 {source.md5})" if source.md5 else ""
            or_content = f", or what it holds at {self.data_root / source.path}" if source.archive else ""
            raise DataError(f"{error}: put {by_hand.name}{checksum} there by hand, at {by_hand}{or_content}") from error

    def _remove(self, source: Source) -> None:
        """Take away what was fetched."""
        place = self.data_root / source.path
        if source.is_folder:
            for name in source.members or []:
                shutil.rmtree(place / name, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)

    def _check(self, source: Source, path: Path, accept: bool) -> None:
        """Raise `DataError` unless what was fetched is what was fetched first, or what is published."""
        facts = _file_facts(path)
        stated = self._lock().get(source.fetched, {}).get("sha256")
        if accept:
            return
        if stated and facts["sha256"] != stated:
            raise DataError(f"gives {facts['bytes']} bytes with SHA-256 {facts['sha256']}, in the lock file {stated}")
        if source.md5 and facts["md5"] != source.md5:
            raise DataError(f"gives {facts['bytes']} bytes with MD5 {facts['md5']}, published {source.md5}")

    def _lock(self) -> dict[str, dict[str, Any]]:
        try:
            content = json.loads(self._lock_path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise ExperimentError(f"{self._lock_path}: not valid JSON: {error}") from error
        if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
            raise ExperimentError(f"{self._lock_path}: expected bytes and sha256 for each path, as `fetch` writes them")
        return content

    def _record(self, new: dict[str, Any]) -> None:
        """Add to the lock file, to be committed. Where it cannot be written, a warning says what it would hold."""
        kept = {name: {k: v for k, v in facts.items() if k not in ("md5", "files")} for name, facts in new.items()}
        lock = self._lock()
        if lock | kept == lock:
            return
        try:
            write_atomically(self._lock_path, json.dumps(lock | kept, indent=1, sort_keys=True) + "\n")
        except StorageError as error:
            logger.warning("%s; it would hold %s", error, kept)


def _file_facts(path: Path) -> dict[str, Any]:
    digests = {"md5": hashlib.md5(usedforsecurity=False), "sha256": hashlib.sha256()}
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            for digest in digests.values():
                digest.update(chunk)
    return {"bytes": path.stat().st_size} | {name: digest.hexdigest() for name, digest in digests.items()}


def _tree_facts(folder: Path, members: list[str]) -> dict[str, Any]:
    """Of a folder: the SHA-256 of the names and the SHA-256 of all its files."""
    files = sorted(path for name in members for path in (folder / name).rglob("*") if path.is_file())
    digest, size = hashlib.sha256(), 0
    for path in files:
        content = path.read_bytes()
        size += len(content)
        digest.update(f"{path.relative_to(folder).as_posix()} {hashlib.sha256(content).hexdigest()}\n".encode())
    return {"bytes": size, "files": len(files), "sha256": digest.hexdigest()}


def free_bytes(data_root: Path) -> int:
    """Free disk where the data root is, or will be."""
    return shutil.disk_usage(next(p for p in (data_root, *data_root.absolute().parents) if p.is_dir())).free
