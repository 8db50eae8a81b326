"""Read a YAML file strictly into a Pydantic type, with errors of one line. No other code of the suite reads YAML."""

import difflib
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

from stlight.config import error_words

T = TypeVar("T")


class ExperimentError(ValueError):
    """A file under `workflow` that cannot be used; the message names the file, the field and what would be right."""


class FileModel(BaseModel):
    """A mapping in a YAML file. Refuses unknown keys with the nearest known one, and values of another type than declared."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, content: Any) -> Any:
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for key in content if isinstance(content, dict) else ():
            check_known("unknown key", key, known)
        return content


def read_file(path: Path, type_: type[T]) -> T:
    """Read a YAML file into a type. Raises `ExperimentError`, in one line, naming file, field and value."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ExperimentError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    try:
        return TypeAdapter(type_).validate_python(content)
    except ValidationError as error:
        # If a value may have several types, Pydantic lists the errors of each; the deepest belongs to the type that was meant.
        located = [(_locate(detail, content), detail) for detail in error.errors(include_url=False)]
        place, deepest = max(located, key=lambda pair: pair[0].count(".") + pair[0].count("["))
        raise ExperimentError(f"{path}: {place or 'the file'}: {_words(deepest)}") from error


def _locate(detail: ErrorDetails, content: Any) -> str:
    """Return the path of the value at fault in the file, like `claims[0] (best_mse).better.this`."""
    place, here = "", content
    location = detail["loc"][:-2] if detail["loc"][-1:] == ("[key]",) else detail["loc"]
    # Pydantic puts the names of types and of union members between the keys: what is not in the file is one of these.
    for part in location:
        if isinstance(here, dict) and part in here:
            place, here = f"{place}.{part}", here[part]
        elif isinstance(here, list) and isinstance(part, int):
            here = here[part]
            name = here.get("id") if isinstance(here, dict) else None
            place += f"[{part}] ({name})" if isinstance(name, str) else f"[{part}]"
    if detail["type"] == "missing":
        place += f".{location[-1]}"
    if detail["type"].startswith("union_tag") and isinstance(here, dict):
        place += ".kind"
    return place.removeprefix(".")


def _words(detail: ErrorDetails) -> str:
    if detail["type"] == "union_tag_not_found" and not isinstance(detail["input"], dict):
        return f"must be a mapping, got {detail['input']!r}"
    if detail["type"] in ("missing", "union_tag_not_found"):
        return "is missing"
    if detail["type"] == "union_tag_invalid":
        return f"must be one of {detail['ctx']['expected_tags']}, got {detail['ctx']['tag']!r}"
    return error_words(detail)


class WrittenFloat(float):
    """A number that keeps the digits it was written with: 21.80 stays 21.80."""

    text: str


# Some installations of PyYAML lack the C parser, which is five times as fast.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]
    """Like YAML 1.1, but 1e-3 is a number, numbers keep their digits, and a repeated or non-text key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if other := [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:str"]:
            raise yaml.constructor.ConstructorError(None, None, f"the key {other[0]!r} is not text", node.start_mark)
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"the key {repeated[0]!r} is given twice", node.start_mark)
        return dict(super().construct_mapping(node, deep))

    def construct_yaml_float(self, node: yaml.ScalarNode) -> WrittenFloat:
        number = WrittenFloat(super().construct_yaml_float(node))
        number.text = node.value
        return number


_FLOAT = "tag:yaml.org,2002:float"
_Loader.add_constructor(_FLOAT, _Loader.construct_yaml_float)
_Loader.add_implicit_resolver(_FLOAT, re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))


def parse_scalar(text: str) -> Any:
    """Return a single value as a YAML file would have it: a number, true or false, or else a text."""
    return yaml.load(text, Loader=_Loader)


def check_known(words: str, name: str, known: Collection[str]) -> str:
    """Return a known name. For an unknown one, raise `ExperimentError`: these words, the name and the nearest known one."""
    if name not in known:
        close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
        nearest = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"
        raise ExperimentError(f"{words} {name!r}; {nearest}")
    return name


def as_text(value: Any) -> str:
    """Return a value as it stands in names and messages: 0.003, 10000, true."""
    return f"{value:.12g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def state(fields: dict[str, Any]) -> str:
    """Return fields or coordinates as text: k1 = 3, skip = true."""
    return ", ".join(f"{name} = {as_text(value)}" for name, value in fields.items())
