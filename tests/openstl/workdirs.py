"""Write work dirs as OpenSTL leaves them, with learning rates by PyTorch, SSIM by scikit-image and errors by NumPy."""

import json

import numpy as np
import torch
from skimage.metrics import structural_similarity

from stlight import STLight

ARCHITECTURE = {"hidden_dim": 8, "depth": 3, "patch_size": 2, "overlap": 0, "dilation": 3, "skip": True, "skip_parts": 3}
ARCHITECTURE |= {"decoder": "shuffle_reassemble", "initialization": "hybrid", "kernel_sizes": [3, 7]}
SETTINGS = {"method": "stlight", "stlight": ARCHITECTURE, "dataname": "mmnist", "seed": 42, "epoch": 4, "batch_size": 16}
SETTINGS |= {"val_batch_size": 16, "lr": 1e-3, "sched": "onecycle", "final_div_factor": 1e4, "opt": "adam", "weight_decay": 0.0}
SETTINGS |= {"clip_grad": None, "clip_mode": "norm", "fp16": False, "drop_last": False, "use_augment": False, "dist": False}
SETTINGS |= {"pre_seq_length": 10, "aft_seq_length": 10}


def model():
    """Build the STLight of the work dirs, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return STLight(**ARCHITECTURE | {"kernel_sizes": (3, 7)})


def rates(settings, steps, stepped):
    """Return the learning rate after each epoch, by PyTorch's OneCycleLR."""
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=settings["lr"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings["lr"], total_steps=steps * settings["epoch"], final_div_factor=settings["final_div_factor"]
    )
    found = []
    for _ in range(settings["epoch"]):
        for _ in range(steps if stepped == "by step" else 1):
            optimizer.step()
            schedule.step()
        found.append(schedule.get_last_lr()[0])
    return found


def write_work_dir(
    folder,
    version="v0.3.0",
    stepped="by step",
    ssim_range=2,
    tested_epoch="best",
    validation=1.0,
    test_clips=16,
    steps=625,
    unit=1.0,
    scale=(0.0, 1.0),
    tracked=None,
    side=32,
    momentum=0.1,
    **changed,
):
    """Write a work dir and return its path.

    `validation` is the validation's MSE as a multiple of the test's, `unit` multiplies every logged MSE, `scale` is the range
    of the targets, `tracked` the steps that BatchNorm has seen; 0 leaves the running statistics out.
    """
    settings = SETTINGS | {"in_shape": [10, 1, side, side]} | ({"gpus": [0]} if version == "v1.0.0" else {}) | changed
    generator = np.random.default_rng(1)
    trues = generator.random((test_clips, 10, 1, side, side), dtype=np.float32) * 0.3 * (scale[1] - scale[0]) + scale[0]
    preds = (trues + 0.05 * generator.standard_normal(trues.shape, dtype=np.float32)).astype(np.float32)
    per_frame = ((preds - trues) ** 2).sum((2, 3, 4)).mean()
    frames = zip(np.clip(preds, 0, 1)[:, :, 0].reshape(-1, side, side), trues[:, :, 0].reshape(-1, side, side), strict=True)
    ssim = np.mean([structural_similarity(a, b, data_range=ssim_range) for a, b in frames])
    curve = [3.0, 1.5, 1.0, 1.2] if tested_epoch == "best" else [3.0, 1.5, 0.9, 1.0]
    tested_index = 2 if tested_epoch == "best" else 3
    (folder / "saved").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    np.save(folder / "saved" / "preds.npy", preds)
    np.save(folder / "saved" / "trues.npy", trues)
    (folder / "model_param.json").write_text(json.dumps(settings))
    lines = [
        "2023-07-05 10:00:00,000 - Environment info:",
        "CUDA available: True",
        "PyTorch: 2.1.0",
        "Python: 3.10.8",
        "-" * 60,
    ]
    lines += [f"(1): BatchNorm2d(8, eps=1e-05, momentum={momentum}, affine=True, track_running_stats=True)"]
    for epoch, (rate, factor) in enumerate(zip(rates(settings, steps, stepped), curve, strict=True)):
        mse, time = per_frame * factor * validation, f"2023-07-05 1{epoch}:30:00,000"
        loss = mse / side**2
        if version == "v0.3.0":
            lines.append(f"{time} - val\t mse:{mse * unit}, mae:{mse * unit * 2}")
            lines.append(f"{time} - Epoch: {epoch + 1}, Steps: {steps} | Lr: {rate:.7f} | Train Loss: {loss:.7f} | ")
            lines[-1] += f"Vali Loss: {loss:.7f}\n"
        elif epoch:
            lines.append(f"{time} - Epoch {epoch}: Lr: {rate:.7f} | Train Loss: {loss:.7f} | Vali Loss: {loss:.7f}")
    lines.append(f"2023-07-05 14:00:00,000 - mse:{per_frame * unit}, mae:{per_frame * unit * 2}, ssim:{ssim}, psnr:14.0")
    (folder / "train_20230705_100000.log").write_text("\n".join(lines) + "\n")
    weights = model().state_dict()
    for name in [name for name in weights if name.endswith("num_batches_tracked")]:
        if tracked == 0:
            for buffer in ("num_batches_tracked", "running_mean", "running_var"):
                del weights[name.replace("num_batches_tracked", buffer)]
        else:
            weights[name] = torch.tensor((tested_index + 1) * steps if tracked is None else tracked)
    if version == "v0.3.0":
        torch.save(weights, folder / "checkpoint.pth")
    else:
        state = {f"model.{name}": tensor for name, tensor in weights.items()}
        torch.save({"state_dict": state, "epoch": 3, "global_step": 4 * steps}, folder / "checkpoints" / "last.ckpt")
    return folder
