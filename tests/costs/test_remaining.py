"""The remaining time of a scale: predicted seconds of runs, and the error in a replay of the kept demo."""

import json

import pytest

from stlight.costs.remaining import Observed, Predictor, Timing, multiply_adds, schedule, seconds_by_kind
from stlight.registry.model_specs import OURS
from tests.conftest import REPOSITORY
from tests.costs.replay import Replay
from tests.tiny_runs import tiny

REFERENCE = REPOSITORY / "results" / "reference" / "demo"


@pytest.fixture(scope="module")
def replay(demo):
    return Replay(demo, REFERENCE)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_remaining_time_of_the_kept_demo_is_less_than_20_percent_off(replay, share):
    assert abs(replay.error(share)) < 0.2


def test_late_in_the_kept_demo_the_end_is_less_than_a_tenth_of_the_whole_off(replay):
    # Snakemake may start a long run last, which nobody can know: here one of 47 s ends alone.
    assert abs(replay.error(0.75)) * 0.25 < 0.1


def test_multiply_adds_are_those_that_the_records_count(demo):
    counted = 0
    for name, config in demo.runs.items():
        if config.model.model == OURS:
            record = json.loads((REFERENCE / "runs" / name / "record.json").read_text())
            assert multiply_adds(config) == record["prediction_flops"], name
            counted += 1
    assert counted > 100


def test_longer_runs_of_a_finished_kind_take_longer_by_their_epochs():
    """A start of 3 s and half a second for an epoch, seen on runs of 4 to 40 epochs."""
    observed = [Observed(tiny(num_epochs=n), n, 3 + n / 2) for n in (4, 40, 10, 20, 40, 4) * 5]
    predictor = Predictor(observed, [])
    assert predictor.seconds(tiny(num_epochs=100)) == pytest.approx(53, rel=0.15)
    assert predictor.seconds(tiny(num_epochs=4)) == pytest.approx(5, rel=0.15)


def test_a_kind_that_has_not_finished_takes_its_share_of_the_timed_seconds():
    """Ten times the timed seconds of another, on a machine that takes twice as long as was timed."""
    small, large = tiny(num_epochs=50), tiny(num_epochs=50, model="TAU", hidden_dim=1400, depth=16)
    timings = [Timing(small, 0.01, 0.01), Timing(large, 0.1, 0.1)]
    clips = small.data.clips_per_epoch + small.data.validation_clips + small.data.test_clips
    took = 50 * clips * 0.01 * 2
    predictor = Predictor([Observed(small, 50, took)] * 20, timings)
    assert predictor.seconds(small) == pytest.approx(took, rel=0.05)
    assert predictor.seconds(large) == pytest.approx(10 * took, rel=0.15)


def test_a_machine_that_becomes_slower_is_noticed():
    config = tiny(num_epochs=10)
    predictor = Predictor([Observed(config, 10, 5.0)] * 30 + [Observed(config, 10, 10.0)] * 15, [])
    assert predictor.seconds(config) == pytest.approx(10, rel=0.15)


def test_runs_of_one_kind_are_predicted_alike():
    runs = {str(seed): tiny().model_copy(update={"seed": seed}) for seed in range(3)}
    assert len(set(seconds_by_kind(Predictor([], []), runs).values())) == 1


@pytest.mark.parametrize(
    ("running", "waiting", "slots", "seconds"),
    [
        ([], [], 2, 0),
        ([5], [], 2, 5),
        ([], [10] * 8, 2, 40),
        ([3, 1], [2], 2, 3),
        ([4, 4, 4], [1], 1, 5),
        ([], [30, 1], 4, 30),
    ],
)
def test_jobs_share_the_places(running, waiting, slots, seconds):
    assert schedule(running, waiting, slots) == seconds
