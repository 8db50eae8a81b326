# Needs: prepared digits, where the data set has any.
# Gives: one folder for each run; record.json is written last. A run is trained once, however many items use it.


rule train:
    input:
        prepared_data,
    output:
        record=f"{OUT}/runs/{{dataset}}/{{variant}}/seed{{seed}}/record.json",
        history=f"{OUT}/runs/{{dataset}}/{{variant}}/seed{{seed}}/history.csv",
        weights=f"{OUT}/runs/{{dataset}}/{{variant}}/seed{{seed}}/weights.safetensors",
        examples=f"{OUT}/runs/{{dataset}}/{{variant}}/seed{{seed}}/examples.npz",
    log:
        f"{OUT}/logs/train/{{dataset}}/{{variant}}/seed{{seed}}.log",
    benchmark:
        f"{OUT}/benchmarks/train/{{dataset}}/{{variant}}/seed{{seed}}.tsv"
    retries: RETRIES
    conda:
        "../envs/stlight.yaml"
    # As many runs side by side as there are cores: faster than runs of several threads (docs/performance.md).
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
        # Where there is a GPU, a run leases one of its own; `--resources gpu=` or a profile says how many there are.
        gpu=1,
        gpu_percent=100 // int(SLOTS_PER_GPU),
    params:
        run=run_of,
        # A changed meaning trains again; a changed word in this file does not.
        config_hash=config_hash,
    shell:
        "stlight train {params.run:q}"
        " --config-hash {params.config_hash:q}"
        " --threads {threads}"
        " --gpus {resources.gpu}"
        ' --newer-than "$STLIGHT_NEWER_THAN"'
        " > {log:q} 2>&1"
