"""Install a backend on a model from outside: `STLight.forward` then runs on faster versions of the model's layers."""

from types import SimpleNamespace
from typing import TypeVar

from torch import Tensor, nn

from stlight.kernels.backends import Backend, ChannelsLastBackend, CompiledBackend, SpaceToBatchBackend
from stlight.kernels.fused import FusedBackend
from stlight.kernels.tiled import ChannelsLastTritonBackend, TritonBackend
from stlight.model.baselines import Baseline
from stlight.model.stlight import STLight, find_stlight

BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        *(Backend(), ChannelsLastBackend(), SpaceToBatchBackend(), FusedBackend(), CompiledBackend()),
        *(TritonBackend(), ChannelsLastTritonBackend()),
    )
}

Model = TypeVar("Model", bound=nn.Module)


def accelerate(model: Model, name: str = "auto") -> Model:
    """Make a model compute with the backend of this name, and return the model itself.

    The decision is made once, here: if the backend does not fit the model's modules, dtype and device, the model computes
    plainly, as it does with the name "plain", which removes an acceleration. "auto" takes the compiled kernels, `fused`, the
    only backend that fits baselines of Table 2. Call this function again after you replace, convert or move modules of an
    accelerated model.

    Only the forward pass changes. The state dict stays the same, deep copies are accelerated too, and steps that the backend
    cannot compute (hooks on a module, evaluation with gradients, tracing) call the modules.
    Raises `ValueError` if there is no such backend.
    """
    if name != "auto" and name not in BACKENDS:
        raise ValueError(f"kernels must be one of auto, {', '.join(BACKENDS)}, got {name!r}")
    backend, stlight = BACKENDS["fused" if name == "auto" else name], find_stlight(model)
    if isinstance(model, Baseline):
        # Only here, because it loads every baseline.
        from stlight.kernels.baselines import accelerate_baseline, make_plain

        make_plain(model)
        if backend.name == "fused":
            accelerate_baseline(model)
    if stlight:
        vars(stlight).pop("forward", None)
        unchanged = type(stlight).forward is STLight.forward
        if unchanged and backend.name != "plain" and backend.fits(stlight):
            vars(stlight)["forward"] = _AcceleratedForward(stlight, backend)
    return model


def backend_of(model: nn.Module) -> str:
    """Return the name of the backend that computes a model: "plain" unless it is accelerated."""
    if isinstance(model, Baseline):
        from stlight.kernels.baselines import is_accelerated

        return "fused" if is_accelerated(model) else "plain"
    forward = vars(find_stlight(model) or model).get("forward")
    return forward.backend.name if isinstance(forward, _AcceleratedForward) else "plain"


class _AcceleratedForward:
    """The forward pass of one accelerated model, an attribute of that instance."""

    def __init__(self, model: STLight, backend: Backend) -> None:
        self.model, self.backend = model, backend
        # Modules keep these dictionaries for life, so that a look into them finds hooks registered later.
        kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        self.hooks = [getattr(module, kind) for module in model.modules() for kind in kinds]
        self.norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        settings = {name: value for name, value in vars(model).items() if not name.startswith("_")}
        self.faster = SimpleNamespace(**settings, predict_frames=backend.model(model))

    def __call__(self, clip: Tensor) -> Tensor:
        """Run the model's forward pass by the backend if it serves now, otherwise by its modules."""
        training = self.model.training
        hooked = any(self.hooks)
        steady = all(norm.training == training for norm in self.norms)
        serves = steady and not hooked and self.backend.serves(clip, training)
        return STLight.forward(self.faster if serves else self.model, clip)  # type: ignore[arg-type]
