"""Example predictions of the best run on each data set."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stlight.analysis.values import Values

_STRIP_FRAMES = 20


def draw_examples(values: Values) -> Figure:
    """Draw context, truth and prediction of a few fixed test clips."""
    strips = []
    for dataset, variant in values.best_variants().items():
        clips = values.evidence.results.examples(variant.run_name(0))
        stand_in = ", stand-in" if variant.config.data.source == "stand_in" else ""
        strips += [(f"{dataset}{stand_in}, clip {i}: {variant.name}", *clip) for i, clip in enumerate(zip(*clips, strict=True))]
    figure, axes = plt.subplots(
        max(1, len(strips)), 1, figsize=(13, 0.6 + 1.55 * len(strips)), constrained_layout=True, squeeze=False
    )
    for ax, strip in zip(axes[:, 0], strips, strict=False):
        _draw_strip(ax, *strip)
    if not strips:
        axes[0, 0].text(0.5, 0.5, "no run with a finite result", ha="center")
        axes[0, 0].axis("off")
    figure.suptitle(f"{values.experiment.item}: predictions of the best run", fontsize="large")
    return figure


def _draw_strip(ax: Axes, title: str, context: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> None:
    """Draw two rows of frames: context and truth above, prediction under the truth. First channel, at most twenty frames."""
    frames = np.concatenate([context, truth])[:, 0]
    below = np.concatenate([np.full_like(context, 255), prediction])[:, 0]
    shown = np.linspace(0, len(frames) - 1, min(_STRIP_FRAMES, len(frames))).round().astype(int)
    height, width = frames.shape[1:]
    gap = np.full((height, 2), 255, np.uint8)
    rows = [np.concatenate([part for i in shown for part in (images[i], gap)], axis=1) for images in (frames, below)]
    picture = np.concatenate([rows[0], np.full((2, rows[0].shape[1]), 255, np.uint8), rows[1]])
    # Short clips are padded, so that frames have one size in all strips.
    picture = np.pad(picture, ((0, 0), (0, _STRIP_FRAMES * (width + 2) - picture.shape[1])), constant_values=255)
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.axvline(np.searchsorted(shown, len(context)) * (width + 2) - 1.5, color="#d1662b", linewidth=1.5)
    ax.set_yticks([height / 2, 1.5 * height + 2], ["context | truth", "prediction"])
    ax.set_xticks([])
    ax.set_title(title, fontsize="small", loc="left")
    sns.despine(ax=ax, left=True, bottom=True)
    ax.tick_params(length=0)
