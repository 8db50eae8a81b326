"""Verbs about the suite's inputs: fetch, prepare and doctor for data sets, schemas for the files under workflow."""

import argparse
import json
from typing import Any

from stlight.commands.common import argument, tell
from stlight.registry.dataset_specs import DATASETS


@argument("dataset", help=f"{', '.join(DATASETS)} or all")
@argument("--accept", action="store_true", help="accept existing files as they are and record their checksums")
def fetch(options: argparse.Namespace) -> int:
    """Download a data set, or verify the files that are there. If one of all fails, go on with the others and return 1."""
    from stlight.data.clips import DataError
    from stlight.data.fetching.store import DatasetStore

    store = DatasetStore(options.workflow, options.data_root)
    status = 0
    for dataset in DATASETS if options.dataset == "all" else [options.dataset]:
        if options.dataset == "all" and not store.sources(dataset):
            tell(f"{dataset}: skipped because data_sources.yaml has no address for it")
            continue
        try:
            store.fetch(dataset, accept=options.accept)
        except DataError as error:
            tell(f"stlight: {dataset}: {error}")
            status = 1
    return status


@argument("dataset", help=f"{', '.join(DATASETS)} or the folder of a custom data set")
@argument("source", help="files, or embedded for the digits of mmnist that come with a package")
def prepare(options: argparse.Namespace) -> None:
    """Read, check and split a data set once, before training."""
    from stlight.data.prepare import prepare

    print(prepare(options.dataset, options.source, options.data_root))


def doctor(options: argparse.Namespace) -> int:
    """Show which data exists, which is wrong, and which runs wait for it. Return 1 if the chosen scale lacks something."""
    from stlight.data.fetching.inventory import print_inventory

    return print_inventory(options.workflow, options.data_root, options.scale)


def schemas(options: argparse.Namespace) -> None:
    """Write the JSON Schemas of files under workflow and config, which editors use, and of what `status --json` prints."""
    for name, text in generate().items():
        path = options.workflow / "schemas" / f"{name}.schema.json"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            tell(f"{path}: written")


def generate() -> dict[str, str]:
    """Return the JSON Schema of each kind of file, and of the output of `status --json`, from its type, by name."""
    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema

    from stlight.analysis.errata import Erratum, QuotedSource
    from stlight.costs.overview import Overview
    from stlight.data.fetching.store import DataSources
    from stlight.experiments.plan import ExperimentFile
    from stlight.experiments.scaling import ScaleFile
    from stlight.workflow_support import Settings

    class WithoutTitles(GenerateJsonSchema):
        """Leaves out the titles of fields, which repeat their names."""

        def field_title_should_be_set(self, schema: Any) -> bool:
            return False

    types: dict[str, Any] = {
        "config": Settings,
        "experiment": ExperimentFile,
        "scale": ScaleFile,
        "errata": list[Erratum],
        "quoted_sources": list[QuotedSource],
        "data_sources": DataSources,
        "status": Overview,
    }
    generated = {name: TypeAdapter(type_).json_schema(schema_generator=WithoutTitles) for name, type_ in types.items()}
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in generated.items()}
