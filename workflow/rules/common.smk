# Needs: --config scale=…, results=…, data=… (all optional) and the files under workflow/.
# Gives: PLAN, the checked plan of all runs, and the functions the rules look things up with.

import os
import re
import shlex
import sys
import time
from pathlib import Path

from stlight.config import ConfigError
from stlight.registry.dataset_specs import DATASETS
from stlight.experiments.yaml_files import ExperimentError
from stlight.experiments import load_plan
from stlight.runtime.atomic_files import has_changed
from stlight.runs.record import recorded
from stlight.runtime.run_lock import living_holder


WORKFLOW = Path(workflow.basedir) / "workflow"


def setting(name, default):
    return str(config.get(name, default))


def yes_or_no(name):
    # Snakemake reads a yes on its command line as a truth value.
    value = config.get(name, False)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def checked_plan():
    for name in config:
        if name not in SETTINGS:
            raise WorkflowError(
                f"--config {name}: unknown; the settings are {', '.join(SETTINGS)}"
            )
    if not re.fullmatch("[1-9][0-9]*", SLOTS_PER_GPU):
        raise WorkflowError(
            f"--config slots_per_gpu: must be a number from 1, got {SLOTS_PER_GPU!r}"
        )
    if MIXED_VERSIONS not in ("yes", "no"):
        raise WorkflowError(
            f"--config mixed_versions: must be yes or no, got {MIXED_VERSIONS!r}"
        )
    try:
        return load_plan(WORKFLOW, SCALE, Path(DATA))
    except (ExperimentError, ConfigError) as error:
        raise WorkflowError(str(error))


def set_aside_if_damaged(name):
    # A damaged record is no result, and Snakemake, which looks at files and times only, must not find it.
    folder = Path(OUT) / "runs" / name
    if workflow.is_main_process and not workflow.dryrun and not living_holder(folder):
        was_there = (folder / "record.json").exists()
        recorded(folder, PLAN.run(name).hash)
        return was_there and not (folder / "record.json").exists()
    return False


def ask_for_files():
    # The benchmark's files are no inputs, for those still to be fetched are not there when the graph is built. What stands for
    # them is a file that is written when they are no longer what was verified; Snakemake also compares the content of such
    # small ones, so it says when.
    sources = {(c.data.dataset, c.data.source) for c in PLAN.runs.values()}
    for dataset in DATASETS:
        verified, asked = (
            Path(DATA) / "fetched" / f"{dataset}.{end}" for end in ("json", "asked")
        )
        if (dataset, "files") in sources and (
            not asked.exists() or has_changed(verified, Path(DATA))
        ):
            asked.parent.mkdir(parents=True, exist_ok=True)
            asked.write_text(str(time.time_ns()))


def command_line():
    # `stlight` in a rule's shell is this suite's command line with the settings of this call. They are no params: a moved
    # folder is no reason to train again.
    options = ["--scale", SCALE, "--results", RESULTS, "--data-root", DATA]
    options += ["--workflow", str(WORKFLOW)]
    options += ["--slots-per-gpu", SLOTS_PER_GPU]
    options += ["--mixed-versions"] if MIXED_VERSIONS == "yes" else []
    # The interpreter that runs Snakemake, also when its environment was not activated; with conda, the environment's.
    in_conda = "conda" in map(str, workflow.deployment_settings.deployment_method)
    python = (
        ["env", f"PYTHONPATH={workflow.basedir}", "python"]
        if in_conda
        else [sys.executable]
    )
    # In the shell's own place, so that a signal to the job reaches it and no shell ends before it has saved. Thus the last
    # command of a rule.
    call = f'stlight() {{ exec {shlex.join(python)} -m stlight "$@" {shlex.join(options)}; }}; '
    # Snakemake formats it.
    return call.replace("{", "{{").replace("}", "}}")


