"""Find the STLights whose parameters and FLOPs round to printed numbers, from closed forms of Section G's layers."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from stlight.config import Decoder
from stlight.experiments.field_types import PrintedNumber
from stlight.registry.dataset_specs import ClipShape

SEARCHED = {
    "hidden_dim": sorted({*range(50, 4097, 50), *range(32, 4097, 32)}),
    "depth": range(1, 33),
    "k1": range(3, 12, 2),
    "k2": range(3, 12, 2),
    "patch_size": (1, 2, 4),
    "overlap": (0, 2),
}
"""Values of each field that `identify` tries. An overlap of 0 stands for 0 and 1, which give the same layers."""

Numbers = int | np.ndarray


class Layout(NamedTuple):
    """The fields of an STLight that its counts depend on; arrays describe many at once."""

    hidden_dim: Numbers
    depth: Numbers
    k1: Numbers
    k2: Numbers
    patch_size: Numbers
    overlap: Numbers


class Counts(NamedTuple):
    """Counts of a layout. FLOPs are fvcore's for one clip: multiply-adds of convolutions, and 2 per value of a BatchNorm."""

    parameters: Numbers
    flops: Numbers
    flops_without_depthwise: Numbers
    """Multiply-adds by fvcore if depthwise convolutions have `padding="same"`: it has no handler for these and counts zero."""


def count_layout(layout: Layout, shape: ClipShape, decoder: Decoder = "shuffle_reassemble") -> Counts:
    """Count an STLight that predicts the whole horizon directly."""
    d, depth, k1, k2, p, overlap = layout
    inputs, outputs = shape.context_frames * shape.channels, shape.horizon_frames * shape.channels
    kernel_area, depthwise = (p * np.maximum(1, overlap)) ** 2, k1**2 + k2**2
    # Reassembling first reads d channels for each patch and makes p² times the outputs (Section F).
    read, made = (d // p**2, outputs) if decoder == "shuffle_reassemble" else (d, outputs * p**2)
    encoder = d * (inputs * kernel_area + 1) + 2 * d
    mixer = d * (depthwise + 2) + 2 * d + d * (d + 1) + 2 * d
    patches = shape.height * shape.width // p**2
    reassembled = read * outputs * p**2  # multiply-adds for each patch, in either order
    norms = 2 * d * (2 * depth + 1)
    flops = patches * (d * inputs * kernel_area + depth * d**2 + reassembled + norms)
    parameters = encoder + depth * mixer + (read + 1) * made
    return Counts(parameters, flops + patches * depth * d * depthwise, flops)


def identify(parameters: PrintedNumber, flops: PrintedNumber | None, shape: ClipShape, **narrowed: int | None) -> pd.DataFrame:
    """Search the layouts whose parameters, and FLOPs in either counting, round to the printed numbers.

    Only k1 ≤ k2 is searched, because exchanging the two changes no count.

    Args:
        parameters: printed number of parameters
        flops: printed FLOPs, or None if none are printed
        shape: frames of the data set
        narrowed: fields of `Layout` with the only value to search

    Returns:
        A row per layout: its fields, its counts, and whether `flops` and `flops_without_depthwise` fit.
    """
    for name, value in narrowed.items():
        if value is not None and value not in SEARCHED[name]:
            listed = [str(each) for each in SEARCHED[name]]
            listed[2:-1] = listed[2:-1] if len(listed) < 8 else ["…"]
            raise ValueError(f"{name} must be one of {', '.join(listed)}, got {value}")
    values = [[value] if (value := narrowed.get(name)) is not None else [*tried] for name, tried in SEARCHED.items()]
    grid = Layout(*(axis.ravel() for axis in np.meshgrid(*values, indexing="ij")))
    # PixelShuffle takes p² channels for each output; patches of side 1 that overlap would lose a row and a column.
    possible = (grid.k1 <= grid.k2) & (grid.hidden_dim % grid.patch_size**2 == 0) & (grid.overlap <= grid.patch_size)
    grid = Layout(*(np.asarray(axis)[possible] for axis in grid))
    counts = count_layout(grid, shape)
    rows = pd.DataFrame(grid._asdict() | counts._asdict())
    for name in ("flops", "flops_without_depthwise"):
        rows[f"{name}_fit"] = flops is None or _rounds_to(flops, rows[name])
    return rows[_rounds_to(parameters, rows["parameters"]) & (rows["flops_fit"] | rows["flops_without_depthwise_fit"])]


def _rounds_to(printed: PrintedNumber, counted: "pd.Series[int]") -> "pd.Series[bool]":
    # The millionth is for the float that the printed digits give.
    return (counted - printed.value).abs() <= printed.half_unit * (1 + 1e-6)
