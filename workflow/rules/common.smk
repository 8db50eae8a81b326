# Needs: --config scale=…, results=…, data=…, hours=… (all optional) and the files under workflow/.
# Gives: SUITE, which holds the checked plan of all runs and answers what the rules ask (stlight/workflow_support.py).

import os
import sys
from pathlib import Path

from stlight.registry.dataset_specs import DATASETS
from stlight.runs.provenance import source_version
from stlight.runtime.job_packs import enable_packing
from stlight.workflow_support import Settings, Workflow, any_of, note_forced

WORKFLOW = Path(workflow.basedir) / "workflow"
try:
    SETTINGS = Settings.from_config(config)
    SETTINGS.check_folders()
    SUITE = Workflow(WORKFLOW, SETTINGS)
    if workflow.is_main_process:
        SUITE.export_slots()
        SUITE.request_files()
        enable_packing()
        # Jobs refuse to run other code than the one that planned them. Those on a cluster inherit it.
        os.environ["STLIGHT_SOURCE"] = source_version()
except ValueError as error:
    raise WorkflowError(str(error))
OUT, DATA = SETTINGS.out, SETTINGS.data


def check_writable():
    try:
        SETTINGS.check_writable()
    except ValueError as error:
        raise WorkflowError(str(error))


def await_rounds(last=None):
    """Wait for the first `last` rounds of a budget, or for all of them: until they are there, Snakemake calls again."""
    # The Snakemake inside a cluster job need not wait, because the one that submitted it has.
    if SETTINGS.hours and workflow.is_main_process:
        number, ended = 0, False
        while number != last and not ended:
            number += 1
            checkpoints.allocate.get(round=number)
            SUITE.read_rounds()
            ended = SUITE.is_last_round(number)


def experiment_inputs(wildcards):
    await_rounds()
    # Called when the DAG is built: while Snakemake reads this file, `workflow.dryrun` is always False.
    if workflow.is_main_process and not workflow.dryrun:
        SUITE.set_aside_damaged_records(wildcards)
    return SUITE.experiment_inputs(wildcards)


def rounds(wildcards):
    # A target of its own: Snakemake makes no next round for tables that are there already.
    await_rounds()
    return SUITE.round_files()


def round_inputs(wildcards):
    await_rounds(int(wildcards.round) - 1)
    # A choice stands, although a run that it was based on may be repeated.
    return [ancient(path) for path in SUITE.round_inputs(wildcards)]


def report_inputs(wildcards):
    await_rounds()
    return SUITE.report_inputs()


# A killed or failed run resumes at once; a profile may ask for more attempts. Only the Snakemake that submits jobs retries them.
RETRIES = max(2, getattr(workflow.execution_settings, "retries", 0)) if workflow.is_main_process else 0
# On a cluster, a job is alone on the core it asked for; the Snakemake inside it sees all of the node's, but may not use them.
ALL_CORES = workflow.resource_settings.cores or 1 if workflow.is_main_process else 1
# The interpreter that runs Snakemake, also if its environment is not activated. With conda, that of the rule's environment.
PYTHON = "python" if "conda" in map(str, workflow.deployment_settings.deployment_method) else sys.executable

# Deleted outputs of a finished run are restored only if newer than this. A forced workflow sets it; jobs inherit it.
os.environ.setdefault("STLIGHT_NEWER_THAN", "0")


envvars:
    "STLIGHT_NEWER_THAN",
    "STLIGHT_SLOTS_PER_GPU",
    "STLIGHT_SOURCE",


shell.prefix(SETTINGS.shell_prefix(PYTHON, WORKFLOW, os.environ["STLIGHT_SOURCE"]))


wildcard_constraints:
    dataset="[a-z][a-z0-9_]*",
    source="[a-z_]+",
    variant="[^/]+",
    seed=r"\d+",
    round=r"[1-9]\d*",
    experiment="[^/]+",
