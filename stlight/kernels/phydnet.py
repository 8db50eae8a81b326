"""PhyDNet with all steps at once where no step needs the one before: coding given frames, decoding predictions of them."""

import torch
from torch import Tensor

from stlight.model.baselines.phydnet import PhyDNet


def unroll(model: PhyDNet, clip: Tensor, given: int) -> Tensor:
    """Predict every next frame as `PhyDNet.unroll` does, which this replaces."""
    times = (-1, given)
    code = model.encoder(clip[:, :given].flatten(0, 1))
    physical_codes, residual_codes = (
        encoder(code).unflatten(0, times).unbind(1) for encoder in (model.encoder_physical, model.encoder_residual)
    )
    state = model.begin(physical_codes[0])
    codes = []
    for both in zip(physical_codes, residual_codes, strict=True):
        *code_now, state = model.advance(*both, state)
        codes.append(code_now)
    physical, residual = (torch.stack(code, 1).flatten(0, 1) for code in zip(*codes, strict=True))
    predicted = list(model.decode(physical, residual).unflatten(0, times).unbind(1))
    for _ in range(given, model.shape.context_frames + model.shape.horizon_frames - 1):
        prediction, state = model.step(predicted[-1], state)
        predicted.append(prediction)
    return torch.stack(predicted, 1)
