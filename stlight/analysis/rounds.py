"""Make the next round of a budget from the records of the earlier ones, and show rounds to readers."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from stlight.analysis.allocation import Allocation, Choice, Question
from stlight.analysis.values import Values
from stlight.analysis.verdicts.comparisons import compared_cells, looks_of
from stlight.analysis.verdicts.findings import Finding
from stlight.analysis.verdicts.measured import Measured, seed_spread
from stlight.experiments import Plan
from stlight.experiments.claim_base import ComparisonClaim
from stlight.experiments.grid_cells import cells_of
from stlight.runs.record import RunRecord
from stlight.runs.rounds import Outlook, Round

_HOUR = 3600.0


def next_round(
    plan: Plan, values: Mapping[str, Values], rounds: list[Round], estimates: Mapping[str, float], hours: float
) -> Round:
    """Return the round after `rounds`.

    Args:
        plan: The plan for a budget, with the seeds of the earlier rounds.
        values: Its numbers by experiment. All runs of the earlier rounds must be there.
        rounds: The earlier rounds.
        estimates: Seconds of a run by cell, for cells without a finished run.
        hours: The budget in core hours, which includes the earlier rounds.
    """
    seconds, spent = _seconds(plan, values, estimates)
    asked = list(questions(plan, values))
    state = Allocation(asked, plan.seeds, seconds)
    budget = hours * _HOUR - spent
    choice = state.choose(budget)
    could = [q for q in asked if q.open and state.later(q) and not state.hopeless(q)]
    stop: Literal["", "settled", "budget"] = ""
    reason = f"{len(choice.seeds)} cells get more runs, which are expected to settle {choice.settled:.1f} sentences"
    if not choice.chosen:
        reason = f"no sentence can be settled with the budget; {len(choice.seeds)} cells without a run get one"
    if not choice.seeds:
        stop = "budget" if could else "settled"
        reason = _another_hour(state, budget) if could else "every sentence is settled or hopeless"
    return Round(
        number=len(rounds) + 1,
        plan=plan.hash,
        hours=hours,
        spent_seconds=round(spent, 1),
        expected_seconds=round(choice.seconds, 1),
        expected_settled=round(choice.settled, 2),
        seeds=choice.seeds,
        estimates={cell: round(value, 1) for cell, value in estimates.items()},
        claims=[_outlook(state, question, choice) for question in asked],
        reason=reason,
        stop=stop,
    )


def questions(plan: Plan, values: Mapping[str, Values]) -> Iterator[Question]:
    """Yield the sentences that runs can decide, with their verdicts so far.

    Those are left out that no run of this scale can test: their models are quoted or not trained, or their value is one that
    only the paper's size has.
    """
    spread = seed_spread(values)
    for name, experiment in plan.experiments.items():
        measured, cells = Measured(values[name], spread, plan.scale.looks), cells_of(experiment)
        findings = measured.findings() if experiment.train else {}
        for claim in experiment.claims if experiment.train else []:
            if not (isinstance(claim, ComparisonClaim) and claim.statistical):
                continue
            cells = compared_cells(claim, cells_of(experiment))
            if measured.never(claim, cells):
                continue
            looks = looks_of(experiment, claim, cells_of(experiment), plan.scale.looks)
            question = Question(
                name=claim.id, cells=frozenset(cell.variant.cell for cell in cells if cell.variant), looks=looks
            )
            seen = min(plan.seeds[cell] for cell in question.cells) >= looks[0]
            yield _with_finding(question, findings[claim.id]) if seen else question


def forecast(plan: Plan, values: Mapping[str, Values], estimates: Mapping[str, float], hours: float) -> list[dict[str, Any]]:
    """Return the rounds to expect, one row each, if every question is settled with the chance that it has now.

    A sentence without data counts as the prior says, so the table tells the order of magnitude.
    """
    seconds, spent = _seconds(plan, values, estimates)
    state = Allocation(questions(plan, values), plan.seeds, seconds)
    rows: list[dict[str, Any]] = []
    while (choice := state.choose(hours * _HOUR - spent)).seeds:
        added = sum(count - state.seeds[cell] for cell, count in choice.seeds.items())
        looked_at = [
            q for q in state.questions.values() if q.open and state.look(q, state.seeds | choice.seeds) > state.look(q)
        ]
        spent += choice.seconds
        row = {"round": f"+{len(rows) + 1}", "runs": added, "core hours": choice.seconds / _HOUR, "spent": spent / _HOUR}
        row |= {"sentences looked at": len(looked_at), "unseen": sum(not state.look(q) for q in looked_at)}
        rows.append(row | {"expected to settle": choice.settled})
        state = state.after(choice)
    return rows


def rounds_table(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """Return one row per round for readers: what it added and why, and what its runs settled."""
    rows: list[dict[str, Any]] = []
    seeds: dict[str, int] = {}
    for number, found in enumerate(rounds):
        states = Counter(outlook.state for outlook in found.claims)
        # The next round's file says what this round's runs have settled.
        after = _settled(rounds[number + 1]) - _settled(found) if number + 1 < len(rounds) else set()
        row = {"round": found.number, "core hours before": f"{found.spent_seconds / _HOUR:.2f}"}
        row |= {"runs added": sum(count - seeds.get(cell, 0) for cell, count in found.seeds.items())}
        row |= {"expected to settle": f"{found.expected_settled:.1f}", "settled": ", ".join(sorted(after)) or "–"}
        row |= {"open before": states["open"] + states["unseen"], "hopeless": states["hopeless"]}
        rows.append(row | {"why": found.reason})
        seeds |= found.seeds
    return rows


def outlook_table(found: Round) -> list[dict[str, Any]]:
    """Return one row per sentence that a round found unsettled, the likeliest per core second first, for readers."""

    def rate(outlook: Outlook) -> float:
        return (outlook.chance or 0.0) / max(outlook.seconds or 0.0, 1.0) if outlook.state != "hopeless" else -1.0

    rows: list[dict[str, Any]] = []
    for one in sorted((o for o in found.claims if o.state != "settled"), key=rate, reverse=True):
        row = {"sentence": one.claim, "state": one.state, "seeds": one.seeds, "next look at": one.next_look or "–"}
        row |= {"chance that it settles": "–" if one.chance is None else f"{one.chance:.0%}"}
        row |= {"core minutes": "–" if one.seconds is None else f"{one.seconds / 60:.1f}"}
        rows.append(row | {"why": one.why or ("its runs are added" if one.chosen else "")})
    return rows


def _settled(found: Round) -> set[str]:
    return {outlook.claim for outlook in found.claims if outlook.state == "settled"}


def _with_finding(question: Question, finding: Finding) -> Question:
    """Return a question with what its runs say."""
    if finding.verdict == "untested" or not finding.levels:
        # Its cells have not learnt, or its curves measure something else: more seeds would not change that.
        return replace(question, never=finding.why)
    return replace(question, settled=finding.verdict != "undecided", sides=finding.sides, levels=finding.levels)


def _seconds(plan: Plan, values: Mapping[str, Values], estimates: Mapping[str, float]) -> tuple[dict[str, float], float]:
    """Return core seconds per run of each cell that the scale trains, and of all runs together that the plan has."""
    variants = (variant for experiment in plan.experiments.values() for variant in experiment.variants if experiment.train)
    trained = sorted({v.cell for v in variants if plan.scale.trains(v.config.model.model, v.dataset)})
    records: dict[str, RunRecord] = {name: r for one in values.values() for name, r in one.evidence.records.items()}
    measured: dict[str, list[float]] = {}
    for name, record in records.items():
        measured.setdefault(name.rpartition("/")[0], []).append(record.seconds["total"])
    seconds = {c: sum(found) / len(found) if (found := measured.get(c)) else estimates[c] for c in trained}
    return seconds, sum(map(sum, measured.values()))


def _outlook(state: Allocation, question: Question, choice: Choice) -> Outlook:
    told = Outlook(claim=question.name, state="settled", seeds=min(state.seeds[cell] for cell in question.cells))
    later = state.later(question)
    if question.settled:
        return told
    if question.never or not later:
        why = question.never or f"still open after {question.looks[-1]} seeds"
        return told.model_copy(update={"state": "hopeless", "why": why})
    found: dict[str, Any] = {"next_look": later[0], "chance": round(state.chance(question, later[0]), 3)}
    found |= {"seconds": round(state.cost(question, later[0]), 1), "chosen": question.name in choice.chosen}
    if state.hopeless(question):
        chance, hours = state.best_chance(question), state.cost(question, later[-1]) / _HOUR
        why = f"up to {later[-1]} seeds, which take {hours:.2g} core hours, would settle it with a chance of {chance:.0%} only"
        return told.model_copy(update=found | {"state": "hopeless", "why": why})
    return told.model_copy(update=found | {"state": "open" if state.look(question) else "unseen"})


def _another_hour(state: Allocation, budget: float) -> str:
    more = state.choose(budget + _HOUR, share=1.0)
    if not more.chosen:
        return "the budget is spent; another core hour is too little for any next look"
    names = ", ".join(more.chosen[:5]) + (" and others" if len(more.chosen) > 5 else "")
    return f"the budget is spent; another core hour is expected to settle {more.settled:.1f} sentences ({names})"
