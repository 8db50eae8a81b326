"""Predictions as small animations that are embedded in the page."""

import base64
import io
import logging
from dataclasses import dataclass

import numpy as np
from PIL import Image

from stlight.analysis.evidence import Examples
from stlight.analysis.values import Values
from stlight.runs.record import RecordError

_FRAME_MILLISECONDS = 220

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Movie:
    """Clips as data URIs."""

    caption: str
    moving: str
    still: str
    """The last frame."""
    width: int
    """Width on the page in pixels."""


def movies(values: Values) -> list[Movie]:
    """Return the predictions of the best run on each data set. A missing file is skipped, a damaged one is logged."""
    shown = []
    for dataset, variant in values.best_variants().items():
        try:
            clips = values.evidence.results.examples(variant.run_name(0))
        except OSError:
            continue
        except RecordError as error:
            logger.warning("%s: its predictions are left out of the report", error)
            continue
        stand_in = ", stand-in data" if variant.config.data.source == "stand_in" else ""
        caption = f"{dataset}{stand_in}: {variant.name}, seed 0, the best cell; above the truth, below context and prediction"
        frames = [_picture(clips, step) for step in range(clips.context.shape[1] + clips.truth.shape[1])]
        # Small frames are stored small and shown large.
        width = frames[0].width * max(1, 128 // clips.truth.shape[-1])
        shown.append(Movie(caption, _gif(frames), _gif(frames[-1:]), width))
    return shown


def _picture(clips: Examples, step: int) -> Image.Image:
    """Return the clips side by side at one time step; a grey bar under the lower row marks predictions."""
    given = clips.context.shape[1]
    above = clips.context[:, step] if step < given else clips.truth[:, step - given]
    below = clips.context[:, step] if step < given else clips.prediction[:, step - given]
    height = above.shape[-2]
    gap = np.full((height, 3), 255, np.uint8)
    rows = [np.concatenate([part for clip in row for part in (clip[0], gap)], 1)[:, :-3] for row in (above, below)]
    bar = np.full((3, rows[0].shape[1]), 255 if step < given else 128, np.uint8)
    picture = np.concatenate([rows[0], np.full_like(bar, 255), rows[1], bar])
    return Image.fromarray(picture).quantize(16)


def _gif(frames: list[Image.Image]) -> str:
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=_FRAME_MILLISECONDS, loop=0, optimize=True)
    return f"data:image/gif;base64,{base64.b64encode(buffer.getvalue()).decode()}"
