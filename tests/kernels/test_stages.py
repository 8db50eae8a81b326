"""A model as one function for autograd."""

import copy
import ctypes

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stlight import STLight
from stlight.costs.workload import peak_growth
from stlight.kernels import accelerate
from stlight.kernels.compile import library
from stlight.kernels.stages import call
from stlight.kernels.whole_step import FlatAdam

pytestmark = pytest.mark.skipif(library("mixer.c") is None, reason="no C compiler")


# The only mixer of a model skips itself, and of two the first starts the skip.
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_graph_that_is_kept_gives_the_same_gradients_again(depth):
    torch.manual_seed(0)
    model, clip = accelerate(STLight(hidden_dim=8, depth=depth)), torch.rand(2, 10, 1, 8, 8)
    loss = model(clip).square().mean()
    once, again = (torch.autograd.grad(loss, list(model.parameters()), retain_graph=True) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))


def test_a_batch_norm_that_is_set_later_is_obeyed():
    torch.manual_seed(0)
    model, (clip, target) = STLight(hidden_dim=8, depth=2), torch.rand(2, 2, 10, 1, 8, 8)
    for norm in filter(lambda module: isinstance(module, nn.BatchNorm2d), accelerate(model).modules()):
        norm.eps, norm.momentum = 0.1, 0.5
    results = []
    for twin in (model, accelerate(copy.deepcopy(model), "plain")):
        prediction = twin.train()(clip)
        F.mse_loss(prediction, target).backward()
        results.append((prediction, twin.mixers[0][1][2].running_var, twin.mixers[0][1][0].weight.grad))
    torch.testing.assert_close(*results)


def test_second_derivatives_are_refused():
    model = accelerate(STLight(hidden_dim=8, depth=1))
    clip = torch.rand(1, 10, 1, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(clip).square().sum(), clip, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    ("sizes", "tensors"), [((0, 1, 1, 1, 1, 1), 2), ((0, 1, 1, 1, 1, 1, 1), 3), ((0, 1, 1, 1, 1, 1, 1.0), 2)]
)
def test_a_call_that_differs_from_the_declaration_in_c_is_refused(sizes, tensors):
    with pytest.raises((AssertionError, ctypes.ArgumentError)):
        call("rearrange", sizes, (), *[torch.zeros(1)] * tensors)


def test_a_flat_parameter_gets_the_gradients_of_all_weights():
    torch.manual_seed(0)
    model, (clip, target) = accelerate(STLight(hidden_dim=8, depth=3)), torch.rand(2, 2, 10, 1, 8, 8)
    parts = copy.deepcopy(model)
    F.mse_loss(model(clip), target).backward()
    optimizer, whole = FlatAdam(parts), torch.cat([weight.grad.flatten() for weight in model.parameters()])
    flat = optimizer.flat
    for times in (1, 2):
        F.mse_loss(parts(clip), target).backward()
        assert torch.equal(flat.grad, times * whole)
    (at_once,) = torch.autograd.grad(F.mse_loss(parts(clip), target), flat)
    assert torch.equal(at_once, whole)
    # A copy has weights and gradients of its own.
    twin = copy.deepcopy(parts)
    F.mse_loss(twin(clip), target).backward()
    assert torch.equal(flat.grad, 2 * whole)
    assert torch.equal(twin.mixers[0][1][0].weight.grad, model.mixers[0][1][0].weight.grad)
    optimizer.zero_grad()
    F.mse_loss(parts(clip), target).backward()
    assert torch.equal(flat.grad, whole)


@pytest.mark.parametrize("change", ["frozen", "hooked", "replaced", "first replaced"])
def test_weights_that_are_not_only_parts_of_a_flat_parameter_get_their_own_gradients(change):
    torch.manual_seed(0)
    model, (clip, target) = accelerate(STLight(hidden_dim=8, depth=3)), torch.rand(2, 2, 10, 1, 8, 8)
    twin = copy.deepcopy(model)
    F.mse_loss(twin(clip), target).backward()
    optimizer = FlatAdam(model)
    weight, seen = (model.patch_encoder[0] if change == "first replaced" else model.mixers[1][1][0]).weight, []
    if change == "frozen":
        weight.requires_grad_(False)
    elif change == "hooked":
        weight.register_hook(seen.append)
    else:
        weight.data = weight.data.clone()
    assert torch.autograd.grad(F.mse_loss(model(clip), target), optimizer.flat, allow_unused=True) == (None,)
    seen.clear()
    F.mse_loss(model(clip), target).backward()
    assert len(seen) == (change == "hooked")
    if change == "frozen":
        twin.mixers[1][1][0].weight.grad.zero_()
    expected = torch.cat([single.grad.flatten() for single in twin.parameters()])
    optimizer.gather_gradients()
    assert torch.equal(optimizer.flat.grad, expected)
    # A second backward pass adds up, whichever way its gradients come.
    F.mse_loss(model(clip), target).backward()
    optimizer.gather_gradients()
    assert torch.equal(optimizer.flat.grad, 2 * expected)


def test_the_gradients_of_a_flat_parameter_are_not_copied():
    model, clip = accelerate(STLight(hidden_dim=200, depth=2)), torch.rand(1, 10, 1, 8, 8)
    optimizer = FlatAdam(model)
    optimizer.step()
    optimizer.zero_grad()
    peak = peak_growth(lambda: model(clip).sum().backward(), torch.device("cpu"))
    assert optimizer.flat.nbytes <= peak < 1.5 * optimizer.flat.nbytes


def test_weights_without_gradients_keep_their_momentum():
    optimizer = FlatAdam(layer := torch.nn.Linear(2, 2))
    layer(torch.ones(2)).sum().backward()
    optimizer.step()
    before, weight = optimizer.flat.clone(), layer.bias
    optimizer.zero_grad()
    optimizer.step()
    assert (optimizer.flat != before).all()
    assert torch.equal(weight, optimizer.flat[4:])
