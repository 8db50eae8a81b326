"""Write a comparison of two folders: as text for readers, and as JSON for programs."""

import math
from collections.abc import Iterator
from typing import Any

from tabulate import tabulate

from stlight.analysis.comparison.compare import Cell, Changed, Comparison
from stlight.analysis.escaping import plain
from stlight.analysis.verdicts.judging import ERROR_BOUND
from stlight.registry.metric_specs import METRICS

SCHEMA = 1
"""Version of the JSON document. It changes if a key is renamed, removed or means something else, but not if one is added."""

_WORDS = {
    "same": "the same to the bit",
    "noise": "within noise",
    "different": "different",
    "undecided": "undecided: these seeds cannot show a difference",
    "configuration": "of different configurations, not tested",
    "only in A": "only in A",
    "only in B": "only in B",
}

_MOST_CAUSES = 12


def as_text(found: Comparison, every_cell: bool = False) -> str:
    """Return the comparison for readers: counts, causes, verdicts and the cells that differ, or every cell."""
    return "\n".join(_lines(found, every_cell))


def _lines(found: Comparison, every_cell: bool) -> Iterator[str]:
    yield f"A: {found.a.path}\nB: {found.b.path}"
    if found.a.scale != found.b.scale:
        yield f"different scales, {found.a.scale} and {found.b.scale}: only cells of equal configurations are compared"
    yield f"\n{len(found.cells)} cells (experiment, variant, metric):"
    yield from (f"{count:6} {_WORDS[status]}" for status, count in found.counts.items() if count)
    shown = [cell for cell in found.cells if every_cell or cell.status == "different"]
    if shown:
        yield ""
        yield tabulate(map(_row, shown), "keys", disable_numparse=True)
        yield "least: the smallest difference that would have counted; p: after Holm's correction over all tests"
    if divergence := found.divergence:
        a, b = found.diverged
        yield f"\ndiverged runs: {a} in A, {b} in B: {_WORDS[divergence.outcome]} (p = {divergence.adjusted:.2g} after Holm)"
    yield from _verdict_lines(found, every_cell)
    yield from _cause_lines(found, every_cell)
    if found.costs:
        ratios = (f"{METRICS[metric].label} × {ratio:.2f}" for metric, ratio in found.costs.items())
        yield f"\nB against A, not tested: {', '.join(ratios)}"
    yield f"\n{_conclusion(found)}"


def _row(cell: Cell) -> dict[str, str]:
    spec, decision = METRICS[cell.metric], cell.decision
    words = decision.test if decision and decision.test else cell.why
    if cell.status == "noise" and cell.equal_seeds:
        words += f", {cell.equal_seeds} seeds equal to the bit"
    return {
        "experiment": cell.experiment,
        "variant": plain(cell.variant),
        "metric": spec.label,
        "A": _number(cell.mean_a),
        "B": _number(cell.mean_b),
        "n": f"{cell.n_a}, {cell.n_b}" if cell.n_a or cell.n_b else "",
        "is": cell.status,
        "least": _number(decision.least) if decision else "",
        "p": _number(decision.adjusted, 2) if decision else "",
        "by": plain(words),
    }


def _number(value: float, digits: int = 6) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}g}"


def _verdict_lines(found: Comparison, every_cell: bool) -> Iterator[str]:
    flipped = [claim for claim in found.changed if claim.flipped]
    half = [claim for claim in found.changed if claim.decided_in_one]
    others = [claim for claim in found.changed if not claim.flipped and not claim.decided_in_one]
    unshared = sum(map(len, found.unshared_claims.values()))
    judged = len(found.a.verdicts.keys() & found.b.verdicts.keys())
    words = f"{len(flipped)} flipped, {len(half)} decided in one folder only, {len(others)} untested in one folder only"
    yield f"\n{judged} verdicts in both folders: {words}"
    yield from (_verdict_text(claim) for claim in [*flipped, *half, *(others if every_cell else [])])
    if unshared:
        yield f"  {unshared} more are in one folder only"


def _verdict_text(claim: Changed) -> str:
    head = "FLIPPED " if claim.flipped else ""
    return f"  {head}{claim.experiment}: {claim.claim} ({claim.source}): {claim.a} → {claim.b}"


def _cause_lines(found: Comparison, every_cause: bool) -> Iterator[str]:
    if not found.causes:
        yield "\nno causes: configuration, code, backend, versions, threads, device and data are the same"
        return
    yield "\ncauses that differ, and number of cells:"
    entries = list(found.causes.items())
    entries = entries if every_cause else entries[:_MOST_CAUSES]
    yield from (f"{count:6} {plain(str(cause))}" for cause, count in entries)
    if len(entries) < len(found.causes):
        yield f"       and {len(found.causes) - len(entries)} more: --all"


def _conclusion(found: Comparison) -> str:
    if not found.comparable:
        return "nothing can be compared: no trained cell is in both folders with the same configuration"
    if found.exit_status:
        return "B does not agree with A"
    left_out = sum(found.counts[status] for status in ("undecided", "configuration", "only in A", "only in B"))
    but = f", but {left_out} of {len(found.cells)} cells say nothing" if left_out else ""
    agrees = "no difference was found" if found.counts["noise"] else "B agrees with A to the bit"
    return agrees + but


def as_json(found: Comparison) -> dict[str, Any]:
    """Return the comparison as JSON: numbers as they are, null for those that are not finite."""
    divergence = found.divergence
    return {
        "schema": SCHEMA,
        "a": {"folder": str(found.a.path), "scale": found.a.scale},
        "b": {"folder": str(found.b.path), "scale": found.b.scale},
        "exit_status": found.exit_status,
        "family_wise_error": ERROR_BOUND,
        "counts": dict(found.counts),
        "cells": [_cell_json(cell) for cell in found.cells],
        "diverged": {
            "a": found.diverged[0],
            "b": found.diverged[1],
            "p": _finite(divergence.adjusted) if divergence else None,
            "outcome": divergence.outcome if divergence else "same",
        },
        "verdicts": [
            {"experiment": c.experiment, "claim": c.claim, "source": c.source, "a": c.a, "b": c.b, "flipped": c.flipped}
            for c in found.changed
        ],
        "verdicts_in_one_folder": {side: [list(claim) for claim in claims] for side, claims in found.unshared_claims.items()},
        "causes": [{"kind": c.kind, "name": c.name, "a": c.a, "b": c.b, "cells": cells} for c, cells in found.causes.items()],
        "cost_ratios": {metric: _finite(ratio) for metric, ratio in found.costs.items()},
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    decision = cell.decision
    return {
        "experiment": cell.experiment,
        "variant": cell.variant,
        "metric": cell.metric,
        "status": cell.status,
        "n_a": cell.n_a,
        "n_b": cell.n_b,
        "equal_seeds": cell.equal_seeds,
        "mean_a": _finite(cell.mean_a),
        "mean_b": _finite(cell.mean_b),
        "test": decision.test if decision else "",
        "p": _finite(decision.p) if decision else None,
        "p_adjusted": _finite(decision.adjusted) if decision else None,
        "least": _finite(decision.least) if decision else None,
        "why": cell.why,
        "causes": [{"kind": c.kind, "name": c.name, "a": c.a, "b": c.b} for c in cell.causes],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
