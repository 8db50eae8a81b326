"""Find the STLights that a printed number of parameters, and of FLOPs, can describe."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--params", required=True, help="parameters as printed: 32.9M")
    parser.add_argument("--flops", help="FLOPs of one clip as printed: 32.3G (default: list all that fit the parameters)")
    parser.add_argument("--dataset", default="mmnist", help="mmnist, mfmnist, taxibj or kth (default: mmnist)")
    parser.add_argument("--kernels", type=int, nargs=2, metavar="K", help="search only these two kernel sizes, in either order")
    for name in ("hidden-dim", "depth", "patch-size", "overlap"):
        parser.add_argument(f"--{name}", type=int, help=f"search only this {name}")


def run(options: argparse.Namespace) -> None:
    """Print the layouts that fit, and in which counting of FLOPs. Raises `ValueError` if none does."""
    from tabulate import tabulate

    from stlight.costs.identify import identify
    from stlight.experiments.printed_number import PrintedNumber
    from stlight.registry.dataset_specs import DATASETS

    def printed(option: str, text: str) -> PrintedNumber:
        try:
            number = PrintedNumber(text)
        except ValueError as error:
            raise ValueError(f"{option} {error}") from None
        if number.value <= 0:
            raise ValueError(f"{option} must be above 0, got {text}")
        return number

    if options.dataset not in DATASETS:
        raise ValueError(f"--dataset must be one of {', '.join(DATASETS)}, got {options.dataset!r}")
    parameters = printed("--params", options.params)
    flops = printed("--flops", options.flops) if options.flops is not None else None
    k1, k2 = sorted(options.kernels) if options.kernels else (None, None)
    narrowed = {name: getattr(options, name) for name in ("hidden_dim", "depth", "patch_size", "overlap")}
    found = identify(parameters, flops, DATASETS[options.dataset].shape, k1=k1, k2=k2, **narrowed)
    asked = f"{parameters} parameters" + (f" and {flops} FLOPs" if flops else "") + f" on {options.dataset}"
    if found.empty:
        raise ValueError(f"no layout has {asked}, in either counting")
    countings = {"flops": "FLOPs", "flops_without_depthwise": "depthwise as 0"}
    table = found[["hidden_dim", "depth", "k1", "k2", "patch_size"]].assign(
        overlap=found["overlap"].replace({0: "0, 1"}), parameters=[f"{count / 1e6:.3f}M" for count in found["parameters"]]
    )
    for name, head in countings.items():
        marks = [" *" if flops and fits else "" for fits in found[f"{name}_fit"]]
        table[head] = [f"{count / 1e9:.4f}G{mark}" for count, mark in zip(found[name], marks, strict=True)]
    print(tabulate(table.to_dict("list"), "keys", disable_numparse=True))
    print("\nk1 and k2 may be exchanged.")
    if flops:
        fit = {name: int(found[f"{name}_fit"].sum()) for name in countings}
        print(f"* rounds to {flops}: {fit['flops']} of {len(found)} as they are,", end=" ")
        print(f"{fit['flops_without_depthwise']} with depthwise convolutions counted as 0.")
