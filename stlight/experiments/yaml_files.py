"""The files under `workflow` as they are written: YAML read strictly, checked against a closed schema, numbers as printed."""

import difflib
import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml


class ExperimentError(ValueError):
    """A file under `workflow` that cannot be used; the message names the file, the place in it and what would be right."""


def quantity(printed: str) -> float:
    """A published number as printed, which may carry a unit: "14.77", or "32.9M" for 32.9e6."""
    number, unit = (printed[:-1], printed[-1]) if printed[-1] in _UNITS else (printed, "")
    return float(number) * _UNITS.get(unit, 1)


def half_unit(printed: str) -> float:
    """Half of the last digit printed: no nearer than that does a number as printed say what was rounded to it."""
    digits = len(printed.rstrip("KMG").partition(".")[2])
    return 0.5 * _UNITS.get(printed[-1], 1) * 10.0**-digits


_UNITS = {"K": 1e3, "M": 1e6, "G": 1e9}
_QUANTITY = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?[KMG]?")


@cache
def _schema(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def read_yaml(path: Path, schema: Path) -> Any:
    """The content of a file that fits its schema. Raises `ExperimentError`, in one line, naming the file and the place."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except UnicodeDecodeError as error:
        raise ExperimentError(f"{path}: not UTF-8 text: {error}") from error
    except yaml.YAMLError as error:
        raise ExperimentError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    best = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(_schema(schema)).iter_errors(content))
    if best is not None:
        raise ExperimentError(f"{path}: {best.json_path.removeprefix('$').removeprefix('.') or 'the file'}: {best.message}")
    return content


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as text; here every way of writing a number gives a number, and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if other := [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:str"]:
            raise yaml.constructor.ConstructorError(None, None, f"the key {other[0]!r} is not text", node.start_mark)
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"the key {repeated[0]!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def published_entries(path: Path, content: dict[str, Any], metrics: set[str]) -> list[dict[str, Any]]:
    """The published entries with their metrics as the file prints them, so that 21.80 stays 21.80."""
    printed = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader).get("published", [])
    entries: list[dict[str, Any]] = []
    places = set()
    for number, (entry, text) in enumerate(zip(content.get("published", []), printed, strict=True)):
        for metric in metrics & entry.keys():
            if not _QUANTITY.fullmatch(text[metric]):
                words = f"must be a number, which may end in K, M or G, got {text[metric]!r}"
                raise ExperimentError(f"{path}: published[{number}].{metric}: {words}")
            place = (metric, *sorted((k, v) for k, v in text.items() if k not in metrics and k != "source"))
            if place in places:
                raise ExperimentError(f"{path}: published[{number}].{metric}: this cell is published twice")
            places.add(place)
        entries.append(entry | {metric: text[metric] for metric in metrics & entry.keys()})
    return entries


def nearest(name: str, known: Iterable[str]) -> str:
    """The rest of a sentence about an unknown name: the known one most like it, or all of them."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(known))}"


def as_text(value: Any) -> str:
    """A value as it stands in names and messages: 0.003, 10000, true."""
    return f"{value:.12g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
