"""Break runs in many ways and check that they resume to the same outputs: `python -m tests.system.faults`."""

import argparse
import os
import sys
import time

os.environ["OMP_NUM_THREADS"] = "1"

from tabulate import tabulate

from tests.system.faults.cases import CASES
from tests.system.faults.runs import warm_up


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.system.faults", description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"parts of names of: {', '.join(CASES)} (all)")
    parser.add_argument("--quick", action="store_true", help="a part of each fault, in a minute")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments and places (0)")
    options = parser.parse_args()
    warm_up()
    rows, wrong = [], 0
    for name, case in CASES.items():
        if options.cases and not any(part in name for part in options.cases):
            continue
        started = time.perf_counter()
        figures = {"wrong": 0, **case(options.quick, options.seed)}
        bad = figures.pop("wrong")
        wrong += bad
        words = ", ".join(f"{figures[figure]} {figure}" for figure in figures)
        rows.append([name, words, f"{bad} WRONG" if bad else "as they should", f"{time.perf_counter() - started:.0f} s"])
        print(tabulate(rows[-1:], tablefmt="plain"), file=sys.stderr, flush=True)
    print(tabulate(rows, ["fault", "figures", "ended", "took"], tablefmt="github"))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
