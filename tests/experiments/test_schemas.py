"""The JSON Schemas for editors agree with the types that the files are read into."""

import json

import jsonschema
import pytest
import yaml

from stlight.cli import main
from stlight.commands.inputs import generate
from tests.conftest import WORKFLOW

FILES = {"config": "../config/config.yaml", "experiment": "experiments/*.yaml", "scale": "scales/*.yaml"} | {
    name: f"{name}.yaml" for name in ("errata", "quoted_sources", "data_sources")
}


def test_the_committed_schemas_are_up_to_date():
    committed = {path.name.removesuffix(".schema.json"): path.read_text() for path in (WORKFLOW / "schemas").iterdir()}
    assert committed == generate(), "write them with `stlight schemas`"


def test_only_stale_schemas_are_written(workflow, capfd):
    path = workflow / "schemas" / "scale.schema.json"
    path.write_text("{}")
    assert main(["schemas", "--workflow", str(workflow)]) == 0
    assert capfd.readouterr().err == f"{path}: written\n"
    assert path.read_text() == generate()["scale"]


@pytest.mark.parametrize("name", FILES)
def test_the_schemas_accept_the_files_and_refuse_unknown_keys(name):
    schema = json.loads(generate()[name])
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    paths = list(WORKFLOW.glob(FILES[name]))
    assert paths
    for path in paths:
        content = yaml.safe_load(path.read_text())
        assert list(validator.iter_errors(content)) == [], path
        entry = content[0] if isinstance(content, list) else content
        entry["colour"] = "red"
        assert not validator.is_valid(content), path
