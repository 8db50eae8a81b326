"""Which runs the paper's experiments need, what they are called, and which of them they share."""

import pytest

from stlight.config import RunConfig
from stlight.experiments import ExperimentError, load_plan
from tests.conftest import WORKFLOW
from tests.tiny_runs import write_experiment


def test_the_paper_scale_has_the_runs_of_the_supplement(paper):
    assert {name: len(e.run_names) for name, e in paper.experiments.items()} == {
        "section_b_complexity": 0,
        "table1_literature": 31,
        "table2_openstl": 12,
        "table3_kernel_sizes": 25,
        "table4_learning_rate_epochs": 7,
        "table5_final_div_factor": 12,
        "figure1_initialization": 15,
        "figure2_decoder_order": 22,
        "extra_ambiguities": 5,
        "extra_benchmark_versions": 4,
        "main_figure6_width_depth": 39,
        "main_table3_sizes": 11,
        "main_table4_skip": 15,
    }
    # The main paper's STLight-L is also a run of Tables 4 and 5, and its other sizes are runs of its two tables. Tables 1 and 2
    # share models.
    assert len(paper.runs) == 171


def test_items_share_runs(paper):
    names = [set(paper.experiments[name].run_names) for name in paper.experiments if name[:6] in ("table3", "table4", "table5")]
    assert sum(map(len, names)) == 44
    assert len(set.union(*names)) == 39
    for name in ("table2_openstl", "table4_learning_rate_epochs"):
        assert "mmnist/lr=0.001+epochs=2000/seed0" in paper.experiments[name].run_names


def test_tables_1_and_2_share_the_models_of_moving_mnist(demo, paper):
    for plan in (demo, paper):
        first, second = (set(plan.experiments[name].run_names) for name in ("table1_literature", "table2_openstl"))
        others = {f"mmnist/model={name}" for name in ("VPTR-NAR", "VPTR-FAR", "Crevnet", "IAM4VP")}
        shared = {run for run in first if run.startswith("mmnist/model=") and run.split("+")[0] not in others}
        assert shared == {run for run in second if run in first}
    assert sum(run in second for run in first) == 9


def test_the_base_run_at_paper_scale_is_stlight_l(paper):
    base = paper.runs["mmnist/stlight_l/seed0"]
    assert base == RunConfig.from_fields({"source": "files", "max_lr": 0.003}, seed=base.seed)
    assert (base.model.hidden_dim, base.model.depth, base.training.batch_size, base.training.num_epochs) == (1400, 16, 16, 200)


def test_run_names_are_unique_and_the_same_at_every_scale(demo, paper):
    # Table 2's models are trained for a share of their epochs at the smaller scales, and their names say so.
    shorter = {name.replace("epochs=2000", "epochs=50") if "model=" in name else name for name in paper.seeds}
    assert demo.seeds.keys() - {"mmnist/lr=0.001+epochs=50", "mmnist/epochs=50"} < shorter
    assert not {"main_figure6_width_depth", "main_table3_sizes"} & demo.experiments.keys()
    hashes = [config.hash for config in paper.runs.values()]
    assert len(set(hashes)) == len(hashes)
    # Snakemake cuts wildcards at a comma when it hands a job to another process.
    assert not any("," in name for name in demo.runs)
    assert "mmnist/dim=800+depth=18+overlap=2+k1=5+decoder=reassemble_shuffle+lr=0.001/seed0" in demo.runs


def test_variants_that_a_scale_makes_equal_share_their_runs(demo, paper):
    for plan, runs in ((demo, 16), (paper, 22)):
        experiment = plan.experiments["figure2_decoder_order"]
        assert (len(experiment.variants), len(experiment.run_names)) == (22, runs)
        trained = {v.run_name(0): v.config for v in experiment.variants}
        assert len(set(trained.values())) == runs
        assert all(trained[v.run_name(0)] == v.config for v in experiment.variants)


@pytest.mark.parametrize("scale", ["smoke", "small"])
def test_every_scale_can_be_loaded(scale):
    plan = load_plan(WORKFLOW, scale)
    assert all(set(experiment.run_names) <= plan.runs.keys() for experiment in plan.experiments.values())


def test_a_new_file_is_a_new_experiment_and_shares_runs(workflow):
    before = load_plan(workflow, "demo")
    write_experiment(workflow, grid={"dilation": [3, 4], "skip": [True, False]})
    after = load_plan(workflow, "demo")
    added = set(after.runs) - set(before.runs)
    # The skip's own experiment trains the model without it.
    assert added == {f"mmnist/{name}/seed0" for name in ("dilation=4", "dilation=4+skip=false")}
    shared = {f"mmnist/{name}/seed0" for name in ("stlight_l", "skip=false")}
    assert set(after.experiments["mine"].run_names) == added | shared


def test_an_experiment_s_hash_changes_with_its_content_and_the_scale(scales):
    write_experiment(scales)
    hashes = [load_plan(scales, scale).experiment("mine").hash for scale in ("demo", "demo", "small")]
    write_experiment(scales, summary="Other words.")
    hashes.append(load_plan(scales, "demo").experiment("mine").hash)
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_unknown_runs_and_experiments_name_the_nearest(demo):
    with pytest.raises(ExperimentError, match=r"did you mean 'mmnist/k1=11\+lr=0.001/seed0'"):
        demo.run("mmnist/k1=11+lr=0.001/seed")
    with pytest.raises(ExperimentError, match="did you mean 'table3_kernel_sizes'"):
        demo.experiment("table3_kernels")
