"""The race of the backends: timed once for a device and shape, cached, and safe from backends that fail."""

import copy
import json
import weakref

import pytest
import torch

from stlight import STLight
from stlight.kernels import Race, fastest, race
from stlight.kernels.backends import Backend, SpaceToBatchBackend


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr(race, "cache_folder", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def model():
    return STLight(hidden_dim=8, depth=2)


@pytest.fixture
def x():
    """Activations of the model's mixers."""
    return torch.rand(2, 8, 8, 8)


def test_the_fastest_comes_first_and_the_model_stays_as_it_was(model, x, cache):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.random.get_rng_state()
    times = fastest(model, x).milliseconds
    assert list(times.values()) == sorted(times.values())
    assert {"plain"} <= set(times) <= {"fused", "space_to_batch", "plain"}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(random, torch.random.get_rng_state())


def test_the_result_is_cached_for_the_same_shape_only(model, x, cache, monkeypatch):
    first = fastest(model, x)
    measured_again = []
    monkeypatch.setattr(race, "measure", lambda model, x: measured_again.append(len(x)) or Race({"plain": 1.0}))
    assert fastest(model, x) == first
    fastest(model, torch.rand(3, 8, 8, 8))
    assert measured_again == [3]
    assert len(list(cache.iterdir())) == 2


def test_of_two_that_measure_at_once_the_first_decides(model, x, cache, monkeypatch):
    measured = race.measure

    def while_another_finishes(*arguments):
        result = measured(*arguments)
        with monkeypatch.context() as patch:
            patch.setattr(race, "measure", lambda *_: Race({"plain": 0.5, "fused": 1.0}))
            fastest(model, x)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(race, "measure", while_another_finishes)
        assert fastest(model, x).milliseconds == {"plain": 0.5, "fused": 1.0}


ERRORS = [RuntimeError("no kernel image\nis available"), MemoryError("no memory"), torch.OutOfMemoryError("CUDA"), OSError()]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("fails", ["fits", "mixer", "step"])
def test_a_backend_that_fails_drops_out_with_a_warning(fails, error, model, x, cache, monkeypatch, caplog):
    def fail(*_):
        raise error

    if fails == "step":
        monkeypatch.setattr(SpaceToBatchBackend, "mixer", lambda self, mixer: fail)
    else:
        monkeypatch.setattr(SpaceToBatchBackend, fails, fail)
    result = fastest(model, x)
    assert "space_to_batch" not in result.milliseconds
    assert "plain" in result.milliseconds
    reason = result.dropped_out["space_to_batch"]
    assert reason.startswith(type(error).__name__)
    assert "\n" not in reason
    assert "kernels space_to_batch dropped out while being timed" in caplog.text
    # A later run knows it, too, and says so.
    caplog.clear()
    assert fastest(model, x) == result
    assert "space_to_batch dropped out" in caplog.text


def test_if_all_fail_there_is_no_fastest(model, x, cache, monkeypatch):
    def fail(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(race, "milliseconds", fail)
    assert fastest(model, x).milliseconds == {}


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        '{"milliseconds": {"plain": "fast"}, "dropped_out": {}}',
        '{"milliseconds": 3, "dropped_out": {}}',
    ],
)
def test_a_damaged_cache_is_measured_again(damage, model, x, cache):
    first = fastest(model, x)
    (file,) = cache.iterdir()
    file.write_text(damage)
    assert set(fastest(model, x).milliseconds) == set(first.milliseconds)
    assert json.loads(file.read_text())["milliseconds"]


def test_a_file_system_without_links_costs_only_time(model, x, cache, monkeypatch):
    def refuse(*_):
        raise PermissionError("links are not permitted")

    monkeypatch.setattr("os.link", refuse)
    assert "plain" in fastest(model, x).milliseconds
    assert list(cache.iterdir()) == []


def test_without_a_cache_it_is_measured_each_time(model, x, monkeypatch):
    monkeypatch.setattr(race, "cache_folder", lambda: None)
    assert "plain" in fastest(model, x).milliseconds


class Wrong(SpaceToBatchBackend):
    """A planted backend: its mixers give a result that is off by `error`, and the right one times the factor `slope`."""

    def __init__(self, error=0.0, slope=1.0):
        self.error, self.slope = error, slope

    def mixer(self, mixer):
        right = super().mixer(mixer)
        return lambda x: (out := right(x)).detach() * (1 - self.slope) + self.slope * out + self.error


@pytest.mark.parametrize("wrong", [Wrong(error=0.1), Wrong(slope=0.9), Wrong(error=float("nan"))])
def test_a_backend_that_computes_something_else_drops_out(wrong, model, x, cache, monkeypatch):
    monkeypatch.setitem(race.BACKENDS, "space_to_batch", wrong)
    result = fastest(model, x)
    assert "space_to_batch" not in result.milliseconds
    assert "wrong result: differs from plain by" in result.dropped_out["space_to_batch"]
    monkeypatch.setitem(race.BACKENDS, "space_to_batch", Wrong())
    assert "space_to_batch" in race.measure(model, x).milliseconds


def test_statistics_that_are_not_updated_drop_a_backend_out(model, x, monkeypatch):
    class Forgetful(SpaceToBatchBackend):
        def mixer(self, mixer):
            return super().mixer(copy.deepcopy(mixer))

    class Evaluating(SpaceToBatchBackend):
        def mixer(self, mixer):
            mixer[1][2].momentum = 0.0
            return super().mixer(mixer)

    for planted in (Forgetful(), Evaluating()):
        monkeypatch.setitem(race.BACKENDS, "space_to_batch", planted)
        assert "space_to_batch" in race.measure(model, x).dropped_out


def test_a_step_that_lacks_memory_frees_what_it_held(model, x, monkeypatch):
    held = []

    class Greedy(SpaceToBatchBackend):
        def mixer(self, mixer):
            def fail(x):
                activations = torch.empty_like(x)
                held.append(weakref.ref(activations))
                raise torch.OutOfMemoryError("CUDA out of memory")

            return fail

    monkeypatch.setitem(race.BACKENDS, "space_to_batch", Greedy())
    result = race.measure(model, x)
    assert result.dropped_out["space_to_batch"].startswith("OutOfMemoryError")
    assert [reference() for reference in held] == [None]


def test_without_a_plain_result_the_others_still_compete(model, x, monkeypatch):
    class Failing(Backend):
        def mixer(self, mixer):
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(race.BACKENDS, "plain", Failing())
    result = race.measure(model, x)
    assert "space_to_batch" in result.milliseconds
    assert "plain" in result.dropped_out
