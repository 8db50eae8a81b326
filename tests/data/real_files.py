"""Make small files in the exact formats of the real data sets, and archives like the published ones."""

import gzip
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from stlight.registry.dataset_specs import DATASETS, KTH_ACTIONS

# The data sets written here, and their numbers of training images or clips and of test clips.
COUNTS = {"mmnist": [5010, 6], "mfmnist": [5010, 6], "taxibj": [30, 6], "kth": [18, 6]}


def idx(images, magic=0x803, count=None, size=(28, 28)):
    """Return the bytes of an IDX file."""
    header = np.array([magic, len(images) if count is None else count, *size], ">u4")
    return header.tobytes() + images.tobytes()


def write_moving_mnist(root, rng, dataset="mmnist", clips=6):
    images_name, sequence_name = DATASETS[dataset].files
    images = rng.integers(0, 256, (5010, 28, 28), dtype=np.uint8)
    sequence = rng.integers(0, 256, (20, clips, 64, 64), dtype=np.uint8)
    (root / images_name).parent.mkdir(parents=True)
    (root / images_name).write_bytes(gzip.compress(idx(images), 1))
    np.save(root / sequence_name, sequence)
    return images, sequence


def taxibj_arrays(rng, train=30, test=6):
    """Return fewer clips than the published file holds: X_train, Y_train, X_test, Y_test in [-1, 1]."""
    sizes = {"X_train": train, "Y_train": train, "X_test": test, "Y_test": test}
    return {name: rng.uniform(-1, 1, (size, 4, 2, 32, 32)) for name, size in sizes.items()}


def write_taxibj(root, rng, **sizes):
    arrays = taxibj_arrays(rng, **sizes)
    (root / "taxibj").mkdir(parents=True)
    np.savez(root / "taxibj" / "dataset.npz", **arrays)
    return arrays


def write_recording(folder, rng, frames=31, first=1, size=(160, 120), mode="RGB"):
    """Write the frames of a recording with consecutive numbers, equal in all channels."""
    folder.mkdir(parents=True)
    for number in range(first, first + frames):
        pixels = rng.integers(0, 256, (size[1] // 8, size[0] // 8), dtype=np.uint8)
        image = Image.fromarray(np.kron(pixels, np.ones((8, 8), np.uint8))).convert(mode)
        image.save(folder / f"image_{number:04d}.jpg", quality=90)


def write_kth(root, rng, persons=(1, 2, 16, 17), frames=31):
    for action in KTH_ACTIONS:
        for person in persons:
            write_recording(root / "kth" / action / f"person{person:02d}_{action}_d1_uncomp", rng, frames)


def zip_of(folder, inside=""):
    """Return a .zip of all files under a folder, placed under `inside`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                archive.write(path, Path(inside) / path.relative_to(folder))
    return file.getvalue()


def tar_of(path):
    """Return a .tar of one file in a folder."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.add(path, f"data/{path.name}")
    return file.getvalue()


def make_downloads(there, workflow, rng):
    """Write small data sets to `there` and return what the addresses of the real ones give, by path on the web site."""
    for dataset in ("mmnist", "mfmnist"):
        write_moving_mnist(there, rng, dataset)
    write_taxibj(there, rng)
    write_kth(there, rng)
    downloads = {}
    sources = yaml.safe_load((workflow / "data_sources.yaml").read_text())
    for dataset in COUNTS:
        for entry in sources[dataset]["files"]:
            place = there / entry["path"]
            name = entry.get("archive", place.name)
            if name.endswith(".zip"):
                content = zip_of(place if place.is_dir() else place.parent, "top")
            else:
                content = tar_of(place) if "archive" in entry else place.read_bytes()
            downloads[f"/{dataset}/{name}"] = content
    return downloads


def serve_downloads(site, downloads, workflow):
    """Put downloads on a web site, and change a workflow so that it fetches them from there."""
    site.files |= downloads
    path = workflow / "data_sources.yaml"
    sources = {dataset: entry for dataset, entry in yaml.safe_load(path.read_text()).items() if dataset in COUNTS}
    for dataset, counts in COUNTS.items():
        sources[dataset]["counts"] = counts
        for entry in sources[dataset]["files"]:
            place = f"/{dataset}/{entry.get('archive', Path(entry['path']).name)}"
            entry |= {"urls": [site.url + place], "megabytes": 10}
            entry |= {"md5": hashlib.md5(downloads[place]).hexdigest()} if "md5" in entry else {}
    path.write_text(yaml.safe_dump(sources))
    (workflow / "data.lock.json").write_text("{}")


def publish(site, there, workflow, rng):
    """Put small data sets on a web site, as the real ones are published, and change a workflow to fetch them from there."""
    serve_downloads(site, make_downloads(there, workflow, rng), workflow)
