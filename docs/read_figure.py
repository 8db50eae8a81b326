"""List the vector paths of a PDF page, or print one of them as CSV in the units of the figure's axes.

Needs pypdfium2 (pip install pypdfium2). First list the paths. Then print the tick marks, which are markers, to learn where they
lie on the page. Two ticks of each axis, written coordinate=value, turn coordinates of the page into data:

  python docs/read_figure.py paper.pdf 7 --list
  python docs/read_figure.py paper.pdf 7 --path 4
  python docs/read_figure.py paper.pdf 7 --path 12 --band --x 73.8=0 400.1=200 --y 58.3=32 251.3=128 --log y

Coordinates of the page count from its lower left corner, 72 to an inch. Small paths of one shape and colour are markers, and
each gives the centre of its bounding box; one of them may belong to a legend. Of a curve, the ends of its segments are printed.
"""

import argparse
import ctypes
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pypdfium2 import PdfDocument, PdfiumError, PdfObject, raw

Point = tuple[float, float]
MARKER_SIZE = 12.0  # the widest, in points of the page


@dataclass
class Shape:
    """A polyline, a filled polygon, or all markers of one outline and colour. Markers have their centres as points."""

    kind: str
    colour: str
    points: list[Point]
    outline: list[Point]


def shapes_on(pdf: Path, number: int) -> list[Shape]:
    """Return the shapes of a page in drawing order. Raise `ValueError` for a file that is no PDF or has no such page."""
    try:
        document = PdfDocument(pdf)
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {pdf}") from error
    except PdfiumError as error:
        raise ValueError(f"{pdf} cannot be read as a PDF: {error}") from error
    if not 1 <= number <= len(document):
        raise ValueError(f"{pdf} has no page {number}: its pages are 1 to {len(document)}")
    shapes: list[Shape] = []
    for item in document[number - 1].get_objects(filter=[raw.FPDF_PAGEOBJ_PATH]):
        filled, stroked, channels = ctypes.c_int(), ctypes.c_int(), [ctypes.c_uint() for _ in "rgba"]
        raw.FPDFPath_GetDrawMode(item, filled, stroked)
        (raw.FPDFPageObj_GetFillColor if filled.value else raw.FPDFPageObj_GetStrokeColor)(item, *channels)
        colour = "#" + "".join(f"{channel.value:02x}" for channel in channels[:3])
        for points in parts_of(item):
            left, right, bottom, top = limits(points)
            centre = (left + right) / 2, (bottom + top) / 2
            outline = [(x - centre[0], y - centre[1]) for x, y in points]
            if max(right - left, top - bottom) > MARKER_SIZE:
                shapes.append(Shape("polygon" if filled.value else "polyline", colour, points, []))
            elif like := next((s for s in shapes if s.colour == colour and same(s.outline, outline)), None):
                like.points.append(centre)
            else:
                shapes.append(Shape("marker", colour, [centre], outline))
    return shapes


def parts_of(item: PdfObject) -> Iterator[list[Point]]:
    """Yield the points of each connected part of a path."""
    matrix, container = item.get_matrix(), item.container
    while container:
        matrix, container = matrix.multiply(container.get_matrix()), container.container
    points: list[Point] = []
    curved, x, y = 0, ctypes.c_float(), ctypes.c_float()
    for segment in (raw.FPDFPath_GetPathSegment(item, i) for i in range(raw.FPDFPath_CountSegments(item))):
        kind = raw.FPDFPathSegment_GetType(segment)
        if kind == raw.FPDF_SEGMENT_MOVETO and points:
            yield points
            points = []
        curved = curved + 1 if kind == raw.FPDF_SEGMENT_BEZIERTO else 0
        if curved % 3 == 0:  # two control points precede the end of a Bézier segment
            raw.FPDFPathSegment_GetPoint(segment, x, y)
            points.append(tuple(round(place, 4) for place in matrix.on_point(x.value, y.value)))
    if points:
        yield points


def limits(points: list[Point]) -> tuple[float, float, float, float]:
    """Return left, right, bottom and top of the bounding box."""
    x, y = zip(*points, strict=True)
    return min(x), max(x), min(y), max(y)


