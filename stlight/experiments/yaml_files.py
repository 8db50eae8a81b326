"""Read a YAML file strictly into a Pydantic type, with errors of one line. No other code of the suite reads YAML."""

import difflib
import re
import reprlib
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

from stlight.config import error_words

T = TypeVar("T")

# Far above what an experiment needs. More would take seconds or minutes to load, or exhaust the stack of the C parser.
_MAX_BYTES = 10**6
_MAX_NODES = 100_000
_MAX_DEPTH = 50
_MAX_INTEGER = 2**53
"""Up to this, a float holds every integer."""
_LONGEST_QUOTE = 400
"""Characters of a value that a message quotes."""
_LONGEST_MESSAGE = 1500


class ExperimentError(ValueError):
    """A file under `workflow` that cannot be used; the message names the file, the field and what would be right."""

    def __init__(self, message: str) -> None:
        # It may quote a value as long as the file, with any of Unicode's line breaks.
        super().__init__(_shortened(" ".join(message.splitlines()), _LONGEST_MESSAGE))


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
    content = parse(read_bytes(path), str(path))
    try:
        return TypeAdapter(type_).validate_python(content)
    except ValidationError as error:
        # If a value may have several types, Pydantic lists the errors of each; the deepest belongs to the type that was meant.
        # Infinity was meant as a number.
        located = [(_locate(detail, content), detail) for detail in error.errors(include_url=False)]
        place, deepest = max(
            located, key=lambda pair: (pair[0].count(".") + pair[0].count("["), pair[1]["type"] == "finite_number")
        )
        raise ExperimentError(f"{path}: {place or 'the file'}: {_words(deepest)}") from error


def read_bytes(path: Path) -> bytes:
    """Return the content of a file of up to 1 MB. Raises `ExperimentError`, in one line, if there is no such file."""
    try:
        # A pipe would make us wait, and a device may never end.
        if path.exists() and not path.is_file():
            raise ExperimentError(f"{path}: is not a file")
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ExperimentError(f"{path}: holds more than {_MAX_BYTES} bytes")
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read: {error.strerror}") from error
    return content


def parse(content: bytes, place: str) -> Any:
    """Return what a YAML text holds. Raises `ExperimentError`, in one line that begins with `place`, if it is not valid."""
    try:
        text = content.decode()
        _check_size(text)
        return yaml.load(text, Loader=_Loader)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        words = " ".join(str(error).split()).replace('"<unicode string>", ', "")
        raise ExperimentError(f"{place}: not valid YAML: {words}") from error


def _check_size(text: str) -> None:
    """Raise `YAMLError` for a text that nests too deeply, or that has too many nodes once its aliases are written out."""
    # Size of what each anchor stands for. Within itself it is endless.
    sizes: dict[str | None, int] = {}
    open_: list[tuple[str | None, int]] = []
    nodes = 0
    for event in yaml.parse(text, Loader=_SafeLoader):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            sizes[anchor] = nodes - before
        elif isinstance(event, yaml.NodeEvent):
            before, nodes = nodes, nodes + (sizes.get(event.anchor, 1) if isinstance(event, yaml.AliasEvent) else 1)
            if isinstance(event, yaml.CollectionStartEvent):
                open_.append((event.anchor, before))
                sizes[event.anchor] = _MAX_NODES
        if nodes > _MAX_NODES or len(open_) > _MAX_DEPTH:
            limits, mark = f"{_MAX_DEPTH} levels or {_MAX_NODES} values, aliases written out", event.start_mark
            raise yaml.YAMLError(f"it has more than {limits}, at line {mark.line + 1 if mark else '?'}")


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length // 2]} … {text[-length // 2 :]}"


class _Quoted:
    """A value whose `repr` is short, for messages that quote it."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __repr__(self) -> str:
        return (
            _shortened(repr(self._value), _LONGEST_QUOTE)
            if isinstance(self._value, str | int | float)
            else _SHORT.repr(self._value)
        )


_SHORT = reprlib.Repr()
_SHORT.maxdict = _SHORT.maxlist = 10
_SHORT.maxstring = _LONGEST_QUOTE


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
        return f"must be a mapping, got {_Quoted(detail['input'])!r}"
    if detail["type"] in ("missing", "union_tag_not_found"):
        return "is missing"
    if detail["type"] == "union_tag_invalid":
        return f"must be one of {detail['ctx']['expected_tags']}, got {_Quoted(detail['ctx']['tag'])!r}"
    return error_words({**detail, "input": _Quoted(detail["input"])})


class WrittenFloat(float):
    """A number that keeps the digits it was written with: 21.80 stays 21.80."""

    text: str


# Some installations of PyYAML lack the C parser, which is five times as fast.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]
    """Like YAML 1.1, but 1e-3 is a number, numbers keep their digits, and a repeated or non-text key is an error.

    Any value that cannot be constructed is a `ConstructorError` with its line.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
            # PyYAML's constructors fail in many ways for a date like 2020-13-45, or for a tag that does not fit.
            kind = str(node.tag).rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None, None, f"{_Quoted(node.value)!r} is no {kind}", node.start_mark
            ) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        if other := [key.value for key, _ in pairs if key.tag != "tag:yaml.org,2002:str"]:
            raise yaml.constructor.ConstructorError(None, None, f"the key {_Quoted(other[0])!r} is not text", node.start_mark)
        if repeated := [key for key, times in Counter(key.value for key, _ in pairs).items() if times > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"the key {repeated[0]!r} is given twice", node.start_mark)
        return dict(super().construct_mapping(node, deep))

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number = int(super().construct_yaml_int(node))
        if abs(number) > _MAX_INTEGER:
            raise yaml.constructor.ConstructorError(None, None, "an integer is beyond 2**53", node.start_mark)
        return number

    def construct_yaml_float(self, node: yaml.ScalarNode) -> WrittenFloat:
        number = WrittenFloat(super().construct_yaml_float(node))
        number.text = node.value
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_FLOAT = "tag:yaml.org,2002:float"
_Loader.add_constructor(_FLOAT, _Loader.construct_yaml_float)
_Loader.add_implicit_resolver(_FLOAT, re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))


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
