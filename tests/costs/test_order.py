"""The order in which the workflow starts runs: the longest first."""

import heapq
import json
import random
from statistics import mean

import pytest

from stlight.costs.order import expected_work
from tests.conftest import REPOSITORY
from tests.tiny_runs import tiny

# Between two runs, Snakemake starts a process.
GAP = 2.0


def makespan(order, places):
    busy = [0.0] * places
    for seconds in order:
        heapq.heapreplace(busy, busy[0] + seconds + GAP)
    return max(busy)


@pytest.mark.parametrize("places", [8, 16])
def test_the_runs_of_the_kept_demo_end_earlier_than_in_random_order(demo, places):
    runs = REPOSITORY / "results" / "reference" / "demo" / "runs"
    seconds = {name: json.loads((runs / name / "record.json").read_text())["seconds"]["total"] for name in demo.runs}
    order = sorted(seconds, key=lambda name: expected_work(demo.runs[name]), reverse=True)
    randomly = [random.Random(seed).sample(list(seconds.values()), len(seconds)) for seed in range(100)]
    in_order, at_random = makespan(map(seconds.get, order), places), mean(makespan(one, places) for one in randomly)
    least = sum(seconds.values(), GAP * len(seconds)) / places
    # Idle places at the end, as seconds of the whole. Those of a random order are 15 and 43 % of the least time.
    assert in_order - least < 0.75 * (at_random - least)


def test_work_grows_with_epochs_clips_and_pixels_and_is_more_for_a_baseline():
    work = expected_work(tiny())
    assert expected_work(tiny(num_epochs=30)) == pytest.approx(10 * work)
    assert expected_work(tiny(clips_per_epoch=9 + 16)) == pytest.approx(2 * work)
    assert expected_work(tiny(model="TAU", hidden_dim=1400, depth=16)) > 5 * work
