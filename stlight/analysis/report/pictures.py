"""Embed pictures in the page, smaller than the files beside it, so that the page stays below two megabytes."""

import base64
import io
import re
from pathlib import Path

from markupsafe import Markup
from PIL import Image

_WIDEST = 900
"""Pixels across an example picture: the width of the page's column."""

_MOST_SVG = 80_000
"""Characters of a drawing, beyond which its PNG is smaller."""

_UNSEEN = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL)
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")


def embed(path: Path) -> Markup:
    """Return a data URI of a picture, for an attribute in double quotes: an SVG with less digits, or a PNG as WebP,
    which also replaces a very large SVG beside it."""
    if path.suffix == ".svg":
        # A percent sign and a hash have a meaning in an address.
        text = smaller_svg(path.read_text()).replace("&", "&amp;").replace("%", "%25").replace("#", "%23").replace('"', "%22")
        if len(text) < _MOST_SVG or not (raster := path.with_suffix(".png")).exists():
            return Markup(f"data:image/svg+xml,{text}")
        path = raster
    with Image.open(path) as picture:
        shown = picture.convert("RGB")
    shown.thumbnail((_WIDEST, 16 * _WIDEST))
    content = io.BytesIO()
    shown.save(content, "WEBP", quality=40, method=6)
    return Markup(f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}")


def smaller_svg(text: str) -> str:
    """Return an SVG that looks the same: five significant digits, no metadata, and short names of what is referred to."""
    text = re.sub(r"\s+", " ", _UNSEEN.sub("", text)).replace("> <", "><").replace(' xlink:href="#', ' href="#').strip()
    text = _LONG_NUMBER.sub(lambda match: f"{float(match[0]):.5g}", text)
    # Letters are most of the elements.
    text = re.sub(r'transform="translate\(([-\d.e]+) 0\)"/>', r'x="\1"/>', text)
    text = re.sub(r" ?([MLQCz]) ?(?=[-\d\"MLQCz]| \")", r"\1", text)
    names = dict.fromkeys(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    used = {name: f"i{number}" for number, name in enumerate(names)}
    text = re.sub(r' id="([^"]*)"', lambda match: f' id="{used[match[1]]}"' if match[1] in used else "", text)
    text = re.sub(r'(?<=href="#)[^"]+|(?<=url\(#)[^)]+', lambda match: used[match[0]], text)
    return text.replace('"', "'") if "'" not in text else text
