# Needs: every table, figure and set of examples.
# Gives: the verdicts, the errata, the noise floor, the selection audit, and the page that holds it all.


rule report:
    input:
        report_inputs,
        rounds,
    output:
        page=report(
            f"{OUT}/report.html",
            caption="../report/report.rst",
            category="Report",
            subcategory="All items",
            labels={"contents": "page", "scale": SETTINGS.scale},
        ),
        claims=report(
            f"{OUT}/claims.csv",
            caption="../report/claims.rst",
            category="Report",
            subcategory="All items",
            labels={"contents": "verdicts", "scale": SETTINGS.scale},
        ),
        errata=f"{OUT}/errata.md",
        noise_floor=f"{OUT}/noise_floor.csv",
        selection_audit=f"{OUT}/selection_audit.csv",
    log:
        f"{OUT}/logs/report.log",
    conda:
        "../envs/stlight.yaml"
    resources:
        gpu=0,
        mem_mb=2000,
        runtime=20,
    params:
        stlight=stlight,
    shell:
        "{params.stlight} report > {log:q} 2>&1"
