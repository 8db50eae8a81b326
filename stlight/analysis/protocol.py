"""How near runs are to the paper's: its own configuration and data, smaller ones, or data that only have the same shape."""

from collections.abc import Iterable
from typing import Literal, get_args

from stlight.config import ComputeConfig
from stlight.experiments import Variant

Protocol = Literal["exact", "reduced", "stand-in"]
"""exact: the paper's own configuration and data, and everything that is counted. reduced: a smaller model, a shorter training,
or fewer clips. stand-in: generated clips of the data set's shape."""


def protocol_of(variant: Variant) -> Protocol:
    """Return how near the runs of a variant are to the paper's; seeds and the way of computing do not count."""
    here, paper = variant.config.fields, variant.paper.fields
    if here["source"] == "stand_in":
        return "stand-in"
    meaning = here.keys() - ComputeConfig.model_fields.keys()
    return "exact" if here["source"] == "files" and all(here[name] == paper[name] for name in meaning) else "reduced"


def least_exact(protocols: Iterable[Protocol]) -> Protocol:
    """Return the protocol of a statement that rests on several; exact if it rests on none."""
    order = get_args(Protocol)
    return max(protocols, key=order.index, default="exact")
