"""Reckon runs on a GPU that is not here, from the file that `python -m benchmarks gpu` wrote on it."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stlight.config import RunConfig
from stlight.registry.model_specs import OURS

# Share of a card's memory that runs may fill; the rest is for libraries' workspaces and fragments.
_USABLE = 0.9
# Data sets whose clips are drawn on the device as the benchmark draws them. Those of others are read ahead of a step.
_DRAWN = ("mmnist", "mfmnist")


@dataclass(frozen=True)
class Card:
    """What was measured on a GPU. A side of the benchmark is "listing", "ours", or "graph": ours, recorded as a CUDA graph."""

    name: str
    memory: int | None
    """Bytes of the GPU."""
    process_memory: int
    """Bytes of it that a process takes before it has any tensor."""
    clips_per_second: float | None
    steps: dict[tuple[str, str], tuple[list[float], list[float]]]
    """By side and precision: multiply-adds, rising, and seconds of the measured steps."""

    @classmethod
    def load(cls, path: Path) -> "Card":
        """Read a file. Raises `ValueError` with its name if it holds no measured step, or is not such a file."""
        try:
            content = json.loads(path.read_text())
            device, clips, cases = content["device"], content.get("clips", {}), content.get("steps", {})
            measured: dict[tuple[str, str], dict[float, float]] = {}
            # A part that failed holds an error instead of numbers.
            for case in cases.values():
                for precision in ("float32", "bfloat16"):
                    for side in ("ours", "graph", "listing"):
                        if (seconds := case.get(precision, {}).get(f"{side}_seconds")) is not None:
                            measured.setdefault((side, precision), {})[float(case["multiply_adds"])] = float(seconds)
            steps = {key: (sorted(points), [points[x] for x in sorted(points)]) for key, points in measured.items()}
            card = cls(str(device["name"]), device["memory"], device["process_memory"] or 0, clips.get("per_second"), steps)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path}: not a file of `python -m benchmarks gpu`: {type(error).__name__}: {error}") from None
        if not steps:
            raise ValueError(f"{path}: holds no measured step")
        return card

    def seconds(self, config: RunConfig, multiply_adds: float) -> tuple[float, float]:
        """Return the seconds of a run's training step of so many multiply-adds, and of evaluating a clip, with drawing.

        Interpolates the measured steps on logarithmic axes. A smaller step takes as long as the smallest, which is overhead; a
        larger one has the rate of the largest. Baselines take the times of the listing, also in plain PyTorch.
        Raises `ValueError` if no step was measured in the run's precision.
        """
        side, precision = self._side(config), config.training.precision
        if (side, precision) not in self.steps:
            raise ValueError(f"{self.name}: no {precision} step was measured ({side})")
        flops, times = (np.log(values) for values in self.steps[side, precision])
        wanted = np.log(multiply_adds)
        step = float(np.exp(np.interp(wanted, flops, times) + max(0.0, wanted - flops[-1])))
        clips = config.training.batch_size
        drawn = 1 / self.clips_per_second if self.clips_per_second and config.data.dataset in _DRAWN else 0.0
        # The forward pass is a third of a step.
        return step + clips * drawn, step / (3 * clips) + drawn

    def slots(self, run_bytes: int) -> int | None:
        """Return how many runs fit into the memory at a time, 0 if none does; None if it is unknown."""
        return int(_USABLE * self.memory // (self.process_memory + run_bytes)) if self.memory else None

    def _side(self, config: RunConfig) -> str:
        if config.model.model != OURS or config.training.kernels == "plain":
            return "listing"
        recorded = config.training.cuda_graphs and ("graph", config.training.precision) in self.steps
        return "graph" if recorded else "ours"