SPLITS = ("train", "validation", "test")
SETTINGS = ("scale", "results", "data", "slots_per_gpu", "mixed_versions")
SCALE = setting("scale", "demo")
RESULTS = setting("results", "results")
DATA = setting("data", "data")
SLOTS_PER_GPU = setting("slots_per_gpu", "1")
MIXED_VERSIONS = yes_or_no("mixed_versions")
OUT = f"{RESULTS}/{SCALE}"
# A killed or failed run goes on from its checkpoint at once; a profile may want more tries. Within a job of a cluster, where
# another Snakemake runs it, there are none: the job is what is tried again.
ASKED_FOR = getattr(workflow.execution_settings, "retries", 0)
RETRIES = max(2, ASKED_FOR) if workflow.is_main_process else 0
PLAN = checked_plan()
if workflow.is_main_process and not workflow.dryrun:
    ask_for_files()
# What was finished before this time is trained again where that is forced; the jobs inherit it.
os.environ.setdefault("STLIGHT_NEWER_THAN", "0")


envvars:
    "STLIGHT_NEWER_THAN",


shell.prefix(command_line())


wildcard_constraints:
    dataset="[a-z][a-z0-9_]*",
    source="[a-z_]+",
    variant="[^/]+",
    seed=r"\d+",
    experiment="[^/]+",


def run_of(wildcards):
    return f"{wildcards.dataset}/{wildcards.variant}/seed{wildcards.seed}"


def config_hash(wildcards):
    return PLAN.run(run_of(wildcards)).hash


def files_asked_for(wildcards):
    asked = f"{DATA}/fetched/{wildcards.dataset}.asked"
    # A dry run makes none.
    return [asked] if Path(asked).exists() else []


def source_files(wildcards):
    if wildcards.source != "files":
        return []
    if wildcards.dataset not in DATASETS:
        own = (f"{DATA}/{wildcards.dataset}/{split}.npy" for split in SPLITS)
        return [path for path in own if Path(path).exists()]
    # Also what was asked, for what verified it is gone when it was found wrong.
    return [f"{DATA}/fetched/{wildcards.dataset}.json", *files_asked_for(wildcards)]


def prepared_data(wildcards):
    data = PLAN.run(run_of(wildcards)).data
    if data.source == "stand_in":
        return []
    return f"{DATA}/prepared/{data.dataset}-{data.source}.npz"


def experiment_inputs(wildcards):
    experiment = PLAN.experiment(wildcards.experiment)
    table = Path(OUT) / "tables" / f"{experiment.name}.csv"
    damaged = [name for name in experiment.run_names if set_aside_if_damaged(name)]
    if damaged and table.exists():
        table.replace(f"{table}.set-aside")
    records = [f"{OUT}/runs/{name}/record.json" for name in experiment.run_names]
    counts = [f"{OUT}/complexity/{experiment.name}.json"] if experiment.counts else []
    speeds = [f"{OUT}/speed/{experiment.name}.json"] if experiment.timed else []
    return records + counts + speeds


def all_cores():
    # On a cluster no number is stated: there a job is alone in what it was given.
    return workflow.resource_settings.cores or 1


def claim_counts():
    return [
        f"{OUT}/complexity/{e.name}.json" for e in PLAN.experiments.values() if e.counts
    ]


def stated_errata():
    # A workflow of one's own has none.
    paths = [WORKFLOW / name for name in ("errata.yaml", "quoted_sources.yaml")]
    return [str(path) for path in paths if path.exists()]


def note_what_is_forced():
    settings = workflow.dag_settings
    forced = settings.forceall or settings.forcetargets or settings.forcerun
    os.environ["STLIGHT_NEWER_THAN"] = str(time.time() if forced else 0)


def experiment_hash(wildcards):
    return PLAN.experiment(wildcards.experiment).hash


def trained_experiments():
    return [e.name for e in PLAN.experiments.values() if e.train]


def untrained_experiments():
    return [e.name for e in PLAN.experiments.values() if not e.train]


def any_of(names):
    # A constraint that matches nothing, where there are none.
    return "|".join(map(re.escape, names)) or r"(?!)"


def tables_and_figures():
    kinds = (
        ("tables", PLAN.experiments, ("csv", "md", "tex")),
        ("figures", PLAN.experiments, ("png", "svg", "pdf")),
        ("examples", trained_experiments(), ("png", "svg")),
    )
    return [
        f"{OUT}/{folder}/{name}.{suffix}"
        for folder, names, suffixes in kinds
        for name in names
        for suffix in suffixes
    ]
