"""The drawing of the rooms matches the code."""

import importlib.util
import json
import xml.etree.ElementTree as ET

from tests.conftest import REPOSITORY

spec = importlib.util.spec_from_file_location("draw_architecture", REPOSITORY / "docs" / "draw_architecture.py")
drawing = importlib.util.module_from_spec(spec)
spec.loader.exec_module(drawing)


IMPORTS = drawing.imports(REPOSITORY / "stlight")


def edges_in(picture):
    description = ET.parse(picture).find(".//{http://purl.org/dc/elements/1.1/}description")
    return {tuple(edge) for edge in json.loads(description.text)}


def test_the_picture_shows_the_imports_of_the_code():
    stale = "redraw it with `python docs/draw_architecture.py`"
    assert edges_in(REPOSITORY / "docs" / "architecture.svg") == IMPORTS, stale


def test_a_drawing_keeps_every_import_and_is_reproducible(tmp_path):
    edges = {("cli", "model"), ("model", "config"), ("cli", "config")}
    for name in ("one.svg", "two.svg"):
        drawing.draw(edges, tmp_path / name)
    assert edges_in(tmp_path / "one.svg") == edges
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert drawing.essential(edges) == {("cli", "model"), ("model", "config")}


def test_every_room_is_in_the_table_of_the_page():
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    rooms = {room for edge in IMPORTS for room in edge}
    missing = {room for room in rooms if f"| `{room}" not in page}
    assert not missing, f"docs/architecture.md has no line for {', '.join(sorted(missing))}"
