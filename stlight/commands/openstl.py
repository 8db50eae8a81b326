"""The verbs for users of OpenSTL: export STLight to it, import its runs, diagnose how two protocols differ."""

import argparse
import json
from pathlib import Path

from stlight.commands.common import argument, tell


@argument("to", choices=("openstl",), help="program to export to")
@argument("folder", type=Path, metavar="DIR", help="folder to write to: a checkout of OpenSTL, or a new one")
def export(options: argparse.Namespace) -> None:
    """Write the files with which OpenSTL trains the published sizes of STLight."""
    from stlight.experiments import load_plan
    from stlight.openstl.export import export as write_files

    plan = load_plan(options.workflow, "paper", options.data_root)
    for path in write_files(plan, options.folder):
        print(options.folder / path)


@argument("of", choices=("openstl",), help="program whose run is imported")
@argument("work_dir", type=Path, metavar="WORK_DIR", help="folder of a finished run: work_dirs/NAME of OpenSTL")
def import_(options: argparse.Namespace) -> None:
    """Import a finished run of OpenSTL as a record, into the folder of --results."""
    from stlight.openstl.importing import import_run

    print(import_run(options.work_dir, options.results))


@argument("a", type=Path, metavar="A", help="a run's folder, or a work dir of OpenSTL")
@argument("b", type=Path, metavar="B", help="the run to compare with it")
@argument("--all", action="store_true", dest="every_fact", help="list every fact, not only those that differ")
@argument("--json", metavar="FILE", help="write everything as JSON to a file, or to stdout instead of the text with -")
def diagnose(options: argparse.Namespace) -> int:
    """Say where the protocols of two runs differ, each of OpenSTL or of this suite.

    Returns 0 if no known fact differs, 1 if one does, and 2 if a run cannot be read.
    """
    from stlight.openstl.diagnose import as_json, as_text
    from stlight.openstl.diagnose import diagnose as compare_protocols
    from stlight.runtime.atomic_files import write_atomically

    try:
        found = compare_protocols(options.a, options.b)
        document = json.dumps(as_json(found), indent=1) + "\n" if options.json else ""
        if options.json not in (None, "-"):
            write_atomically(Path(options.json), document)
    except (ValueError, OSError) as error:
        tell(f"stlight: {error}")
        return 2
    print(document if options.json == "-" else as_text(found, options.every_fact), end="\n" if options.json != "-" else "")
    return found.exit_status
