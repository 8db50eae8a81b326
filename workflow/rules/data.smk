# Needs: nothing for the embedded digits; the official files under the data root for source "files".
# Gives: one file of checked, split digits for each data set and source, shared by all scales.


rule prepare:
    input:
        official_files,
    output:
        f"{DATA}/prepared/{{dataset}}-{{source}}.npz",
    log:
        f"{DATA}/prepared/{{dataset}}-{{source}}.log",
    benchmark:
        f"{DATA}/prepared/{{dataset}}-{{source}}.tsv"
    conda:
        "../envs/stlight.yaml"
    resources:
        gpu=0,
        mem_mb=2000,
        runtime=10,
    shell:
        "stlight prepare {wildcards.dataset:q} {wildcards.source:q}" " > {log:q} 2>&1"
