# The STLight supplement, experiment by experiment. common.smk checks the configuration before the DAG is built.

from snakemake.utils import min_version

min_version("9.20")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/rounds.smk"
include: "workflow/rules/analyse.smk"
include: "workflow/rules/report.smk"


# The nodes of a cluster may have no network access.
localrules:
    all,
    fetch,


# Every table and figure of the supplement at the chosen scale, the verdicts, and the report page.
rule all:
    default_target: True
    input:
        SUITE.items(),
        rules.report.output,
        rounds,


onstart:
    check_writable()
    note_forced(workflow.dag_settings)


# Items without failed jobs are finished by now. For the others, write the cells that exist and say why the rest is missing.
onerror:
    shell("( stlight waiting ) || true")
