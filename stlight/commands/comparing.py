"""The verb that compares two folders of results."""

import argparse
import json
from pathlib import Path

from stlight.commands.common import argument, tell


@argument("a", type=Path, metavar="A", help="folder of results of a scale, usually ours: results/reference/demo")
@argument("b", type=Path, metavar="B", help="folder to compare with it, usually yours: results/demo")
@argument("--all", action="store_true", dest="every_cell", help="list every cell and cause, not only the cells that differ")
@argument("--json", metavar="FILE", help="write everything as JSON to a file, or to stdout instead of the text with -")
def compare(options: argparse.Namespace) -> int:
    """Compare two folders of results cell by cell: same to the bit, within noise, or different; verdicts that flip; causes.

    Returns 0 if no cell is different and no verdict flipped, 1 if one is, and 2 if the folders cannot be compared.
    """
    from stlight.analysis.comparison.compare import compare as compare_results
    from stlight.analysis.comparison.folders import Results
    from stlight.analysis.comparison.text import as_json, as_text
    from stlight.runtime.atomic_files import write_atomically

    try:
        found = compare_results(Results(options.a), Results(options.b))
        document = json.dumps(as_json(found), indent=1, allow_nan=False) + "\n" if options.json else ""
        if options.json not in (None, "-"):
            write_atomically(Path(options.json), document)
    except (ValueError, OSError) as error:
        tell(f"stlight: {error}")
        return 2
    print(document if options.json == "-" else as_text(found, options.every_cell), end="\n" if options.json != "-" else "")
    return found.exit_status
