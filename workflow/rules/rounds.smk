# Needs: --config hours=…, a budget in core hours, and the records of the runs of all earlier rounds.
# Gives: which cells the next round gives more runs, and why. The last round adds none: everything is settled or hopeless, or the
# budget is spent. Without a budget nothing asks for a round.


checkpoint allocate:
    input:
        round_inputs,
    output:
        f"{OUT}/rounds/{{round}}.json",
    log:
        f"{OUT}/logs/rounds/{{round}}.log",
    # Until the round is there, cores may be idle.
    priority: 20000
    conda:
        "../envs/stlight.yaml"
    # The first round times a few steps of each kind of run where they will run.
    resources:
        gpu=1,
        gpu_percent=100,
        mem_mb=4000,
        runtime=30,
    params:
        stlight=stlight,
        # A round that added runs stands, although the budget has grown since; the last round does not.
        basis=SUITE.round_basis,
    shell:
        f"{{params.stlight}} allocate {{wildcards.round}} --hours {SETTINGS.hours}"
        " > {log:q} 2>&1"
