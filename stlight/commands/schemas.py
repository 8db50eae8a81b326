"""The verb schemas."""

import argparse
import json
from typing import Any

from stlight.commands.common import tell


def schemas(options: argparse.Namespace) -> None:
    """Write the JSON Schemas of the files under workflow, which editors use."""
    for name, text in generate().items():
        path = options.workflow / "schemas" / f"{name}.schema.json"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            tell(f"{path}: written")


def generate() -> dict[str, str]:
    """Return the JSON Schema of each kind of file, by name, from the type that it is read into."""
    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema

    from stlight.analysis.errata import Erratum, QuotedSource
    from stlight.data.fetching.store import DataSources
    from stlight.experiments.experiment_file import ExperimentFile
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
    generated = {name: TypeAdapter(type_).json_schema(schema_generator=WithoutTitles) for name, type_ in types.items()}
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in generated.items()}
