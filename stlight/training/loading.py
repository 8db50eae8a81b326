"""Load the model of a trained run from the folder of the run."""

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn

from stlight.config import RunConfig
from stlight.kernels import accelerate
from stlight.model import build_model


def load_run(path: str | Path) -> nn.Module:
    """Load a run's model with its trained weights, ready to predict: (B, T, C, H, W) → (B, T', C, H, W).

    `path` is the run's folder, results/<scale>/runs/<dataset>/<variant>/seed<k>, or its weights.safetensors, a file that cannot
    hold code. If the record lies beside it, its checksum there must match. The compiled kernels accelerate the model if they
    can; `stlight.kernels.accelerate(model, "plain")` removes them.
    Raises `FileNotFoundError` if there is no such file, `ValueError` if it is damaged or not the weights of a run.
    """
    path = Path(path)
    path = path / "weights.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: load_run takes the folder of a finished run")
    try:
        _check_against_record(path)
        with safe_open(path, "pt") as file:
            config = RunConfig.model_validate(json.loads((file.metadata() or {})["config"]))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        model = build_model(config.model, config.clip_shape)
        model.load_state_dict(weights)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged, or not the weights of a run: {error}") from error
    return accelerate(model.eval())


def _check_against_record(path: Path) -> None:
    record = path.parent / "record.json"
    if record.is_file():
        stated = json.loads(record.read_text()).get("files", {}).get(path.name)
        with path.open("rb") as file:
            if stated not in (None, hashlib.file_digest(file, "sha256").hexdigest()):
                raise ValueError("it does not have the checksum that the record beside it states")
