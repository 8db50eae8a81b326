# Needs: the prepared data, if the run's clips are not generated.
# Gives: one folder for each run; record.json is written last. A run is trained once, even if several items use it.


rule train:
    input:
        prepared_data,
    output:
        record=f"{OUT}/runs/{{dataset}}/{{variant}}/seed{{seed}}/record.json",
        history=f"{OUT}/runs/{{dataset}}/{{variant}}/seed{{seed}}/history.csv",
        losses=f"{OUT}/runs/{{dataset}}/{{variant}}/seed{{seed}}/losses.csv",
        weights=f"{OUT}/runs/{{dataset}}/{{variant}}/seed{{seed}}/weights.safetensors",
        examples=f"{OUT}/runs/{{dataset}}/{{variant}}/seed{{seed}}/examples.npz",
    log:
        f"{OUT}/logs/train/{{dataset}}/{{variant}}/seed{{seed}}.log",
    # Long runs first: at the end one would leave cores idle.
    priority: SUITE.run_priority
    retries: retries(workflow)
    conda:
        "../envs/stlight.yaml"
    # One thread each and a run on every core is faster than runs of several threads (docs/performance.md).
    threads: 1
    resources:
        mem_mb=2000,
        runtime=SUITE.run_minutes,
        # If there are GPUs, a run leases one of them; `--resources gpu=` or a profile says how many there are.
        gpu=1,
        gpu_percent=SUITE.gpu_percent,
        slots_per_gpu=SUITE.slots_per_gpu,
    params:
        stlight=stlight,
        run=SUITE.run_name,
        # A changed configuration trains again; a changed comment in its file does not.
        config_hash=SUITE.config_hash,
    shell:
        "{params.stlight} train {params.run:q}"
        " --config-hash {params.config_hash:q}"
        " --threads {threads}"
        " --gpus {resources.gpu}"
        " --slots-per-gpu {resources.slots_per_gpu}"
        ' --newer-than "$STLIGHT_NEWER_THAN"'
        " > {log:q} 2>&1"
