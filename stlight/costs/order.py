"""Order in which the workflow starts runs. Imports neither torch nor NumPy, because Snakemake loads it for each job."""

from stlight.config import RunConfig
from stlight.registry.model_specs import OURS

# Seconds of an epoch of a baseline for one of STLight on the same clips: the median of what `measure` timed at demo.
_BASELINE = 17.0


def expected_work(config: RunConfig) -> float:
    """Return the work of a run relative to others: pixels of all its epochs, of which those of a baseline take longer.

    The workflow starts the runs with most work first, so that no long run is left alone at the end. It must know them before
    anything is timed, so it does not know that some baselines take ten times as long as others.
    """
    data, shape = config.data, config.clip_shape
    clips = data.clips_per_epoch + data.validation_clips + data.test_clips
    pixels = (shape.context_frames + shape.horizon_frames) * shape.channels * shape.height * shape.width
    return config.training.num_epochs * clips * pixels * (1.0 if config.model.model == OURS else _BASELINE)
