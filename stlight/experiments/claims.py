"""Claims as an experiment's file states them: a quoted sentence, and the test it comes to, in terms of the grid's cells."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stlight.experiments.yaml_files import ExperimentError, as_text, nearest, quantity
from stlight.registry.metric_specs import COUNTED_METRICS
from stlight.registry.model_specs import OURS

KINDS = (
    "better",
    "optimum_in",
    "as_good_as_best",
    "improves_along",
    "gains",
    "smaller_spread",
    "counts_equal",
    "count_grows",
    "untested",
)
COUNT_KINDS = ("counts_equal", "count_grows")

Place = dict[str, Any]
"""Axis values, each one or a list of them; for `model` also one that is quoted, or `others`: all but ours,
and where the paper prints numbers of some, these."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the supplement and how it is tested."""

    id: str
    """Unique among all experiments."""
    section: str
    sentence: str
    kind: str
    """One of `KINDS`."""
    terms: Any
    """What the kind takes: see the schema of experiments."""
    metrics: list[str]
    """The sentence must hold for each of them."""
    each: list[str]
    """Axes: the sentence must hold for each value of them."""
    among: Place
    """The part of the grid that it speaks of."""
    note: str
    """How the sentence was read, where it can be read otherwise."""
    not_on_published: str
    """Why the published numbers cannot decide it, where they seem to."""

    @property
    def statistical(self) -> bool:
        """Whether seeds decide it: one of the family that its item's correction is over."""
        return self.kind not in (*COUNT_KINDS, "untested") and not set(self.metrics) <= COUNTED_METRICS


@dataclass(frozen=True)
class Cell:
    """A row that a claim speaks of: one of our variants, or a model that is quoted."""

    label: str
    place: dict[str, Any]
    """Its values on the axes, or those of them that a quoted row gives."""
    variant: Any = None
    """None for a quoted model."""
    printed: dict[str, str] = field(default_factory=dict, compare=False)
    """The paper's numbers for it, as it prints them."""

    @property
    def published(self) -> dict[str, float]:
        """The same as numbers."""
        return {metric: quantity(text) for metric, text in self.printed.items()}

    @property
    def quoted(self) -> bool:
        """Whether it is another model's row, of which there are no runs."""
        return self.variant is None


def read_claims(path: Path, content: dict[str, Any]) -> list[Claim]:
    """The claims of an experiment's file, which fits the schema."""
    claims = []
    for number, stated in enumerate(content.get("claims", [])):
        kinds = [kind for kind in KINDS if kind in stated]
        if len(kinds) != 1:
            words = f"gives {' and '.join(kinds)}" if kinds else "gives no test"
            raise ExperimentError(f"{path}: claims[{number}] ({stated['id']}): {words}: one of {', '.join(KINDS)} is needed")
        metrics = stated.get("metric", [])
        claims.append(
            Claim(
                id=stated["id"],
                section=stated.get("section", content["paper"]["section"]),
                sentence=" ".join(stated["sentence"].split()),
                kind=kinds[0],
                terms=stated[kinds[0]],
                metrics=[metrics] if isinstance(metrics, str) else metrics,
                each=stated.get("each", []),
                among=stated.get("among", {}),
                note=" ".join(stated.get("note", "").split()),
                not_on_published=" ".join(stated.get("not_on_published", "").split()),
            )
        )
    return claims


def cells_of(
    variants: Iterable[Any], published: Iterable[dict[str, Any]], quoted: Iterable[dict[str, Any]], metrics: set[str]
) -> list[Cell]:
    """The variants and the quoted models, each with the numbers that the paper prints for it."""
    published = list(published)
    cells = []
    for variant in variants:
        place = {"model": OURS} | variant.axes
        fitting = [e for e in published if _axes(e, metrics).items() <= place.items()]
        numbers = {m: e[m] for e in fitting for m in metrics & e.keys()}
        cells.append(Cell(f"{variant.dataset}/{variant.name}", place, variant, numbers))
    for entry in quoted:
        numbers = {m: entry[m] for m in metrics & entry.keys()}
        cells.append(Cell(entry["model"], _axes(entry, metrics), None, numbers))
    return cells


def _axes(entry: dict[str, Any], metrics: set[str]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in metrics | {"source"}}


def with_metrics(claim: Claim, cells: Iterable[Cell]) -> list[Cell]:
    """The cells that a claim may speak of: a quoted row that lacks one of its metrics is none."""
    return [c for c in cells if not c.quoted or set(claim.metrics) <= c.printed.keys()]


def select(cells: Iterable[Cell], places: Place | list[Place]) -> list[Cell]:
    """The cells at any of the places, in their order. A place that names no model speaks of our own variants."""
    wanted, cells = places if isinstance(places, list) else [places], list(cells)
    # The paper's sentences speak of the others that it has: not of a model that was added since.
    has_numbers = any(cell.printed for cell in cells if cell.place.get("model") != OURS)
    return [cell for cell in cells if any(_is_at(cell, place, has_numbers) for place in wanted)]


