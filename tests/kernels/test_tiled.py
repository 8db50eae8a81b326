"""The Triton kernels give what PyTorch's operators give, judged against float64: on a GPU, or in Triton's interpreter."""

import copy
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from stlight import STLight
from stlight.kernels import accelerate, backend_of, race, tiled
from stlight.model.stlight import stl_mixer
from tests.conftest import REPOSITORY

pytest.importorskip("triton", reason="Triton is not installed, so its interpreter cannot run the kernels")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LAYOUTS = {"triton": torch.contiguous_format, "triton_channels_last": torch.channels_last}


@pytest.fixture(autouse=True)
def exact():
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of four positions and two channels, so that small activations need several, and some are not full."""
    monkeypatch.setattr(tiled, "TILES", dict.fromkeys(tiled.TILES, tiled.Tile(4, 2, 1)))


def distance(a, b):
    return ((a.double().cpu() - b).norm() / b.norm().clamp_min(1e-12)).item()


def results(compute, mixer, x, factors):
    """Output, gradients and running statistics of a training step of a mixer."""
    x = x.clone().requires_grad_()
    out = compute(x)
    gradients = torch.autograd.grad((out.to(factors.dtype) * factors).sum(), [x, *mixer.parameters()])
    return out.detach(), *gradients, *(buffer for buffer in mixer.buffers() if buffer.is_floating_point())


def distances(layout, sizes, shape, precision=torch.float32):
    """How far the kernels and PyTorch's operators are from float64, for each tensor of a training step."""
    mixer, (x, factors) = stl_mixer(shape[1], *sizes).to(DEVICE), torch.randn(2, *shape, device=DEVICE)
    exact, plain = copy.deepcopy(mixer).double().cpu(), copy.deepcopy(mixer)
    expected = results(exact, exact, x.double().cpu(), factors.double().cpu())
    with torch.autocast(DEVICE, precision, enabled=precision != torch.float32):
        found = results(lambda x: tiled._mix(mixer, layout, x), mixer, x, factors)
        usual = results(plain, plain, x, factors)
    assert all(tensor.isfinite().all() for tensor in found)
    assert found[0].dtype == precision
    return [(distance(mine, e), distance(theirs, e)) for mine, theirs, e in zip(found, usual, expected, strict=True)]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ((3, 7, 3), (1, 2, 5, 6)),
        ((11, 3, 1), (1, 1, 4, 9)),
        ((1, 11, 3), (1, 1, 7, 3)),
        ((5, 1, 2), (3, 1, 1, 5)),
        ((1, 9, 2), (1, 3, 3, 3)),
    ],
)
def test_every_gradient_of_a_mixer(layout, sizes, shape):
    for mine, theirs in distances(layout, sizes, shape):
        assert mine <= 2 * theirs + 3e-5


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(("sizes", "shape"), [((1, 3, 3), (2, 1, 3, 5)), ((3, 1, 1), (1, 3, 3, 2))])
def test_planes_and_channels_of_several_tiles(layout, sizes, shape, small_tiles):
    for mine, theirs in distances(layout, sizes, shape):
        assert mine <= 2 * theirs + 3e-5


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_bfloat16_is_no_further_off_than_pytorch_s(layout):
    for mine, theirs in distances(layout, (3, 5, 3), (2, 2, 8, 6), torch.bfloat16):
        assert mine <= 2 * theirs + 0.01


@pytest.mark.parametrize("kernels", LAYOUTS)
def test_a_model_trains_and_predicts_as_with_its_modules(kernels):
    plain = STLight(hidden_dim=4, depth=2, kernel_sizes=(1, 3)).to(DEVICE)
    model, clip = accelerate(copy.deepcopy(plain), kernels), torch.rand(1, 10, 1, 8, 8, device=DEVICE)
    assert backend_of(model) == kernels
    for each in (plain, model):
        F.mse_loss(each(clip), clip).backward()
    for (name, mine), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        # This bias goes into a BatchNorm: its gradient is zero but for rounding.
        if name != "patch_encoder.0.bias":
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-5)
    for mine, theirs in zip(model.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(clip), plain.eval()(clip), rtol=1e-4, atol=1e-5)


def test_repeated_steps_are_equal_to_the_bit(small_tiles):
    mixer, (x, factors) = stl_mixer(2, 1, 3, 1).to(DEVICE), torch.randn(2, 1, 2, 3, 4, device=DEVICE)
    one, two = (
        results(lambda x, m=m: tiled._mix(m, torch.channels_last, x), m, x, factors)
        for m in (copy.deepcopy(mixer), copy.deepcopy(mixer))
    )
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("kernels", LAYOUTS)
def test_what_has_no_kernel_is_computed_by_the_modules(kernels):
    for other in (STLight(hidden_dim=4, depth=1, kernel_sizes=(3, 13)), STLight(hidden_dim=4, depth=1).double()):
        assert backend_of(accelerate(other.to(DEVICE), kernels)) == "plain"
    model, clip = STLight(hidden_dim=4, depth=1).to(DEVICE), torch.rand(1, 10, 1, 4, 4, device=DEVICE)
    expected = model(clip)
    accelerate(model, kernels)
    with torch.no_grad():
        # Evaluation's kernels need running statistics; a training step without gradients is the modules'.
        assert torch.equal(model(clip), expected)


def test_kernels_need_a_gpu_unless_they_are_interpreted(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert backend_of(accelerate(STLight(hidden_dim=4, depth=1), "triton")) == "plain"


def test_the_kernels_take_part_in_the_race():
    assert set(LAYOUTS) <= set(race.COMPETITORS["cuda"])
    model = STLight(hidden_dim=2, depth=1, patch_size=1, kernel_sizes=(1, 1)).to(DEVICE)
    x = torch.rand(1, 2, 3, 3, device=DEVICE)
    assert set(race.measure(model, x, ("plain", *LAYOUTS)).milliseconds) == {"plain", *LAYOUTS}


BUILD = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from stlight.kernels import tiles

SIZES = dict(C=16, H=16, W=16, sb=4096, sc=256, sh=16, sw=1)
CONSTANTS = dict(K=3, DILATION=3, SUMS=True, ADD=True, BLOCK_H=16, BLOCK_W=16, BLOCK_C=2)
PER_CHANNEL = "weight bias partial mean rstd scale shift gamma mean_g mean_gn".split()
for name in ("convolve", "convolve_backward", "sums", "normalize", "gradient_sums", "normalize_backward"):
    kernel, types, constants = getattr(tiles, name), {}, {}
    for number, argument in enumerate(kernel.arg_names):
        types[argument] = "i32" if argument in SIZES else "*fp32" if argument in PER_CHANNEL else "*bf16"
        if argument in CONSTANTS:
            types[argument], constants[(number,)] = "constexpr", CONSTANTS[argument]
    compile(ASTSource(kernel, types, constants), target=GPUTarget("cuda", 80, 32), options={"num_warps": 4})
"""


def test_the_compiler_for_gpus_accepts_every_kernel(tmp_path):
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
