# Needs: SETTINGS, SUITE and STLIGHT (settings.smk).
# Gives: what rules look up when the DAG is built, and the constraints of their wildcards.


def stlight(wildcards, resources):
    # Snakemake does not compare params that depend on resources: a moved folder is no reason to train again.
    return STLIGHT


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


def prepared_data(wildcards):
    # Called when the DAG is built: while Snakemake reads this file, it does not know yet what is forced.
    if workflow.is_main_process:
        os.environ["STLIGHT_NEWER_THAN"] = newer_than(workflow)
    return SUITE.prepared_data(wildcards)


def experiment_inputs(wildcards):
    await_rounds()
    # While Snakemake reads this file, `workflow.dryrun` is always False.
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


wildcard_constraints:
    dataset="[a-z][a-z0-9_]*",
    source="[a-z_]+",
    variant="[^/]+",
    seed=r"\d+",
    round=r"[1-9]\d*",
    experiment="[^/]+",
