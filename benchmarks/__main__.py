"""Run the benchmark and print its table."""

import argparse
import gc
import os
import sys


def main() -> None:
    """Parse the command line and run the cases. Threads are set before torch is loaded."""
    if sys.argv[1:2] == ["gpu"]:
        # Before other imports, because a bare GPU machine lacks what they need.
        from benchmarks.gpu import main as measure_gpu

        sys.exit(measure_gpu(sys.argv[2:]))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "cases",
        nargs="*",
        help="steps, baselines, prebuilt, learning, moving_mnist, reading, ssim, start, graph (all); or gpu, see gpu --help",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes and no times: check only that both sides agree")
    parser.add_argument("--threads", type=int, default=2, help="threads of both sides (2); one for the smaller models")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)

    import torch

    from stlight.runtime.process import leave_out_compiler

    if options.device == "cpu":
        leave_out_compiler()

    from benchmarks import baselines, frames, learning, prebuilt, steps, workflow
    from benchmarks.harness import BenchmarkOptions, Timing, render
    from stlight.training.devices import describe_device

    functions = (
        steps.steps,
        baselines.baselines,
        prebuilt.prebuilt,
        learning.learning,
        frames.moving_mnist,
        frames.reading,
        frames.ssim,
        workflow.start,
        workflow.graph,
    )
    cases = {function.__name__: function for function in functions}
    if unknown := set(options.cases) - set(cases):
        parser.error(f"no such case: {', '.join(unknown)}")
    gc.freeze()
    rows: list[Timing] = []
    for name in options.cases or cases:
        for row in cases[name](BenchmarkOptions(options.threads, options.device, options.quick)):
            rows.append(row)
            print(row.case, file=sys.stderr, flush=True)
    print(f"\n{describe_device(torch.device(options.device))}, torch {torch.__version__}\n\n{render(rows)}")


if __name__ == "__main__":
    main()
