"""The parts of `python -m benchmarks gpu`: each is a function that returns what belongs into the JSON file."""

import contextlib
import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu import step_cases
from benchmarks.roofline import Rates, Shape, least_seconds
from stlight.data import MovingMNIST
from stlight.kernels import accelerate, race, tiled
from stlight.kernels.accelerate import BACKENDS
from stlight.kernels.whole_step import FlatAdam, record_step
from stlight.model.stlight import STLight, stl_mixer

Result = dict[str, Any]
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def device(_: str, where: torch.device) -> Result:
    """Name the device, its memory, what a process takes of it, the versions, and the kernels that compete on it."""
    facts = {"type": where.type, "torch": torch.__version__, "kernels": list(race.COMPETITORS[where.type])}
    if where.type == "cpu":
        return facts | {"name": "cpu", "memory": None, "process_memory": None}
    torch.zeros(1, device=where)
    free, total = torch.cuda.mem_get_info(where)
    with contextlib.suppress(ImportError):
        import triton

        facts["triton"] = triton.__version__
    capability = ".".join(map(str, torch.cuda.get_device_capability(where)))
    # Other processes on the device count, too: measure an idle one.
    return facts | {
        "name": torch.cuda.get_device_name(where),
        "capability": capability,
        "cuda": torch.version.cuda,
        "memory": total,
        "process_memory": total - free,
    }


