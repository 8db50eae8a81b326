"""OpenSTL, the benchmark that the paper used: export STLight to it, import its runs, and diagnose how protocols differ."""
