"""The facts of a protocol that change a reported number: what a difference changes, and where that is documented."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """One fact of one run's protocol."""

    value: str | None
    """None if it cannot be known."""
    evidence: str
    """Where the value is from, or why it is unknown."""


@dataclass(frozen=True)
class Spec:
    """Consequence of a difference in one fact."""

    effect: str
    source: str


FACTS = {
    "data set": Spec("every number", "docs/data.md"),
    "frames": Spec("every number: MSE and MAE are sums over the pixels of a frame", "docs/openstl.md"),
    "prediction": Spec("every number where the horizon is longer than the context (KTH)", "main paper, Section 4.2"),
    "model": Spec("every number", "main paper, Table 3"),
    "training clips per epoch": Spec("every number: the number of optimizer steps, and what is seen", "OpenSTL issue 205"),
    "augmentation": Spec("every number: the published runs have none", "OpenSTL's configurations"),
    "validation clips": Spec("which epoch is reported: the best one on the test clips, or on others", "docs/openstl.md"),
    "test clips": Spec("every number: they are means over these clips", "OpenSTL's drop_last"),
    "range of targets": Spec("every number: [-1, 1] instead of [0, 1] multiplies MSE by 4 and MAE by 2", "docs/data.md"),
    "epochs": Spec("every number: longer schedules end lower", "OpenSTL issues 30, 57 and 135; supplement, Table 4"),
    "clips per step": Spec("every number: gradients and number of steps", "OpenSTL issue 205; main paper, Table 2"),
    "clips per BatchNorm": Spec("every number: each GPU normalizes with its own clips", "docs/openstl.md"),
    "BatchNorm at test": Spec("every number: running statistics, or those of each test batch", "docs/openstl.md"),
    "BatchNorm momentum": Spec("every number: how many steps the running statistics remember", "docs/openstl.md"),
    "optimizer": Spec("every number", "main paper, Table 2"),
    "learning rate": Spec("every number", "supplement, Table 4; OpenSTL issue 7"),
    "schedule": Spec("every number", "main paper, Table 2; supplement, Table 5"),
    "schedule stepped": Spec(
        "every number: stepped by epoch, OneCycle ends before its rate has risen", "OpenSTL issues 99, 113 and 117"
    ),
    "precision": Spec("every number, slightly; float16 may also diverge", "docs/openstl.md"),
    "TensorFloat-32": Spec("every number, in its last digits", "docs/openstl.md"),
    "epoch reported": Spec(
        "every number: the best epoch is lower than the last, most if the test clips choose it", "docs/openstl.md"
    ),
    "MSE and MAE": Spec("MSE and MAE, by the number of values in a frame", "OpenSTL issues 29 and 124"),
    "data range of SSIM": Spec("SSIM: 0.92 with range 2 is 0.80 with range 1 on the same frames", "docs/openstl.md"),
}
"""By name, in the order of the table."""
