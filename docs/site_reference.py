"""Sphinx extension that takes pages from files outside docs/, and appends what the code says to those of docs/reference/."""

import argparse
import inspect
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from stlight import cli
from stlight.config import RunConfig
from stlight.experiments.plan import ExperimentFile
from stlight.experiments.scaling import ScaleFile
from stlight.workflow_support import Settings

Schema = Mapping[str, Any]

DOCS = Path(__file__).resolve().parent
REPOSITORY = DOCS.parent

ELSEWHERE = {
    "index": "README.md",
    "contributing": "CONTRIBUTING.md",
    "changelog": "CHANGELOG.md",
    "security": "SECURITY.md",
    "reference/results": "results/README.md",
    "reference/settings": "config/README.md",
}
"""Pages whose text is in another file of the repository."""

SECTIONS = ("ModelConfig", "DataConfig", "TrainingConfig")
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
ESCAPED = str.maketrans({"|": r"\|", "\n": " "})


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(cell.translate(ESCAPED) for cell in line)} |\n" for line in lines)


def verb_parsers() -> Mapping[str, argparse.ArgumentParser]:
    """Return the parser of each verb of `stlight`."""
    return next(action for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction)).choices


def command_line() -> str:
    """Return a section for each verb of `stlight`, as its parser and its docstring have them."""
    arguments = {name: [a for a in parser._actions if a.dest != "help"] for name, parser in verb_parsers().items()}
    # `run` has the settings of the workflow instead of the options of one job.
    shared = [a for a in arguments["schemas"] if all(a in others for name, others in arguments.items() if name != "run")]
    parts = []
    for name, own in arguments.items():
        parts += [f"## stlight {name}\n", inspect.getdoc(cli.VERBS[name]) or ""]
        if rows := [argument_row(a) for a in own if a not in shared or name == "run"]:
            parts.append(table(("argument", "meaning"), rows))
    parts += ["## Options of every verb but run\n", table(("option", "meaning"), map(argument_row, shared))]
    return "\n\n".join(parts)


def argument_row(action: argparse.Action) -> tuple[str, str]:
    """Return a table's row about one argument."""
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    name, meaning = ", ".join(action.option_strings), (action.help or "").replace("<", r"\<")
    if not name:
        return f"`{action.metavar or action.dest}{' …' if action.nargs in ('+', '*') else ''}`", meaning
    repeated = " …" if action.nargs in ("+", "*") else ""
    return f"`{name}{'' if action.nargs == 0 else f' {value}{repeated}'}`", meaning


def run_fields() -> str:
    """Return the keys of `--config`, and the fields of a run's configuration by section."""
    schema = RunConfig.model_json_schema()
    # Users state it as `data_sets` of an experiment.
    del schema["$defs"]["DataConfig"]["properties"]["custom_shape"]
    sections = [("Snakemake's `--config`", Settings.model_json_schema())]
    sections += [(f"Fields of a run: {name.removesuffix('Config').lower()}", schema["$defs"][name]) for name in SECTIONS]
    return "\n".join(f"## {title}\n\n{fields(section)}" for title, section in sections)


def file_keys(schema: Schema) -> str:
    """Return the keys of a YAML file, and a section for each type that they use."""
    claims = [definition for name, definition in schema["$defs"].items() if name.endswith("Claim")]
    common = shared_fields(claims)
    parts = [f"## Keys\n\n{fields(schema)}"]
    if common:
        words = "Every claim has these keys, and those of its kind, which the sections below show."
        parts.append(f"## Claims\n\n{words}\n\n{rows(common, claims[0]['required'])}")
    for name, definition in schema["$defs"].items():
        kept = common if definition in claims else {}
        own = {key: field for key, field in definition.get("properties", {}).items() if key not in kept}
        body = rows(own, definition.get("required", ())) if own else type_of(definition) + "\n"
        parts.append(f"## {name}\n\n{definition.get('description', '')}\n\n{body}")
    return "\n".join(parts)


def shared_fields(definitions: Iterable[Schema]) -> Schema:
    """Return the properties that all definitions have alike."""
    first, *others = [d["properties"] for d in definitions] or [{}]
    return {name: field for name, field in first.items() if all(other.get(name) == field for other in others)}


def fields(section: Schema) -> str:
    """Return what a section is, and a table of its fields."""
    return f"{section.get('description', '')}\n\n{rows(section['properties'], section.get('required', ()))}"


def rows(properties: Schema, required: Iterable[str]) -> str:
    """Return a table of fields: name, type, default and meaning."""
    found = []
    for name, field in properties.items():
        default = "required" if name in required else "" if field.get("default") is None else code(field["default"])
        found.append((f"`{name}`", type_of(field), default, field.get("description", "")))
    return table(("key", "type", "default", "meaning"), found)


def code(value: Any) -> str:
    """Return a value as YAML writes it, between backticks."""
    return (
        "`{…}`" if isinstance(value, dict) else f"`{value}`" if value and isinstance(value, str) else f"`{json.dumps(value)}`"
    )


def type_of(field: Schema) -> str:
    """Return the type of a field in words, with links to the sections of other types."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in field or "const" in field:
        return ", ".join(map(code, field.get("enum", [field.get("const")])))
    if alternatives := field.get("anyOf") or field.get("oneOf"):
        return " or ".join(type_of(each) for each in alternatives if each.get("type") != "null")
    kind = field.get("type", "any value")
    if kind == "array":
        return f"list of {type_of(field['items'])}" if "items" in field else "list"
    if kind == "object":
        values = field.get("additionalProperties") or next(iter(field.get("patternProperties", {}).values()), {})
        return f"map to {type_of(values)}"
    return " ".join([kind, *(f"{sign} {field[key]:g}" for key, sign in BOUNDS.items() if key in field)])


GENERATED: dict[str, Callable[[], str]] = {
    "reference/cli": command_line,
    "reference/configuration": run_fields,
    "reference/experiment-file": lambda: file_keys(ExperimentFile.model_json_schema()),
    "reference/scale-file": lambda: file_keys(ScaleFile.model_json_schema()),
}
"""Functions that return the generated part of a page, by the page's name."""


def read_page(app: Any, page: str, source: list[str]) -> None:
    """Change a page's Markdown when Sphinx reads it: take it from a file elsewhere, mend links, append the generated part."""
    path = DOCS / f"{page}.md"
    if page in ELSEWHERE:
        path = REPOSITORY / ELSEWHERE[page]
        # What the page itself has is for readers of the repository, but for the navigation.
        source[0] = path.read_text() + "\n\n" + source[0].partition("<!-- site -->")[2]
        app.env.note_dependency(str(path), docname=page)
    source[0] = relinked(source[0], path.parent, (DOCS / page).parent)
    if page in GENERATED:
        source[0] += "\n\n" + GENERATED[page]()


def relinked(text: str, folder: Path, site_folder: Path) -> str:
    """Return Markdown with links relative to `site_folder`, and to the site's page of a file if it has one."""
    pages = {REPOSITORY / file: DOCS / f"{page}.md" for page, file in ELSEWHERE.items()}

    def relink(match: re.Match[str]) -> str:
        target = (folder / match[1]).resolve()
        return f"]({os.path.relpath(pages.get(target, target), site_folder)}"

    return re.sub(r"\]\(([^)#:\s]+)(?=[)#])", relink, text)


def setup(app: Any) -> dict[str, bool]:
    """Register the extension with Sphinx."""
    app.connect("source-read", read_page)
    return {"parallel_read_safe": True}
