"""The verb train."""

import argparse
import gc
from typing import TYPE_CHECKING

from stlight.commands.common import argument, check_range, load, scale_folder, tell

if TYPE_CHECKING:
    from stlight.config import RunConfig
    from stlight.runtime.process import Interruption


@argument("name", metavar="run", help="<dataset>/<variant>/seed<k>, as `stlight status` lists them")
@argument("--gpus", type=int, default=1, help="GPUs to lease if the machine has any (default: 1)")
@argument("--checkpoint-every", type=float, default=300.0, metavar="SECONDS", help="within long epochs (default: 300)")
@argument("--newer-than", type=float, default=0.0, metavar="TIME", help="train again if the record is older (default: 0)")
@argument("--config-hash", help="refuse to train if the configuration has another hash")
def train(options: argparse.Namespace) -> int:
    """Train one run and record it. Return 75 if a signal interrupted it after it saved its state."""
    check_range(options, "checkpoint_every", 0)
    config = load(options).run(options.name)
    if options.config_hash not in (None, config.hash):
        raise ValueError(
            f"{options.name}: the experiment or scale files have changed since the workflow started; start it again"
        )
    from stlight.runtime.process import INTERRUPTED_STATUS, Interrupted, Interruption

    interruption = Interruption()
    try:
        with interruption.noticed():
            _train(options, config, interruption)
    except Interrupted as signal:
        tell(f"stlight: {options.name}: interrupted by {signal}; run the same command again to resume")
        return INTERRUPTED_STATUS
    return 0


def _train(options: argparse.Namespace, config: "RunConfig", interruption: "Interruption") -> None:
    """Take the run's lock and lease its GPU before loading torch, because torch sees only the GPUs of that moment."""
    from stlight.runs.record import load_valid_record
    from stlight.runtime import gpu_lease, run_lock

    folder = scale_folder(options) / "runs" / options.name
    with run_lock.hold(folder, tell):
        # While we waited for the lock, another process may have finished the run: then no GPU is needed.
        gpus = 0 if options.device == "cpu" or load_valid_record(folder, config.hash) else options.gpus
        with gpu_lease.leased(gpus, options.slots_per_gpu, tell) as lease:
            import torch

            from stlight.runtime.process import leave_out_compiler
            from stlight.training import train_run

            recipe = config.training
            if recipe.kernels != "compiled" and not recipe.deterministic and not torch.cuda.is_available():
                leave_out_compiler()
            gc.freeze()
            gc.enable()
            torch.set_num_threads(options.threads)
            record = train_run(
                options.name,
                config,
                folder,
                options.data_root,
                device=options.device,
                gpus=lease.gpus,
                checkpoint_every=options.checkpoint_every,
                newer_than=options.newer_than,
                interruption=interruption,
            )
    data = " on stand-in data" if config.data.source == "stand_in" else ""
    tell(f"{options.name}: {record.status}, test MSE{data} {record.metrics['last']['mse']}")
