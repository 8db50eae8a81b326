"""STLight's supplement, reproduced: model, data, training and the analysis of what the paper claims."""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["STLight", "load_run", "metrics"]


_MODULES = {"STLight": "stlight.model", "load_run": "stlight.training"}


def __getattr__(name: str) -> Any:
    # Lazy, so that building the workflow's graph (`stlight.experiments`) does not load torch.
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    if name == "metrics":
        return importlib.import_module("stlight.metrics")
    raise AttributeError(f"module 'stlight' has no attribute {name!r}")
