# Needs: the configuration, and the files under workflow/.
# Gives: SETTINGS; SUITE, which holds the checked plan of all runs and answers what the rules ask (stlight/workflow_support/); and
# STLIGHT, the start of each rule's command.

import os
import sys
from pathlib import Path

RULES = workflow.current_basedir
# In a checkout, Snakemake imports the package that the jobs run. In a wheel, workflow/ lies inside the package.
if isinstance(RULES, os.PathLike):
    if (Path(RULES).parents[1] / "stlight").is_dir():
        sys.path.insert(0, str(Path(RULES).parents[1]))

# From GitHub or GitLab come the rules only. Checked here, because another version may lack what is imported below.
VERSION = "0.1.0"
from stlight import __version__ as INSTALLED

if INSTALLED != VERSION:
    # What pip installs: the repository at the same tag, or the checkout.
    ORIGIN = (
        Path(RULES).parents[1]
        if isinstance(RULES, os.PathLike)
        else f"git+https://{RULES.host}/{RULES.repo}@{RULES.ref}"
    )
    raise WorkflowError(
        f"the workflow is of version {VERSION}, but the installed package stlight of {INSTALLED}: pip install {ORIGIN}"
    )

from stlight.registry.dataset_specs import DATASETS
from stlight.runs.provenance import source_version
from stlight.runtime.job_packs import enable_packing
from stlight.workflow_support import Settings, Workflow, any_of
from stlight.workflow_support import folder_of, image, interpreter, newer_than, retries

WORKFLOW = folder_of(RULES)
try:
    SETTINGS = Settings.from_config(config, imported=IMPORTED)
    # If a module has a prefix, Snakemake adds it to the paths in rules.
    ON_DISK = SETTINGS.on_disk(workflow.modifier.modify_path)
    ON_DISK.check_folders()
    IMAGE = image(workflow, ON_DISK, WORKFLOW.parent)
    SUITE = Workflow(WORKFLOW, SETTINGS, ON_DISK)
    if workflow.is_main_process:
        SUITE.export_slots()
        enable_packing()
except ValueError as error:
    raise WorkflowError(str(error))
OUT, DATA = SETTINGS.out, SETTINGS.data
if workflow.is_main_process:
    SUITE.request_files()
    # Jobs refuse to run other code than the one that planned them. Those on a cluster inherit it.
    os.environ["STLIGHT_SOURCE"] = source_version()
# Deleted outputs of a finished run are restored only if newer than this. Jobs inherit it.
os.environ.setdefault("STLIGHT_NEWER_THAN", "0")


container: IMAGE


envvars:
    "STLIGHT_NEWER_THAN",
    "STLIGHT_SLOTS_PER_GPU",
    "STLIGHT_SOURCE",


# The shell's prefix would be that of all rules of a workflow that imports this one.
STLIGHT = ON_DISK.shell_command(
    interpreter(workflow), WORKFLOW, os.environ["STLIGHT_SOURCE"]
)
