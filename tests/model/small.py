"""Small baselines and the clips that they take."""

import torch
import yaml

from stlight.config import ModelConfig
from stlight.model import build_model
from stlight.registry.dataset_specs import ClipShape
from stlight.registry.model_specs import BASELINES
from tests.conftest import WORKFLOW

TABLE_2 = yaml.load((WORKFLOW / "experiments" / "table2_openstl.yaml").read_text(), Loader=yaml.BaseLoader)["published"]
IN_TABLE_2 = [name for name in BASELINES if any(row["model"] == name for row in TABLE_2)]
SMALL = ClipShape(3, 2, 1, 16, 16)


def small(name, shape=SMALL, seed=0):
    return build_model(ModelConfig(model=name, baseline_width=1 / 32, baseline_depth=0.5), shape, seed)


def clip_of(shape, batch=2, seed=0):
    frames = shape.context_frames + shape.horizon_frames
    return torch.rand((batch, frames, *shape[2:]), generator=torch.Generator().manual_seed(seed))


def parts(clip, shape=SMALL):
    return clip[:, : shape.context_frames], clip[:, shape.context_frames :]
