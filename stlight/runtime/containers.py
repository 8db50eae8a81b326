"""Give Snakemake's jobs in Apptainer their image, and show them the folders and GPUs that they need.

Snakemake shows a container only the working directory. Apptainer takes more from environment variables, which jobs inherit.
"""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

NVIDIA_DRIVER = Path("/dev/nvidiactl")


def container_image(methods: Collection[str], given: str | None, home: Path, *folders: str) -> str | None:
    """Return the image of the jobs, or None if they run without Apptainer, or in a conda environment, which goes first.

    Containers that this process and its children start then see the host's NVIDIA GPUs, the home and the folders, and what
    links in these lead to.

    Args:
        methods: Snakemake's software deployment methods.
        given: An image's file, or an address such as docker://…; by default the file that the checkout's recipe makes.
        home: The folder that holds the workflow: the checkout, or the installed package.
        folders: The folders that jobs read or write.

    Raises:
        ValueError: The image, or a folder outside of the working directory, does not exist.
    """
    if "apptainer" not in methods or "conda" in methods:
        return None
    home = home.resolve()
    image = given or str(home / "containers" / "stlight.sif")
    if "://" not in image and not Path(image).exists():
        mend = "name an image, --config container=FILE or docker://…"
        # A wheel has no recipe.
        if (home / "containers" / "apptainer.def").exists():
            mend = f"call 'cd {home} && apptainer build containers/stlight.sif containers/apptainer.def', or name another image"
        raise ValueError(f"--config container: {image} does not exist: {mend}")
    program = "APPTAINER" if shutil.which("apptainer") else "SINGULARITY"
    binds = [os.environ.get(f"{program}_BIND", ""), *map(str, _outside([home, *map(Path, folders)]))]
    os.environ[f"{program}_BIND"] = ",".join(dict.fromkeys(filter(None, ",".join(binds).split(","))))
    if NVIDIA_DRIVER.exists():
        os.environ.setdefault(f"{program}_NV", "1")
    return image


def _outside(folders: list[Path]) -> list[Path]:
    """Return the folders, and what links in them lead to, if that is not in the working directory.

    Raises `ValueError` if such a folder does not exist.
    """
    links = [path for folder in folders for path in folder.glob("*") if path.is_symlink() and path.exists()]
    paths = [*(path.absolute() for path in folders), *(path.resolve() for path in [*folders, *links])]
    outside = [path for path in dict.fromkeys(paths) if not path.is_relative_to(Path.cwd())]
    for path in outside:
        if not path.exists():
            raise ValueError(f"{path} does not exist: create it, because a container can only be shown what exists")
    return outside
