"""Verbs of the command line, one function each: the first line of its docstring is the help text.

Verbs import torch and the rooms when they run, so that `stlight --help` stays fast.
"""
