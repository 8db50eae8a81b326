# The workflow is in workflow/. This file lets `snakemake` find profiles/default, which must lie beside the file that it is given.


include: "workflow/Snakefile"


# Snakemake drops the default target of an included file.
workflow.default_target = "all"
