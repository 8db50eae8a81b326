"""Names beside the points of a panel, without overlaps if there is room."""

import itertools

from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

# Where a name may stand beside its point, the best first: offset in points, and how the text is aligned.
_ASIDE = {1: "left", 0: "center", -1: "right"}
_UP = {1: "bottom", 0: "center", -1: "top"}
_BESIDE = [
    ((radius * x, radius * y), _ASIDE[x], _UP[y])
    for radius in (9, 16, 26, 38)
    for x, y in ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
]


def name_points(ax: Axes) -> None:
    """Move each annotation to the first place beside its point where it covers no point, name or the panel's first line."""
    texts = [text for text in ax.texts if isinstance(text, Annotation)]
    points = ax.transData.transform([text.xy for text in texts])
    # About half a marker's width in pixels.
    taken = [Bbox.from_extents(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    # The steps of the line go right, then up or down. Three pixels to either side.
    corners = ax.transData.transform(ax.lines[0].get_xydata())
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        taken.append(Bbox.from_extents(x0, y0 - 3, x1, y0 + 3))
        taken.append(Bbox.from_extents(x1 - 3, min(y0, y1), x1 + 3, max(y0, y1)))
    inside = ax.get_window_extent()
    for text in texts:
        tries = []
        for offset, aside, up in _BESIDE:
            text.xyann = offset
            text.set(ha=aside, va=up)
            box = text.get_window_extent()
            outside = box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1
            tries.append((box.count_overlaps(taken) + 2 * outside, offset, aside, up, box))
            if not tries[-1][0]:
                break
        # The first of those that cover least.
        _, text.xyann, aside, up, box = min(tries, key=lambda tried: tried[0])
        text.set(ha=aside, va=up)
        taken.append(box)
