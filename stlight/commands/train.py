"""Train one run and record it."""

import argparse
import os
from typing import TYPE_CHECKING

from stlight.commands.common import check_range, load, scale_folder, tell

if TYPE_CHECKING:
    from stlight.config import RunConfig
    from stlight.runtime.signals import Interruption


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the run to train and how to train it."""
    parser.add_argument("name", metavar="run", help="<dataset>/<variant>/seed<k>, as `stlight status` lists them")
    parser.add_argument("--threads", type=int, default=1, help="threads for torch (default: 1)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs to lease if the machine has any (default: 1)")
    parser.add_argument(
        "--checkpoint-every", type=float, default=300.0, metavar="SECONDS", help="within long epochs (default: 300)"
    )
    parser.add_argument(
        "--newer-than", type=float, default=0.0, metavar="TIME", help="train again if the record is older (default: 0)"
    )
    parser.add_argument("--config-hash", help="refuse to train if the configuration has another hash")


def run(options: argparse.Namespace) -> int:
    """Train the run, or resume it from its checkpoint. Return 75 if a signal interrupted it after it saved its state."""
    for option, low in (("threads", 1), ("gpus", 0), ("slots_per_gpu", 1), ("checkpoint_every", 0)):
        check_range(options, option, low)
    # Torch's libraries read it once, when torch is loaded.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    config = load(options).run(options.name)
    if options.config_hash not in (None, config.hash):
        raise ValueError(
            f"{options.name}: the experiment or scale files have changed since the workflow started; start it again"
        )
    from stlight.runtime.signals import INTERRUPTED_STATUS, Interrupted, Interruption

    interruption = Interruption()
    try:
        with interruption.noticed():
            _train(options, config, interruption)
    except Interrupted as signal:
        tell(f"stlight: {options.name}: interrupted by {signal}; run the same command again to resume")
        return INTERRUPTED_STATUS
    return 0


def _train(options: argparse.Namespace, config: "RunConfig", interruption: "Interruption") -> None:
    """Take the run's lock and lease its GPUs before loading torch, because torch sees only the GPUs of that moment."""
    from stlight.runs.record import load_valid_record
    from stlight.runtime import gpu_lease, run_lock, start_up

    folder = scale_folder(options) / "runs" / options.name
    gpus = 0 if options.device == "cpu" else options.gpus
    with run_lock.hold(folder, tell):
        # While we waited for the lock, another process may have finished the run: then no GPU is needed.
        gpus = 0 if load_valid_record(folder, config.hash) else gpus
        with gpu_lease.leased(gpus, options.slots_per_gpu, tell) as lease:
            import torch

            from stlight.training import train_run

            recipe = config.training
            if recipe.kernels != "compiled" and not recipe.deterministic and not torch.cuda.is_available():
                start_up.leave_out_compiler()
            start_up.resume_garbage_collection()
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
