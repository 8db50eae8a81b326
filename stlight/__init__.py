"""STLight's supplement, reproduced: model, data, training and the analysis of what the paper claims."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["STLight", "load_run", "metrics"]


def __getattr__(name: str) -> Any:
    # Lazy, so that building the workflow's graph (`stlight.experiments`) does not load torch.
    if name in ("STLight", "load_run"):
        from stlight import model

        return getattr(model, name)
    if name == "metrics":
        import importlib

        return importlib.import_module("stlight.metrics")
    raise AttributeError(f"module 'stlight' has no attribute {name!r}")
