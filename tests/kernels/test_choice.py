"""The choice of a path: by name, or by timing once for a device and shape."""

import json

import pytest
import torch

from stlight import STLight
from stlight.kernels import choice, choose_path, fastest, using


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr(choice, "cache_folder", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def small():
    """A model in training, a clip for it, and what its mixers see."""
    return STLight(hidden_dim=8, depth=2), torch.rand(2, 10, 1, 16, 16), torch.rand(2, 8, 8, 8)


def measure(small):
    model, clip, x = small
    return fastest(model, model.mixers[0], clip, x)


def test_the_fastest_comes_first_and_measuring_leaves_the_model_as_it_was(small, cache):
    before = {name: value.clone() for name, value in small[0].state_dict().items()}
    random = torch.random.get_rng_state()
    times = measure(small)
    assert list(times.values()) == sorted(times.values())
    assert set(times) <= {"fused", "space_to_batch", "plain"}
    assert "plain" in times
    assert all(torch.equal(value, before[name]) for name, value in small[0].state_dict().items())
    assert all(p.grad is None for p in small[0].parameters())
    assert torch.equal(random, torch.random.get_rng_state())


def test_what_was_measured_is_remembered_for_the_same_shape_only(small, cache, monkeypatch):
    first = measure(small)
    with monkeypatch.context() as patch:
        patch.setattr(choice, "_milliseconds", lambda step: pytest.fail("measured again"))
        assert measure(small) == first
        with pytest.raises(pytest.fail.Exception, match="measured again"):
            measure((*small[:2], torch.rand(3, 8, 8, 8)))
    assert len(list(cache.iterdir())) == 1


def test_of_two_that_measure_at_once_the_first_decides(small, cache, monkeypatch):
    measured = choice._measure

    def while_another_finishes(*arguments):
        times = measured(*arguments)
        with monkeypatch.context() as patch:
            patch.setattr(choice, "_measure", lambda *_: {"plain": 0.5, "fused": 1.0})
            measure(small)
        return times

    with monkeypatch.context() as patch:
        patch.setattr(choice, "_measure", while_another_finishes)
        assert measure(small) == {"plain": 0.5, "fused": 1.0}


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        '{"milliseconds": {"plain": "fast"}}',
        '{"milliseconds": 3}',
        '{"milliseconds": {}}',
        '{"milliseconds": {"triton": 1}}',
        '{"milliseconds": {"plain": NaN}}',
    ],
)
def test_a_damaged_memory_is_measured_again(damage, small, cache):
    first = measure(small)
    (file,) = cache.iterdir()
    file.write_text(damage)
    assert set(measure(small)) == set(first)
    assert json.loads(file.read_text())["milliseconds"]


def test_a_file_system_without_links_costs_nothing_but_time(small, cache, monkeypatch):
    def refuse(*_):
        raise PermissionError("links are not permitted")

    monkeypatch.setattr("os.link", refuse)
    assert "plain" in measure(small)
    assert list(cache.iterdir()) == []


def test_without_a_cache_it_is_measured_each_time(small, monkeypatch):
    monkeypatch.setattr(choice, "cache_folder", lambda: None)
    assert "plain" in measure(small)


def test_a_path_can_be_named(small):
    model, clip, _ = small
    for name in ("plain", "channels_last", "space_to_batch", "compiled"):
        with using(name):
            assert choose_path(model, clip).name == name
    with pytest.raises(ValueError, match=r"auto, plain.*got 'fastest'"), using("fastest"):
        pass


def test_a_compiled_mixer_gives_the_same_result(small, monkeypatch):
    # Through torch's own graph capture; the backend that generates code takes half a minute.
    compiled = torch.compile(lambda mixer, x: mixer(x), backend="aot_eager")
    monkeypatch.setattr("stlight.kernels.paths._compiled", lambda: compiled)
    model, clip, _ = small
    model.eval()
    with torch.no_grad(), using("plain"):
        expected = model(clip)
    with torch.no_grad(), using("compiled"):
        torch.testing.assert_close(model(clip), expected, rtol=1e-4, atol=1e-5)