def same(one: list[Point], other: list[Point]) -> bool:
    """Return True if two outlines agree within 0.01 points of the page."""
    return len(one) == len(other) and all(math.dist(a, b) < 0.01 for a, b in zip(one, other, strict=True))


def axis(ticks: list[str] | None, logarithmic: bool) -> Callable[[float], float]:
    """Return the function from a coordinate of the page to a value. Raise `ValueError` for two ticks that give no scale."""
    if not ticks:
        return float
    try:
        (at, low), (to, high) = (map(float, tick.split("=")) for tick in ticks)
        low, high = (math.log(low), math.log(high)) if logarithmic else (low, high)
        slope = (high - low) / (to - at)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{' '.join(ticks)} gives no scale: write two ticks such as 73.8=0 400.1=200 ({error})") from error
    return lambda place: math.exp(low + slope * (place - at)) if logarithmic else low + slope * (place - at)


def bounds(points: list[Point]) -> list[tuple[str, float, float]]:
    """Split a band's outline into (min or max, x, y). Leave out points that it lacks. Raise `ValueError` for another shape."""
    start = points.index(min(points))
    ring = [*points[start:], *points[: start + 1]]
    turn = ring.index(max(ring))
    ends = {ring[0][0], ring[turn][0]}
    halves = [[point for point in half if point[0] not in ends] for half in (ring[:turn], ring[:turn:-1])]
    if any(x >= next_x for half in halves for (x, _), (next_x, _) in pairwise(half)):
        raise ValueError("this path is no band: its outline does not go forth and back along x")
    forth, back = map(dict, halves)
    both = forth.keys() & back.keys()
    lower, upper = sorted((forth, back), key=lambda half: sum(half[x] for x in both))
    for x in both | ends:
        heights = [y for at, y in ring if at == x]
        lower[x], upper[x] = min(heights), max(heights)
    return [(name, x, y) for name, bound in (("min", lower), ("max", upper)) for x, y in sorted(bound.items())]


def rows_of(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the lines to print. Raise `ValueError` for a wrong argument."""
    shapes = shapes_on(arguments.pdf, arguments.page)
    if arguments.list:
        yield "path,kind,colour,points,left,right,bottom,top"
        for number, shape in enumerate(shapes, 1):
            places = ",".join(f"{place:.2f}" for place in limits(shape.points))
            yield f"{number},{shape.kind},{shape.colour},{len(shape.points)},{places}"
        return
    chosen = [(n, shape) for n, shape in enumerate(shapes, 1) if arguments.path in (str(n), shape.colour)]
    if len(chosen) != 1:
        which = f"paths {', '.join(str(n) for n, _ in chosen)} have it" if chosen else f"it has 1 to {len(shapes)}"
        raise ValueError(f"page {arguments.page} has no single path {arguments.path}: {which}")
    shape = chosen[0][1]
    if arguments.band and shape.kind != "polygon":
        raise ValueError(f"path {arguments.path} is a {shape.kind}: a band is a filled polygon")
    x_axis, y_axis = axis(arguments.x, "x" in arguments.log), axis(arguments.y, "y" in arguments.log)
    points = [(x_axis(x), y_axis(y)) for x, y in shape.points]
    yield "bound,x,y" if arguments.band else "x,y"
    for *bound, x, y in bounds(points) if arguments.band else points:
        yield ",".join([*bound, f"{x:.7g}", f"{y:.7g}"])


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pdf", type=Path)
    parser.add_argument("page", type=int, help="from 1")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--list", action="store_true", help="list the paths with their place on the page")
    action.add_argument("--path", metavar="PATH", help="print the path of this number, or of this colour ('#1f77b4')")
    for name in ("--x", "--y"):
        parser.add_argument(name, nargs=2, metavar="AT=VALUE", help=f"two ticks of the {name[2:]} axis; without, coordinates")
    parser.add_argument("--log", nargs="+", choices=["x", "y"], default=[], help="axes that are logarithmic")
    parser.add_argument("--band", action="store_true", help="split a filled band into its lowest and highest values by x")
    try:
        print("\n".join(rows_of(parser.parse_args(argv))))
    except ValueError as error:
        sys.exit(f"read_figure.py: {error}")


if __name__ == "__main__":
    main()
