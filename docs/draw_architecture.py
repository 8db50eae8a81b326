"""Draw docs/architecture.svg from the code: the rooms of `stlight/` in layers, with an arrow to each room that a room imports.

The picture leaves out arrows that follow from others. The SVG's metadata lists all imports; a test compares them with the code.
"""

import ast
import json
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path
from statistics import mean

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve

Edges = set[tuple[str, str]]


def imports(package: Path) -> Edges:
    """Return (importing room, imported room) for each import between two rooms; a room is a folder or module of the package."""
    edges = set()
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                start = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                modules = [start + alias.name for alias in node.names]
                edges |= {(room, module.split(".")[1]) for module in modules if module.startswith("stlight.")}
    return {(a, b) for a, b in edges if a != b and not a.startswith("__")}


def layers_of(edges: Edges) -> dict[str, int]:
    """Return each room's layer from the top: one below the lowest room that imports it. Raise `CycleError` for a cycle."""
    importers = {room: {a for a, b in edges if b == room} for edge in edges for room in edge}
    layers: dict[str, int] = {}
    for room in TopologicalSorter(importers).static_order():
        layers[room] = max((layers[a] + 1 for a in importers[room]), default=0)
    return dict(sorted(layers.items()))


def essential(edges: Edges) -> Edges:
    """Drop each edge whose end is also reached by a longer path."""

    def reachable(start: str) -> set[str]:
        return {start}.union(*(reachable(b) for a, b in edges if a == start))

    return {(a, b) for a, b in edges if not any(b in reachable(c) for d, c in edges if d == a and c != b)}


def draw(edges: Edges, path: Path) -> None:
    """Write the picture to `path`. The same edges give the same SVG, byte for byte."""
    layers, ways = layers_of(edges), []
    rows = [[room for room in layers if layers[room] == layer] for layer in range(max(layers.values()) + 1)]
    for a, b in sorted(essential(edges)):
        # A long edge takes a slot in each layer between, so that it passes beside the boxes.
        bends = {layer: f"{a} to {b} at {layer}" for layer in range(layers[a] + 1, layers[b])}
        for layer, bend in bends.items():
            rows[layer].append(bend)
        ways.append([a, *bends.values(), b])
    neighbours = [(one, two) for way in ways for one, two in pairwise(way)]
    x = {name: i - len(row) / 2 for row in rows for i, name in enumerate(row)}
    for _ in range(20):
        for row in [*rows, *reversed(rows)]:
            row.sort(key=lambda name: mean([x[b if a == name else a] for a, b in neighbours if name in (a, b)]))
            x |= {name: i - (len(row) - 1) / 2 for i, name in enumerate(row)}
    mpl.rcParams |= {"svg.hashsalt": "stlight", "svg.fonttype": "none"}
    figure, axes = plt.subplots(figsize=(8, 0.8 * len(rows)), layout="constrained")
    y = {name: -float(layer) for layer, row in enumerate(rows) for name in row}
    for start, *rest in ways:
        points = [(x[start], y[start] - 0.22)]
        for name in rest:
            (x0, y0), (x1, y1) = points[-1], (x[name], y[name] + (0.27 if name == rest[-1] else 0.0))
            points += [(x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2), (x1, y1)]
        curve = Curve(points, [Curve.MOVETO] + [Curve.CURVE4] * (len(points) - 1))
        axes.add_patch(PathPatch(curve, fill=False, color="#56708a"))
        axes.plot(*points[-1], marker="v", color="#56708a")
    for room in layers:
        box = {"boxstyle": "round,pad=0.5", "facecolor": "#e8f0f8"}
        axes.text(x[room], y[room], room, ha="center", va="center", bbox=box)
    axes.set(xlim=(min(x.values()) - 0.6, max(x.values()) + 0.6), ylim=(-len(rows) + 0.5, 0.5))
    axes.axis("off")
    figure.savefig(path, format="svg", metadata={"Date": None, "Description": json.dumps(sorted(edges))})
    plt.close(figure)


if __name__ == "__main__":
    draw(imports(Path(__file__).parents[1] / "stlight"), Path(__file__).with_name("architecture.svg"))
