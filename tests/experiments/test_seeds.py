"""Which seeds runs use, and how many runs each cell gets."""

import pytest

from stlight.experiments import ExperimentError, load_plan
from stlight.experiments.plan import SHARED_SEED_FIELDS
from tests.conftest import WORKFLOW
from tests.tiny_runs import write_experiment

ALL_SCALES = sorted(path.stem for path in (WORKFLOW / "scales").glob("*.yaml"))


def seeds_of(plan, k=0):
    return {v.name: v.run_config(k).seed for e in plan.experiments.values() for v in e.variants}


def test_variants_share_seeds_only_if_their_tensors_and_clips_match(workflow):
    grid = {"initialization": ["hybrid", "kaiming_uniform"], "dilation": [1, 3], "skip": [True, False], "k1": [3, 5]}
    write_experiment(workflow, grid=grid)
    variants = load_plan(workflow, "demo").experiment("mine").variants
    seeds = [{v.run_config(0).seed for v in variants if v.axes["k1"] == k1} for k1 in (3, 5)]
    assert [len(found) for found in seeds] == [1, 1]
    assert seeds[0] != seeds[1]
    assert len({v.seed_group for v in variants}) == 2


@pytest.mark.parametrize("field", [{"max_lr": [0.001, 0.003]}, {"num_epochs": [200, 500]}, {"hidden_dim": [700, 1400]}])
def test_variants_with_other_steps_or_shapes_have_seeds_of_their_own(workflow, field):
    write_experiment(workflow, grid=field)
    one, other = load_plan(workflow, "demo").experiment("mine").variants
    assert {one.run_config(k).seed for k in range(12)}.isdisjoint(other.run_config(k).seed for k in range(12))


@pytest.mark.parametrize("scale", ALL_SCALES)
def test_no_two_groups_share_a_seed_at_any_scale(scale):
    plan, group_of = load_plan(WORKFLOW, scale), {}
    for variant in (v for experiment in plan.experiments.values() for v in experiment.variants):
        fields = {n: value for n, value in variant.config.fields.items() if n not in SHARED_SEED_FIELDS}
        for k in range(50):
            seed = variant.run_config(k).seed
            assert 0 <= seed < 2**32
            assert group_of.setdefault(seed, (fields, k)) == (fields, k)


def test_a_run_keeps_its_seed_for_good(workflow):
    """Fail if the derivation changes, because every record would be trained again."""
    write_experiment(workflow, grid={"k1": [3, 5]})
    for path in (workflow / "experiments").glob("[!m]*.yaml"):
        path.unlink()
    before = seeds_of(load_plan(workflow, "smoke"))
    write_experiment(workflow, grid={"k1": [3, 5, 7]}, title="Other words")
    after = seeds_of(load_plan(workflow, "smoke"))
    assert before.items() < after.items()


def add_to_scale(workflow, text):
    path = workflow / "scales" / "demo.yaml"
    path.write_text(path.read_text() + text)


def test_a_scale_gives_a_part_of_a_grid_more_seeds(scales):
    write_experiment(scales, grid={"k1": [3, 5], "k2": [5, 7]})
    add_to_scale(scales, "more_seeds:\n  - {experiment: mine, where: {k1: 3, k2: [5, 7]}, seeds: 4}\n")
    plan = load_plan(scales, "demo")
    mine = plan.experiment("mine")
    assert {(v.axes["k1"], v.axes["k2"]): mine.seeds_of(v) for v in mine.variants} == {
        (3, 5): 4, (3, 7): 4, (5, 5): 1, (5, 7): 1,
    }  # fmt: skip
    assert len(plan.runs) == len(mine.run_names) == 10


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("{experiment: mien, seeds: 4}", r"demo\.yaml: more_seeds\[0\]: no experiment trained at this scale.*'mine'"),
        ("{experiment: mine, where: {k3: 3}, seeds: 4}", r"more_seeds\[0\]\.where: unknown axis 'k3'"),
        ("{experiment: mine, where: {k1: 9}, seeds: 4}", r"more_seeds\[0\]\.where: no cell has k1 = 9"),
        ("{experiment: mine, where: {k1: 3}}", r"more_seeds.*seeds: is missing"),
    ],
)
def test_a_wrong_exception_names_its_place(scales, stated, message):
    write_experiment(scales, grid={"k1": [3, 5]})
    add_to_scale(scales, f"more_seeds:\n  - {stated}\n")
    with pytest.raises(ExperimentError, match=message):
        load_plan(scales, "demo")


def test_looks_must_rise(workflow):
    add_to_scale(workflow, "looks: [5, 3]\n")
    with pytest.raises(ExperimentError, match=r"looks must rise, got \[5, 3\]"):
        load_plan(workflow, "demo")
