# The STLight supplement, experiment by experiment. Configuration is checked in common.smk before the graph is built.

from snakemake.utils import min_version

min_version("9.20")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/analyse.smk"
include: "workflow/rules/report.smk"


# The nodes of a cluster may have no way out.
localrules:
    all,
    fetch,


# Every table and figure of the supplement at the chosen scale, the verdicts, and the page that holds them all.
rule all:
    default_target: True
    input:
        tables_and_figures(),
        f"{OUT}/report.html",


onstart:
    note_what_is_forced()


# The other items are finished by now; of these, the cells there are, and a line for each that waits, with the reason.
onerror:
    shell("( stlight waiting ) || true")
