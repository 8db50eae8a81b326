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


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_the_remaining_time_of_the_kept_demo_is_less_than_20_percent_off(replay, share):
    assert abs(replay.error(share)) < 0.2


def test_the_longest_run_of_the_kept_demo_is_foreseen(replay):
    """It takes ten times as long as most. None of its kind has finished, but its model was timed, and others drew its data."""
    name = "kth/model=ConvLSTM-S+epochs=150/seed0"
    record = json.loads((REFERENCE / "runs" / name / "record.json").read_text())
    kind = next(kind for kind in replay.at(0.5).kinds if (kind.dataset, kind.model) == ("kth", "ConvLSTM-S"))
    assert (kind.runs, kind.finished) == (1, 0)
    assert kind.remaining_seconds == pytest.approx(record["seconds"]["total"], rel=0.25)


def test_multiply_adds_are_those_that_the_records_count(demo):
    counted = 0
    for name, config in demo.runs.items():
        if config.model.model == OURS:
            record = json.loads((REFERENCE / "runs" / name / "record.json").read_text())
            assert multiply_adds(config) == record["prediction_flops"], name
            counted += 1
    assert counted > 100


@pytest.mark.parametrize("start", [3.0, 30.0])
def test_the_start_of_a_run_is_not_taken_for_its_epochs(start):
    """Half a second for an epoch, seen on runs of equally many epochs, of which a longer run takes more but only one start."""
    observed = [Observed(tiny(num_epochs=20), 20, start + 10, start)] * 10
    predictor = Predictor(observed, [])
    assert predictor.seconds(tiny(num_epochs=200)) == pytest.approx(start + 100, rel=0.1)
    assert predictor.seconds(tiny(num_epochs=2)) == pytest.approx(start + 1, rel=0.1)


def test_a_data_set_whose_clips_take_long_to_draw_is_noticed_late_in_a_scale():
    """Drawing a clip of one data set takes a hundred times as long as of the other, of which there are many more runs."""
    digits, actions = tiny(), tiny(dataset="kth")
    other = tiny(dataset="kth", model="TAU", hidden_dim=1400, depth=16)
    timings = [Timing(config, 0.001, 0.001) for config in (digits, actions)] + [Timing(other, 0.05, 0.05)]
    clips = [c.data.clips_per_epoch + c.data.validation_clips + c.data.test_clips for c in (digits, actions, other)]
    seconds = [n * per_clip for n, per_clip in zip(clips, (0.0011, 0.011, 0.06), strict=True)]
    epochs = digits.training.num_epochs
    observed = [Observed(actions, epochs, epochs * seconds[1], 0.0)] + [Observed(digits, epochs, epochs * seconds[0], 0.0)] * 60
    predictor = Predictor(observed, timings)
    assert predictor.seconds(other) == pytest.approx(epochs * seconds[2], rel=0.2)


def test_a_kind_that_has_not_finished_takes_its_share_of_the_timed_seconds():
    """Ten times the timed seconds of another, on a machine that takes twice as long as was timed."""
    small, large = tiny(num_epochs=50), tiny(num_epochs=50, model="TAU", hidden_dim=1400, depth=16)
    timings = [Timing(small, 0.1, 0.1), Timing(large, 1.0, 1.0)]
    clips = small.data.clips_per_epoch + small.data.validation_clips + small.data.test_clips
    took = 50 * clips * 0.1 * 2
    predictor = Predictor([Observed(small, 50, took, 0.0)] * 20, timings)
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
        ([], [1, 1, 8], 2, 9),
        ([], [8, 1, 1], 2, 8),
    ],
)
def test_jobs_share_the_places(running, waiting, slots, seconds):
    assert schedule(running, waiting, slots) == seconds
