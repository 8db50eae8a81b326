"""docs/read_figure.py reads back the numbers of a figure that matplotlib drew."""

import csv
import importlib.util

import numpy as np
import pypdfium2
import pytest
from matplotlib import pyplot as plt
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve

from tests.conftest import REPOSITORY

spec = importlib.util.spec_from_file_location("read_figure", REPOSITORY / "docs" / "read_figure.py")
reading = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reading)

EPOCHS = np.arange(200)
LACKING = 133
"""The epoch at which the black band's lower bound has no point."""
X_TICKS, Y_TICKS = [0, 50, 100, 150, 200], [32, 64, 128]


def band(seed):
    low = 24 + 110 * np.exp(-EPOCHS / 30) + np.random.default_rng(seed).uniform(0, 4, 200)
    return low, low + np.random.default_rng(seed).uniform(0.5, 30, 200)


BANDS = {"#1f77b4": band(0), "#ff7f0e": band(1)}
LINE = [(0.0, 140.0), (12.5, 61.0), (80.0, 45.5), (199.0, 30.25)]
MARKERS = {"#9467bd": LINE, "#d62728": [(x + 3, y * 1.1) for x, y in LINE]}
CURVE = [(20.0, 40.0), (40.0, 90.0), (50.0, 40.0), (60.0, 40.0), (90.0, 30.0), (100.0, 100.0), (120.0, 60.0)]


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """Draw a figure on page 1. Page 2 includes the figure at half its size, as LaTeX does."""
    folder = tmp_path_factory.mktemp("paper")
    figure, axes = plt.subplots()
    for colour, (low, high) in BANDS.items():
        axes.fill_between(EPOCHS, low, high, color=colour, alpha=0.3)
    low, high = band(2)
    axes.fill([*np.delete(EPOCHS, LACKING), *EPOCHS[::-1]], [*np.delete(low, LACKING), *high[::-1]], color="#123456")
    axes.fill([150, 190, 170, 195], [100, 80, 60, 120], color="#654321")
    axes.plot(*zip(*LINE, strict=True), color="#2ca02c")
    axes.scatter(*zip(*MARKERS["#9467bd"], strict=True), color="#9467bd", marker="^")
    axes.plot(*zip(*MARKERS["#d62728"], strict=True), "s", color="#d62728")
    axes.add_patch(PathPatch(Curve(CURVE, [Curve.MOVETO] + [Curve.CURVE4] * 6), fill=False, edgecolor="#e377c2"))
    axes.set_yscale("log", base=2)
    axes.set(xticks=X_TICKS, yticks=Y_TICKS, ylim=(16, 200))
    axes.minorticks_off()
    figure.savefig(folder / "figure.pdf")
    plt.close(figure)
    document = pypdfium2.PdfDocument(folder / "figure.pdf")
    included = document.page_as_xobject(0, document).as_pageobject()
    included.set_matrix(pypdfium2.PdfMatrix().scale(0.5, 0.5).translate(100, 300))
    page = document.new_page(612, 792)
    page.insert_obj(included)
    page.gen_content()
    document.save(folder / "paper.pdf")
    return folder / "paper.pdf"


@pytest.fixture
def read(paper, capsys):
    def rows(*arguments):
        reading.main([str(paper), *map(str, arguments)])
        return list(csv.DictReader(capsys.readouterr().out.splitlines()))

    return rows


@pytest.fixture
def scale(read):
    def options(page):
        """Return the options that scale the axes, from the tick marks of the page."""
        ticks = [path for path in read(page, "--list") if (path["kind"], path["colour"]) == ("marker", "#000000")]
        along_x = next(path["path"] for path in ticks if path["bottom"] == path["top"])
        along_y = next(path["path"] for path in ticks if path["left"] == path["right"])
        x, y = ([row[name] for row in read(page, "--path", path)] for name, path in (("x", along_x), ("y", along_y)))
        assert (len(x), len(y)) == (len(X_TICKS), len(Y_TICKS))
        x_options = ["--x", f"{x[0]}={X_TICKS[0]}", f"{x[-1]}={X_TICKS[-1]}"]
        return [*x_options, "--y", f"{y[0]}={Y_TICKS[0]}", f"{y[-1]}={Y_TICKS[-1]}", "--log", "y"]

    return options


