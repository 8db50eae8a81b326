"""Verbs of the command line, one module each: `add_arguments(parser)` declares its options and `run(options)` does the work.

The first line of a module's docstring is its help text. Modules import torch and the rooms inside `run`, so that
`stlight --help` stays fast.
"""
