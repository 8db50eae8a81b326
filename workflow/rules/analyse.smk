# Needs: the records of an experiment's runs, and its counts, times and memory if it shows any.
# Gives: its table (CSV, Markdown, LaTeX), its figure and, if it trains, example predictions (PNG, SVG).


# All experiments in one job, because loading torch takes as long as counting one of them.
rule count:
    output:
        SUITE.count_files(),
    log:
        f"{OUT}/logs/count.log",
    # Before the runs, because at the end it would leave a core idle.
    priority: 1
    conda:
        "../envs/stlight.yaml"
    resources:
        gpu=0,
        mem_mb=1000,
        runtime=10,
    params:
        stlight=stlight,
        experiments=list(SUITE.counted()),
        hashes=list(SUITE.counted().values()),
    shell:
        "{params.stlight} count {params.experiments:q} > {log:q} 2>&1"


rule measure:
    output:
        f"{OUT}/speed/{{experiment}}.json",
    log:
        f"{OUT}/logs/measure/{{experiment}}.log",
    # More than all jobs together that could run in its place: Snakemake's solver adds their priorities.
    priority: 10000
    conda:
        "../envs/stlight.yaml"
    # It takes all cores so that nothing runs beside it, but computes in one thread, as training does by default. It starts
    # before the runs, because later it would have to wait until all cores are free.
    # On a cluster, a job is alone on the core it asked for; the Snakemake inside it sees all of the node's, but may not use them.
    threads: workflow.resource_settings.cores or 1 if workflow.is_main_process else 1
    resources:
        gpu=1,
        gpu_percent=100,
        mem_mb=4000,
        runtime=60,
    params:
        stlight=stlight,
        experiment=SUITE.experiment_hash,
    shell:
        "{params.stlight} measure {wildcards.experiment:q} --threads 1 > {log:q} 2>&1"


LABELS = {"experiment": "{experiment}", "scale": SETTINGS.scale}
ITEM = dict(
    table=report(
        f"{OUT}/tables/{{experiment}}.csv",
        caption="../report/table.rst",
        category="Tables",
        subcategory=SUITE.paper_item,
        labels=LABELS,
    ),
    table_texts=multiext(f"{OUT}/tables/{{experiment}}", ".md", ".tex"),
    figure=report(
        f"{OUT}/figures/{{experiment}}.png",
        caption="../report/figure.rst",
        category="Figures",
        subcategory=SUITE.paper_item,
        labels=LABELS,
    ),
    figure_vectors=multiext(f"{OUT}/figures/{{experiment}}", ".svg", ".pdf"),
)


rule analyse:
    input:
        experiment_inputs,
        rounds,
    output:
        **ITEM,
        examples=report(
            f"{OUT}/examples/{{experiment}}.png",
            caption="../report/examples.rst",
            category="Example predictions",
            subcategory=SUITE.paper_item,
            labels=LABELS,
        ),
        examples_svg=f"{OUT}/examples/{{experiment}}.svg",
    log:
        f"{OUT}/logs/analyse/{{experiment}}.log",
    wildcard_constraints:
        experiment=any_of(SUITE.experiments(trained=True)),
    # As soon as its runs are finished, not after all others have started.
    priority: 1
    conda:
        "../envs/stlight.yaml"
    resources:
        gpu=0,
        mem_mb=1000,
        runtime=10,
    params:
        stlight=stlight,
        experiment=SUITE.experiment_hash,
    shell:
        "{params.stlight} analyse --complete {wildcards.experiment:q} > {log:q} 2>&1"


# An experiment that trains nothing has no predictions to show.
use rule analyse as analyse_counts with:
    output:
        **ITEM,
    wildcard_constraints:
        experiment=any_of(SUITE.experiments(trained=False)),
