"""Name what differs between the origins of two runs: configuration, seed, code, backend, versions, threads, device, data."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stlight.config import ComputeConfig
from stlight.runs.record import RunRecord

# Times, and what follows from other fields.
_NO_CAUSES = ("started", "mixer_milliseconds")

_KIND_OF_FACT = {
    "threads": "threads",
    "kernels": "backend",
    "dropped_out": "backend",
    "accumulation_steps": "backend",
    "code": "code",
    "source": "code",
    "libraries": "versions",
    "python": "versions",
    "data": "data",
    "host": "device",
}
"""Kinds of the facts in a record's device and provenance. Others describe the device."""

_NAMES = {"code": "commit", "source": "source of the numbers"}

_TRIVIAL_TOLERANCE = 1e-6
"""Relative. Scores of the same clips differ by rounding from device to device."""


@dataclass(frozen=True, order=True)
class Cause:
    """A fact about the origin of runs that differs between two folders."""

    kind: str
    """configuration, seed, code, backend, versions, threads, device or data."""
    name: str
    a: str
    b: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.name} {self.a} against {self.b}"


def causes(a: RunRecord, b: RunRecord) -> list[Cause]:
    """Return the facts that differ between the origins of two runs, in the order of the record."""
    ours, theirs = dict(_facts(a)), dict(_facts(b))
    if setup(a) == setup(b):
        # Otherwise they differ because the configuration does.
        ours, theirs = ours | dict(_consequences(a)), theirs | dict(_consequences(b))
    keys = [*ours, *(key for key in theirs if key not in ours)]
    return [
        Cause(*key, _text(ours, key), _text(theirs, key)) for key in keys if not _alike(key, ours.get(key), theirs.get(key))
    ]


def setup(record: RunRecord) -> dict[str, Any]:
    """Return the fields of the configuration that say what is trained: all but the seed and the way of computing."""
    return {name: value for name, value in record.config.fields.items() if name not in ComputeConfig.model_fields}


def differing_setup(a: Iterable[RunRecord], b: Iterable[RunRecord]) -> list[str]:
    """Return the names of the fields in which what some run of `a` trains differs from what some run of `b` does."""
    ours, theirs = [setup(record) for record in a], [setup(record) for record in b]
    return [name for name in ours[0] if len({json.dumps(fields[name]) for fields in (*ours, *theirs)}) > 1] if ours else []


def _facts(record: RunRecord) -> Iterator[tuple[tuple[str, str], Any]]:
    """Yield every fact about the origin of a run's numbers, by kind and name."""
    sections = record.config.model_dump(mode="json", exclude={"seed"})
    for section, fields in sections.items():
        for name, value in fields.items():
            kind = "data" if section == "data" else "backend" if name in ComputeConfig.model_fields else "configuration"
            yield (kind, name), value
    yield ("seed", "seed"), record.config.seed
    for name, value in (record.device | record.provenance).items():
        if name not in _NO_CAUSES:
            kind = _KIND_OF_FACT.get(name, "device")
            named = f"{name} that ran" if name in ComputeConfig.model_fields else _NAMES.get(name, name)
            yield from (((kind, path), leaf) for path, leaf in _leaves(named, value))


def _consequences(record: RunRecord) -> Iterator[tuple[tuple[str, str], Any]]:
    """Yield what follows from configuration, code and data without training."""
    yield ("code", "num_params"), record.num_params
    yield ("code", "prediction_flops"), record.prediction_flops
    for predictor, scores in record.trivial.items():
        yield from ((("data", f"{metric} of {predictor}"), score) for metric, score in scores.items())


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(name if path == "libraries" else f"{path}.{name}", inner)
    else:
        yield path, value


def _alike(key: tuple[str, str], a: Any, b: Any) -> bool:
    if " of " in key[1] and isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=_TRIVIAL_TOLERANCE)
    return bool(a == b)


def _text(facts: Mapping[tuple[str, str], Any], key: tuple[str, str]) -> str:
    if key not in facts:
        return "not stated"
    value = facts[key]
    return value if isinstance(value, str) else json.dumps(value)
