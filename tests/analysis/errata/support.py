"""Plans with other printed numbers, and the table of which test shows which erratum."""

import dataclasses
from pathlib import Path

import pytest

from stlight.analysis.errata import errata
from stlight.analysis.verdicts.published import on_published
from stlight.experiments.field_types import PrintedNumber
from tests.conftest import WORKFLOW
from tests.experiments.test_published import FULL_TEXT

TEXT = " ".join(Path(FULL_TEXT).read_text().split()) if FULL_TEXT else ""
with_text = pytest.mark.skipif(not FULL_TEXT, reason="no text of the supplement: STLIGHT_SUPPLEMENT names none")

SHOWN = {}
"""The test that shows each erratum."""


def shows(*ids):
    """Mark a test as the one that shows these errata."""

    def mark(test):
        SHOWN.update(dict.fromkeys(ids, test))
        return test

    return mark


def found_in(plan):
    findings = [on_published(e, claim, {}) for e in plan.experiments.values() for claim in e.claims]
    return errata(plan, WORKFLOW, [finding for finding in findings if finding.verdict == "contradicted"])


def ids_of(plan, start):
    return [e.id for e in found_in(plan) if e.id.startswith(start)]


def printing(plan, experiment, change):
    """Return the plan, had the supplement printed other numbers in one of its items."""
    changed = dataclasses.replace(plan.experiments[experiment], published=change(plan.experiments[experiment].published))
    return dataclasses.replace(plan, experiments=plan.experiments | {experiment: changed})


def with_numbers(entry, **numbers):
    """Return a published entry that prints other numbers."""
    printed = {metric: PrintedNumber(text) for metric, text in numbers.items()}
    return entry.model_copy(update={"numbers": entry.numbers | printed})


def with_value(model, metric, value):
    return lambda entries: [
        with_numbers(e, **{metric: value}) if e.model == model and metric in e.numbers else e for e in entries
    ]