def numbers(rows, bound=None):
    return np.array([(float(row["x"]), float(row["y"])) for row in rows if row.get("bound") == bound])


@pytest.mark.parametrize("page", [1, 2])
@pytest.mark.parametrize("colour", BANDS)
def test_a_band_gives_its_lowest_and_highest_values(page, colour, read, scale):
    rows = read(page, "--path", colour, "--band", *scale(page))
    for bound, values in zip(("min", "max"), BANDS[colour], strict=True):
        found = numbers(rows, bound)
        assert found[:, 0] == pytest.approx(EPOCHS, abs=1e-2)
        assert found[:, 1] == pytest.approx(values, rel=1e-3)


def test_a_point_that_is_not_drawn_is_left_out_of_its_bound_alone(read, scale):
    rows = read(1, "--path", "#123456", "--band", *scale(1))
    for bound, values, epochs in zip(("min", "max"), band(2), (np.delete(EPOCHS, LACKING), EPOCHS), strict=True):
        found = numbers(rows, bound)
        assert list(found[:, 0].round()) == list(epochs)
        assert found[:, 1] == pytest.approx(values[epochs], rel=1e-3)


@pytest.mark.parametrize("page", [1, 2])
@pytest.mark.parametrize(
    ("colour", "kind", "points"),
    [("#2ca02c", "polyline", LINE), *((colour, "marker", points) for colour, points in MARKERS.items())],
)
def test_a_line_and_markers_give_their_points(page, colour, kind, points, read, scale):
    (path,) = (path for path in read(page, "--list") if path["colour"] == colour)
    assert (path["kind"], path["points"]) == (kind, str(len(points)))
    found = numbers(read(page, "--path", path["path"], *scale(page)))
    assert found[:, 0] == pytest.approx(np.array(points)[:, 0], rel=1e-3, abs=1e-2)
    assert found[:, 1] == pytest.approx(np.array(points)[:, 1], rel=1e-3)


def test_a_curve_gives_the_ends_of_its_segments(read, scale):
    assert numbers(read(1, "--path", "#e377c2", *scale(1))) == pytest.approx(np.array(CURVE[::3]), rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["3", "--list"], "paper.pdf has no page 3: its pages are 1 to 2"),
        (["0", "--list"], "paper.pdf has no page 0: its pages are 1 to 2"),
        (["1", "--path", "99"], "page 1 has no single path 99: it has 1 to "),
        (["1", "--path", "#000000"], "page 1 has no single path #000000: paths "),
        (["1", "--path", "#2ca02c", "--band"], "path #2ca02c is a polyline: a band is a filled polygon"),
        (["1", "--path", "#654321", "--band"], "is no band: its outline does not go forth and back along x"),
        (["1", "--path", "1", "--x", "5=0", "5=1"], "5=0 5=1 gives no scale"),
        (["1", "--path", "1", "--x", "5=0", "6"], "5=0 6 gives no scale"),
        (["1", "--path", "1", "--y", "5=0", "6=1", "--log", "y"], "5=0 6=1 gives no scale"),
    ],
)
def test_a_mistake_is_reported_in_one_line(arguments, words, paper):
    with pytest.raises(SystemExit) as stop:
        reading.main([str(paper), *arguments])
    assert words in stop.value.code
    assert "\n" not in stop.value.code


@pytest.mark.parametrize(("name", "words"), [("text.pdf", "cannot be read as a PDF"), ("none.pdf", "there is no file")])
def test_a_file_that_is_not_a_pdf_is_reported_in_one_line(name, words, tmp_path):
    (tmp_path / "text.pdf").write_text("not a PDF")
    with pytest.raises(SystemExit) as stop:
        reading.main([str(tmp_path / name), "1", "--list"])
    assert words in stop.value.code
    assert "\n" not in stop.value.code
