"""Write the JSON Schemas of the files under workflow, which editors use.

They are generated from the types that the files are read into.
"""

import argparse
import json
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own options."""
    parser.add_argument("--check", action="store_true", help="write nothing; exit with status 1 if a schema is stale")


def run(options: argparse.Namespace) -> int:
    """Write each schema that has changed. With `--check`, only name them, and return 1 if there are any."""
    from stlight.commands.common import tell

    folder = Path(options.workflow) / "schemas"
    schemas = {folder / f"{name}.schema.json": text for name, text in generate().items()}
    stale = [path for path, text in schemas.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if options.check:
            tell(f"{path}: stale; write it with `stlight schemas`")
        else:
            path.write_text(schemas[path], encoding="utf-8")
            tell(f"{path}: written")
    return 1 if stale and options.check else 0


def generate() -> dict[str, str]:
    """Return the JSON Schema of each kind of file, by name."""
    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema

    from stlight.analysis.errata import Erratum, QuotedSource
    from stlight.data.fetching.store import DataSources
    from stlight.experiments.plan import ExperimentFile
    from stlight.experiments.scaling import ScaleFile

    class WithoutTitles(GenerateJsonSchema):
        """Leaves out the titles of fields, which repeat their names."""

        def field_title_should_be_set(self, schema: Any) -> bool:
            return False

    types: dict[str, Any] = {
        "experiment": ExperimentFile,
        "scale": ScaleFile,
        "errata": list[Erratum],
        "quoted_sources": list[QuotedSource],
        "data_sources": DataSources,
    }
    schemas = {name: TypeAdapter(type_).json_schema(schema_generator=WithoutTitles) for name, type_ in types.items()}
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in schemas.items()}