def _is_at(cell: Cell, place: Place, only_printed: bool) -> bool:
    if "model" not in place and cell.quoted:
        return False
    for key, value in place.items():
        values = value if isinstance(value, list) else [value]
        if key == "model" and values == ["others"]:
            if cell.place.get("model") == OURS or (only_printed and not cell.printed):
                return False
        elif cell.place.get(key) not in values:
            return False
    return True


def check_claims(path: Path, claims: list[Claim], cells: list[Cell], axes: list[str], trained: bool) -> None:
    """Raise `ExperimentError`, naming file and claim, for one that speaks of something the grid does not have."""
    for number, claim in enumerate(claims):

        def refuse(words: str, number: int = number, claim: Claim = claim) -> None:
            raise ExperimentError(f"{path}: claims[{number}] ({claim.id}): {words}")

        if claim.kind == "untested":
            continue
        if claim.kind in COUNT_KINDS:
            if trained:
                refuse(f"{claim.kind} is for experiments with train: false")
            if claim.kind == "count_grows":
                _check_growth(claim, cells, axes, refuse)
            continue
        if not claim.metrics:
            refuse("metric: is missing: the metrics that it must hold for")
        if not trained and not set(claim.metrics) <= COUNTED_METRICS:
            refuse(f"metric: train: false can only have {', '.join(sorted(COUNTED_METRICS))}")
        if len({metric in COUNTED_METRICS for metric in claim.metrics}) > 1:
            refuse("metric: what is counted and what is trained for cannot be in one claim: make two of it")
        for place, names in (("each", claim.each), ("among", claim.among)):
            for name in names:
                if name not in axes:
                    refuse(f"{place}: unknown axis {name!r}{nearest(name, axes)}")
        if claim.among and not select(cells, claim.among):
            refuse(f"among: no cell has {_state(claim.among)}")
        _check_terms(claim, with_metrics(claim, cells), axes, refuse)


def _check_growth(claim: Claim, cells: list[Cell], axes: list[str], refuse: Callable[[str], None]) -> None:
    axis = claim.terms["axis"]
    if axis not in axes:
        refuse(f"axis: must be one of {', '.join(axes)}, got {axis!r}")
    values = {cell.place[axis] for cell in cells}
    if len(values) < 2 or not all(_is_number(value) and value > 0 for value in values):
        refuse(f"axis: {axis} must take two numbers above zero or more")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _state(place: Place) -> str:
    return ", ".join(f"{name} = {as_text(value)}" for name, value in place.items())


def _check_terms(claim: Claim, cells: list[Cell], axes: list[str], refuse: Callable[[str], None]) -> None:
    there = select(cells, claim.among) if claim.among else cells
    if claim.kind == "improves_along":
        if claim.terms not in axes:
            refuse(f"improves_along: must be one of {', '.join(axes)}, got {claim.terms!r}")
        for group in groups(claim, [c for c in there if not c.quoted]):
            values = [cell.place[claim.terms] for cell in group]
            if len(values) < 2 or len(set(values)) < len(values) or not all(map(_is_number, values)):
                refuse(f"improves_along: {claim.terms} must take two numbers or more, each once: say `among` which cells")
        return
    terms = claim.terms if claim.kind in ("better", "gains", "smaller_spread") else {"places": claim.terms}
    if claim.kind == "as_good_as_best":
        terms = {"places": claim.terms["places"]}
    for key in ("this", "than", "over", "places"):
        for place in _listed(terms.get(key, [])):
            for name in place:
                if name != "model" and name not in axes:
                    refuse(f"{claim.kind}: {key}: unknown axis {name!r}{nearest(name, axes)}")
            if not select(there, place):
                refuse(f"{claim.kind}: {key}: no cell has {_state(place)}")
    for group in groups(claim, there):
        ours, theirs = sides(claim, group)
        if not ours or not theirs:
            refuse(f"{claim.kind}: nothing to compare" + (" at each " + ", ".join(claim.each) if claim.each else ""))
        if set(map(id, ours)) & set(map(id, theirs)):
            refuse(f"{claim.kind}: a cell would be compared with itself")
        if claim.kind in ("gains", "smaller_spread") and (len(ours), len(theirs)) != (1, 1):
            refuse(f"{claim.kind}: compares two cells, got {len(ours)} and {len(theirs)}")


def _listed(places: Place | list[Place]) -> list[Place]:
    return places if isinstance(places, list) else [places]


def groups(claim: Claim, cells: list[Cell]) -> list[list[Cell]]:
    """The cells that a claim speaks of, one list for each value of the axes in `each`."""
    there = select(cells, claim.among) if claim.among else list(cells)
    found: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in there:
        if all(axis in cell.place for axis in claim.each):
            found.setdefault(tuple(cell.place[axis] for axis in claim.each), []).append(cell)
    return list(found.values())


def sides(claim: Claim, group: list[Cell]) -> tuple[list[Cell], list[Cell]]:
    """The cells that a sentence puts first, and those that it compares them with."""
    if claim.kind in ("better", "smaller_spread"):
        return select(group, claim.terms["this"]), select(group, claim.terms["than"])
    if claim.kind == "gains":
        return select(group, claim.terms["this"]), select(group, claim.terms["over"])
    places = claim.terms["places"] if claim.kind == "as_good_as_best" else claim.terms
    first = select(group, places)
    return first, [cell for cell in group if cell not in first and not cell.quoted]
