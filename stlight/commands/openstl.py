"""The verbs for users of OpenSTL: export STLight to it, import its runs, diagnose how two protocols differ."""

import argparse
from pathlib import Path

from stlight.commands.common import argument


@argument("to", choices=("openstl",), help="program to export to")
@argument("folder", type=Path, metavar="DIR", help="folder to write to: a checkout of OpenSTL, or a new one")
def export(options: argparse.Namespace) -> None:
    """Write the files with which OpenSTL trains the published sizes of STLight."""
    from stlight.experiments import load_plan
    from stlight.openstl.export import export as write_files

    plan = load_plan(options.workflow, "paper", options.data_root)
    for path in write_files(plan, options.folder):
        print(options.folder / path)
