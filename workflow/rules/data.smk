# Needs: nothing for the embedded digits; for source "files" the benchmark's files, under the data root or from the network, or a
# custom data set.
# Gives: what was verified or fetched (JSON), and the checked and split frames (NPZ). All scales share both.


# The files themselves must not be outputs, because Snakemake would delete files that a user has put there.
rule fetch:
    input:
        SUITE.fetch_marker,
    output:
        f"{DATA}/fetched/{{dataset}}.json",
    log:
        f"{DATA}/fetched/{{dataset}}.log",
    wildcard_constraints:
        dataset=any_of(DATASETS),
    # Runs wait for it.
    priority: 1
    # The nodes of a cluster may have no network access.
    localrule: True
    conda:
        "../envs/stlight.yaml"
    resources:
        gpu=0,
    params:
        stlight=stlight,
    shell:
        "{params.stlight} fetch {wildcards.dataset:q} > {log:q} 2>&1"


rule prepare:
    input:
        SUITE.source_files,
    output:
        f"{DATA}/prepared/{{dataset}}-{{source}}.npz",
    log:
        f"{DATA}/prepared/{{dataset}}-{{source}}.log",
    priority: 1
    conda:
        "../envs/stlight.yaml"
    resources:
        gpu=0,
        mem_mb=2000,
        runtime=60,
    params:
        stlight=stlight,
    shell:
        "{params.stlight} prepare {wildcards.dataset:q} {wildcards.source:q} > {log:q} 2>&1"