def rates(_: str, where: torch.device) -> Result:
    """Measure bytes a second of a copy, and multiply-adds a second of square products."""
    large = where.type == "cuda"
    source = torch.rand(2**28 if large else 2**20, device=where)
    target, side = torch.empty_like(source), 8192 if large else 256
    result = {"copy": 2 * source.nbytes / seconds(lambda: target.copy_(source), where)}
    for name, dtype, tf32 in (
        ("float32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("bfloat16", torch.bfloat16, True),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = torch.rand(2, side, side, device=where).to(dtype)
        result[name] = side**3 / seconds(partial(torch.mm, a, b), where)
    return result


def equality(name: str, where: torch.device) -> Result:
    """Compare a backend's training step of a mixer with float64, beside the modules' own distance."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    shapes = [(2, 6, 5, 7), (4, 32, 32, 32)] if where.type == "cuda" else [(2, 3, 5, 7)]
    found: Result = {"agrees": True, "cases": []}
    for precision, dtype in PRECISIONS.items():
        for sizes in ((3, 7, 3), (11, 11, 1), (1, 9, 2)):
            for shape in shapes:
                torch.manual_seed(0)
                channels, side = shape[1], 2 * shape[2]
                model = STLight(hidden_dim=4 * channels, depth=1, kernel_sizes=sizes[:2], dilation=sizes[2]).to(where)
                if not BACKENDS[name].fits(model) or (name == "fused" and precision != "float32"):
                    continue
                x = torch.zeros(shape[0], 4 * channels, side, shape[3], device=where)
                case = {"precision": precision, "sizes": sizes, "shape": list(x.shape)}
                found["cases"].append(case | _distances(name, model.mixers[0], x, dtype))
    found["agrees"] = all(case["agrees"] for case in found["cases"])
    return found


def _distances(name: str, mixer: nn.Module, x: Tensor, dtype: torch.dtype) -> Result:
    exact = race.results(BACKENDS["plain"], copy.deepcopy(mixer).double(), x.double())
    with _autocast(x.device, dtype):
        usual, mine = (race.results(BACKENDS[each], mixer, x) for each in ("plain", name))
    # The output comes first, in the backend's layout.
    in_layout = [BACKENDS[name].enter(exact[0]), *exact[1:]]
    theirs = [_distance(a, b) for a, b in zip(usual, exact, strict=True)]
    ours = [_distance(a, b) for a, b in zip(mine, in_layout, strict=True)]
    floor = 3e-5 if dtype == torch.float32 else 0.03
    agrees = all(our <= 2 * their + floor for our, their in zip(ours, theirs, strict=True))
    return {"agrees": agrees, "distance": max(ours), "plain": max(theirs)}


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm().clamp_min(1e-20))


def steps(name: str, where: torch.device) -> Result:
    """Time a training step at a scale's base: the listing, the fastest backend, and that recorded as one graph."""
    fields = step_cases()[name]
    if where.type == "cpu":
        fields |= {"hidden_dim": 4 * min(4, fields["hidden_dim"]), "depth": 1, "batch_size": 2, "downsampling": 4}
    shape = Shape(
        fields["batch_size"], fields["hidden_dim"], fields["depth"], fields["patch_size"], 64 // fields["downsampling"]
    )
    measured = rates("", where)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    result: Result = {"fields": fields, "multiply_adds": shape.multiply_adds}
    for precision, dtype in PRECISIONS.items():
        if where.type == "cpu" and precision != "float32":
            continue
        product = measured["bfloat16" if precision == "bfloat16" else "tf32"]
        bound = least_seconds(shape, Rates(measured["copy"], product, measured["float32"]), 2 if precision == "bfloat16" else 4)
        result[precision] = bound | _time_steps(shape, where, dtype)
    return result


def _time_steps(shape: Shape, where: torch.device, dtype: torch.dtype) -> Result:
    torch.manual_seed(0)
    # On its device an unaccelerated model is the listing of Section G as it is printed.
    listing = STLight(hidden_dim=shape.hidden_dim, depth=shape.depth, patch_size=shape.patch_size).to(where).train()
    ours = copy.deepcopy(listing)
    clip = torch.rand(shape.clips, 20, 1, shape.side, shape.side, device=where)
    patches = shape.side // shape.patch_size
    with _autocast(where, dtype):
        timed = race.measure(ours, torch.rand(shape.clips, shape.hidden_dim, patches, patches, device=where))
    kernels = next(iter(timed.milliseconds), "plain")
    accelerate(ours, kernels)
    result: Result = {"race": asdict(timed), "kernels": kernels}

    optimizer = torch.optim.Adam(listing.parameters(), lr=1e-5)
    result |= _measured("listing", partial(partial, _step, listing, optimizer, dtype), optimizer, clip)
    del listing, optimizer
    optimizer = FlatAdam(ours, lr=1e-5)
    compute = partial(_step, ours, optimizer, dtype)
    result |= _measured("ours", lambda: compute, optimizer, clip)
    if where.type == "cuda":
        result |= _measured("graph", partial(record_step, compute, optimizer, ours, clip), optimizer, clip)
    return result


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, dtype: torch.dtype, clip: Tensor) -> Tensor:
    """Compute the loss and gradients of clips (B, 20, 1, H, W)."""
    optimizer.zero_grad()
    with _autocast(clip.device, dtype):
        loss = F.mse_loss(model(clip[:, :10]).to(clip.dtype), clip[:, 10:])
    loss.backward()
    return loss.detach()


def _measured(
    name: str, make: Callable[[], Callable[[Tensor], Tensor]], optimizer: torch.optim.Optimizer, clip: Tensor
) -> Result:
    """Return median seconds of a training step by the function made, and the peak of allocated memory in bytes on CUDA."""
    where, memory = clip.device, None
    try:
        compute = make()
        if where.type == "cuda":
            torch.cuda.reset_peak_memory_stats(where)

        def step() -> None:
            compute(clip)
            optimizer.step()

        taken = seconds(step, where)
    except RuntimeError as error:
        # Also torch.OutOfMemoryError. The other sides may still fit.
        return {f"{name}_error": str(error).splitlines()[0]}
    if where.type == "cuda":
        memory = torch.cuda.max_memory_allocated(where)
    return {f"{name}_seconds": taken, f"{name}_memory": memory}


def clips(_: str, where: torch.device) -> Result:
    """Count the clips of Moving MNIST that are drawn a second, from digits of noise, on the device."""
    digits = np.random.default_rng(0).integers(0, 256, (500, 28, 28), dtype=np.uint8)
    source, number = MovingMNIST({"train": digits}, device=where), 512 if where.type == "cuda" else 16
    index = torch.arange(number, device=where)
    return {"per_second": number / seconds(lambda: source.clips("train", index), where)}


def tiles(_: str, where: torch.device) -> Result:
    """Time a mixer of STLight-L with tiles of other sizes; `TILES` in stlight/kernels/tiled.py has those in use."""
    candidates = {
        torch.contiguous_format: [(256, 1, 2), (512, 1, 4), (1024, 1, 4), (1024, 1, 8), (2048, 1, 8)],
        torch.channels_last: [(32, 64, 4), (64, 16, 4), (64, 32, 4), (128, 16, 8), (128, 32, 8), (256, 16, 8)],
    }
    if where.type == "cpu":
        return {"left_out": "the kernels run on a GPU only"}
    torch.backends.cudnn.allow_tf32 = True
    mixer, x, found = stl_mixer(1400, 3, 7, 3).to(where), torch.rand(16, 1400, 32, 32, device=where), []
    for backend in (BACKENDS["triton"], BACKENDS["triton_channels_last"]):
        for candidate in candidates[backend.memory_format]:  # type: ignore[attr-defined]
            tiled.TILES[backend.memory_format] = tiled.Tile(*candidate)  # type: ignore[attr-defined]
            for precision, dtype in PRECISIONS.items():
                case: Result = {"kernels": backend.name, "tile": candidate, "precision": precision}
                try:
                    with _autocast(where, dtype):
                        case["milliseconds"] = race.milliseconds(backend, mixer, x)
                except RuntimeError as error:
                    case["error"] = str(error).splitlines()[0]
                found.append(case)
    return {"cases": found}


def seconds(function: Callable[[], object], where: torch.device, budget: float = 2.0) -> float:
    """Return the median seconds of a call, after three that warm up, of five calls or as many as the budget has room for."""

    def once() -> float:
        started = time.perf_counter()
        function()
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        return time.perf_counter() - started

    budget = budget if where.type == "cuda" else 0.05
    for _ in range(3 if where.type == "cuda" else 1):
        once()
    times, started = [once()], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - started < budget:
        times.append(once())
    return median(times)


def _autocast(where: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(where.type, dtype) if dtype != torch.float32 else contextlib.nullcontext()


PARTS = {function.__name__: function for function in (device, rates, equality, steps, clips, tiles)}


def main() -> None:
    """Run the part that the command line names, and print its result as one line of JSON."""
    part, argument, device_type = sys.argv[1:]
    if device_type == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device: torch sees none; --device cpu runs the same in small")
    print(json.dumps(PARTS[part](argument, torch.device(device_type))))


if __name__ == "__main__":
    main()
