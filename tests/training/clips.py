"""Clips that misbehave, and a training at its first step."""

import os

from stlight.data import TaxiBJStandIn
from stlight.data.clips import Clips
from stlight.kernels import accelerate
from stlight.model import build_model
from stlight.training import Training
from tests.tiny_runs import tiny

CONFIG = tiny(num_epochs=3)


def begin(config=CONFIG, kernels="auto", device="cpu"):
    return Training(accelerate(build_model(config.model, config.clip_shape).to(device), kernels), config)


class ExplodingClips(Clips):
    """Clips that turn to `value` after the first epoch."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def clips(self, split, index_N, epoch=0):
        clips = TaxiBJStandIn().clips(split, index_N, epoch)
        return clips + self.value if split == "train" and epoch > 1 else clips


class SignalledClips(Clips):
    """Clips that send the process signals, by number of the request for clips."""

    def __init__(self, at):
        super().__init__()
        self.at, self.requests = at, 0

    def clips(self, split, index_N, epoch=0):
        self.requests += 1
        for number in self.at.get(self.requests, ()):
            os.kill(os.getpid(), number)
        return TaxiBJStandIn().clips(split, index_N, epoch)
