"""How a scale translates what an experiment states, and where its clips come from."""

import pytest
import yaml

from stlight.experiments import ExperimentError, load_plan, load_scale
from stlight.registry.dataset_specs import DATASETS
from stlight.registry.model_specs import OURS
from tests.conftest import WORKFLOW
from tests.tiny_runs import write_experiment

BALLS = {"context_frames": 4, "horizon_frames": 6, "channels": 3, "height": 16, "width": 24}
BALLS |= {"clips_per_epoch": 500, "validation_clips": 40, "test_clips": 50}


def test_stated_values_follow_the_scale_in_proportion(demo):
    base = demo.runs["mmnist/lr=0.001/seed0"]
    for name, factor in {"epochs=500": 2.5, "epochs=1000": 5, "epochs=2000": 10}.items():
        assert demo.runs[f"mmnist/lr=0.001+{name}/seed0"].training.num_epochs == factor * base.training.num_epochs
    assert demo.runs["mmnist/stlight_l/seed0"].training.max_lr == pytest.approx(3 * base.training.max_lr)
    # Rounded to a width that the patches divide: 24 · 1200 / 1400 = 20.6, and the depth of 3 · 20 / 16 = 3.75.
    for decoder in ("", "+decoder=reassemble_shuffle"):
        model = demo.runs[f"mmnist/dim=1200+depth=20+overlap=2+k1=5{decoder}+lr=0.001/seed0"].model
        assert (model.hidden_dim, model.depth, model.overlap) == (20, 4, 2)


def test_fields_that_a_scale_does_not_name_keep_their_values(demo):
    assert {c.model.k1 for c in demo.runs.values()} == {3, 5, 7, 9, 11}
    assert {c.model.overlap for c in demo.runs.values()} == {0, 2}
    assert {c.training.final_div_factor for c in demo.runs.values()} == {1000, 3000, 10000}


def test_scheduled_sampling_takes_the_same_share_of_a_run_at_every_scale(demo, paper):
    # 2000, 50 and 150 epochs of the data set's clips in batches of 16.
    steps_of_the_paper = {"mmnist": 1_250_000, "taxibj": 63_941, "kth": 48_750}
    for plan in (demo, paper):
        baselines = [config for config in plan.runs.values() if config.model.model != OURS]
        assert {config.data.dataset for config in baselines} == steps_of_the_paper.keys()
        for config in baselines:
            share = config.training.sampling_steps / config.num_steps
            assert share == pytest.approx(50_000 / steps_of_the_paper[config.data.dataset], rel=0.02)


def test_a_scale_states_size_and_learning_rate_of_the_baselines_that_it_trains(scales):
    grid = [{"model": ["TAU", "E3D-LSTM"]}, {"model": ["TAU"], "max_lr": [0.002]}]
    write_experiment(scales, grid=grid, figure={"kind": "dots"})
    scale = load_scale(scales, "demo")
    assert [scale.trains(name, "mmnist") for name in ("TAU", "E3D-LSTM", OURS)] == [True, False, True]
    at_paper, at_demo = ([v.config for v in load_plan(scales, s).experiments["mine"].variants] for s in ("paper", "demo"))
    # The benchmark's own rate becomes the one that the scale states, another one follows in proportion.
    assert [c.training.max_lr for c in at_paper] == [1e-3, 1e-4, 2e-3]
    stated = scale.baselines.max_lr["TAU"]
    assert [at_demo[0].training.max_lr, at_demo[2].training.max_lr] == pytest.approx([stated, 2 * stated])
    assert {(c.model.baseline_width, c.model.baseline_depth) for c in at_paper} == {(1.0, 1.0)}
    assert {(c.model.baseline_width, c.model.baseline_depth) for c in at_demo} == {(0.125, 0.5)}
    assert load_scale(scales, "paper").trains("E3D-LSTM", "mmnist")


def test_a_scale_states_the_baselines_of_a_data_set(scales):
    path = scales / "scales" / "demo.yaml"
    stated = yaml.safe_load(path.read_text())
    stated["data"]["taxibj"]["baselines"] = {"MIM": 0.02}
    path.write_text(yaml.safe_dump(stated))
    write_experiment(scales, grid={"dataset": ["taxibj", "mmnist"], "model": ["MIM", "TAU"]}, figure={"kind": "dots"})
    plan = load_plan(scales, "demo")
    assert plan.experiments["mine"].run_names == ["taxibj/model=MIM/seed0", "mmnist/model=TAU/seed0"]
    assert plan.runs["taxibj/model=MIM/seed0"].training.max_lr == pytest.approx(0.02)


def test_a_scale_sets_how_runs_compute_unless_an_experiment_does(workflow):
    scale = workflow / "scales" / "demo.yaml"
    scale.write_text(scale.read_text() + "compute: {kernels: fused, precision: bfloat16}\n")
    experiment = workflow / "experiments" / "table5_final_div_factor.yaml"
    experiment.write_text(experiment.read_text().replace("grid:", "base: {kernels: plain}\ngrid:"))
    runs = load_plan(workflow, "demo").runs
    ours = [c.training for c in runs.values() if c.model.model == OURS]
    assert {(t.kernels, t.precision) for t in ours} == {("fused", "bfloat16"), ("plain", "bfloat16")}
    assert runs["mmnist/stlight_l/seed0"].training.kernels == "fused"
    # Kernels apply to STLight only.
    others = [c.training for c in runs.values() if c.model.model != OURS]
    assert {(t.kernels, t.precision) for t in others} == {("auto", "bfloat16")}


def test_each_data_set_is_trained_by_its_protocol(demo, paper):
    taxibj = paper.runs["taxibj/stlight_l/seed0"].training
    assert (taxibj.schedule, taxibj.max_lr, taxibj.num_epochs, taxibj.batch_size) == ("cosine", 3e-3, 50, 16)
    assert (taxibj.warmup_epochs, taxibj.warmup_lr, taxibj.min_lr) == (5, 1e-5, 1e-6)
    kth = paper.runs["kth/epochs=150/seed0"].training
    assert (kth.schedule, kth.max_lr, kth.num_epochs, kth.batch_size) == ("onecycle", 5e-4, 150, 12)
    clips = {name: (config.data.clips_per_epoch, config.data.test_clips) for name, config in paper.runs.items()}
    assert clips["taxibj/stlight_l/seed0"] == (20_461, 500)
    assert clips["kth/epochs=150/seed0"] == (5_200, 3_167)
    # A shorter training has a shorter warm-up, and learning rates in proportion.
    short = demo.runs["taxibj/stlight_l/seed0"].training
    assert (short.num_epochs, short.warmup_epochs) == (20, 2)
    assert (short.max_lr, short.warmup_lr, short.min_lr) == pytest.approx((0.08, 8e-4 / 3, 8e-5 / 3))


def test_each_data_set_has_its_own_model_and_a_scale_translates_it(demo, paper):
    runs = {"mmnist": "stlight_l", "taxibj": "stlight_l", "kth": "epochs=150"}
    found = {name: [plan.runs[f"{name}/{run}/seed0"] for plan in (paper, demo)] for name, run in runs.items()}
    sizes = {name: [(c.model.hidden_dim, c.model.depth, c.model.patch_size) for c in both] for name, both in found.items()}
    assert sizes == {
        "mmnist": [(1400, 16, 2), (24, 3, 2)],
        "taxibj": [(512, 10, 1), (16, 3, 1)],
        "kth": [(1000, 14, 2), (24, 3, 2)],
    }
    kth = found["kth"][0].model
    assert (kth.k1, kth.k2, kth.prediction) == (3, 5, "direct")
    assert {both[1].training.batch_size for both in found.values()} == {8}
    assert {c.model.overlap for both in found.values() for c in both} == {0}


def test_a_model_of_a_published_size_shares_the_runs_of_its_width_and_depth(scales):
    write_experiment(scales, grid={"dataset": ["kth"], "model": ["STLight-XS", "STLight-L", "TAU"]}, figure={"kind": "dots"})
    experiment = load_plan(scales, "paper").experiments["mine"]
    assert [v.axes["model"] for v in experiment.variants] == ["STLight-XS", "STLight-L", "TAU"]
    assert [v.name for v in experiment.variants] == ["dim=400+depth=8", "stlight_l", "model=TAU"]
    # A baseline is trained by the benchmark's protocol.
    assert [v.paper.training.batch_size for v in experiment.variants] == [12, 12, 16]


def test_an_experiment_may_state_another_protocol(scales):
    write_experiment(
        scales,
        grid=[{"dataset": ["taxibj"], "max_lr": [0.003, 0.001], "warmup_epochs": [0, 5]}, {"dataset": ["kth", "mfmnist"]}],
    )
    names = ["taxibj/warmup_epochs=0", "taxibj/stlight_l", "taxibj/lr=0.001+warmup_epochs=0", "taxibj/lr=0.001"]
    expected = [f"{name}/seed0" for name in (*names, "kth/stlight_l", "mfmnist/stlight_l")]
    assert load_plan(scales, "paper").experiments["mine"].run_names == expected


@pytest.mark.parametrize(("scale", "clips"), [("paper", (500, 40, 50)), ("demo", (160, 8, 48)), ("smoke", (1, 2, 3))])
def test_a_custom_data_set_has_its_shape_and_no_more_clips_than_the_scale_allows(scales, scale, clips):
    write_experiment(scales, base={"dataset": "balls"}, data_sets={"balls": BALLS})
    config = load_plan(scales, scale).runs["balls/stlight_l/seed0"]
    assert config.clip_shape == (4, 6, 3, 16, 24)
    assert config.data.source == "files"
    assert (config.data.clips_per_epoch, config.data.validation_clips, config.data.test_clips) == clips


def test_a_benchmark_data_set_that_a_scale_does_not_name_is_limited_like_a_custom_one(scales, monkeypatch):
    monkeypatch.setitem(DATASETS, "new", DATASETS["kth"])
    write_experiment(scales, grid={"dataset": ["new"]})
    found = {scale: load_plan(scales, scale).runs["new/stlight_l/seed0"].data for scale in ("demo", "paper")}
    assert (found["demo"].clips_per_epoch, found["demo"].test_clips, found["demo"].source) == (160, 48, "stand_in")
    # A scale without limits runs what is published, and never a stand-in.
    assert (found["paper"].clips_per_epoch, found["paper"].test_clips, found["paper"].source) == (5_200, 3_167, "files")


def test_auto_reads_a_data_set_s_files_if_all_of_them_exist(tmp_path):
    for dataset, spec in DATASETS.items():
        for name in spec.files:
            assert load_scale(WORKFLOW, "demo", tmp_path).sources[dataset] == (spec.fallback or "files")
            (tmp_path / name).mkdir(parents=True)
        assert load_scale(WORKFLOW, "demo", tmp_path).sources[dataset] == "files"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("\nbase: {hidden_dim: 24", "\nbase: {hidden_dim: 25", r"base: hidden_dim 25 must be divisible by patch_size² = 4"),
        (
            "\nbase: {hidden_dim: 24, depth:",
            "\nbase: {hidden_dim: 24, dept:",
            r"base: unknown key 'dept'; did you mean 'depth'",
        ),
        ("depth: 3", "depth: true", r"data\.taxibj\.base\.depth: input should be a valid integer, got True"),
        ("kth:", "kht:", r"data: unknown data set 'kht'; did you mean 'kth'"),
        ("taxibj: {source: auto", "taxibj: {source: web", r"data\.taxibj\.source: .*got 'web'"),
        ("custom: {clips_per_epoch: 160", "custom: {clips_per_epoch: 0", r"custom\.clips_per_epoch: .*greater.*got 0"),
        ("seeds: 1", "seeds: 1\ncompute: {kernels: fast}", r"compute\.kernels: .*got 'fast'"),
        ("seeds: 1", "", "seeds: is missing"),
        ("max_lr: {ConvLSTM-S:", "max_lr: {ConvLSTM:", r"baselines\.max_lr: no baseline 'ConvLSTM'; did you mean 'ConvLSTM-S'"),
        ("baseline_depth: 0.5", "baseline_depth: 2", r"baselines\.baseline_depth: .*got 2"),
    ],
)
def test_mistakes_in_a_scale_are_named(scales, old, new, words):
    path = scales / "scales" / "demo.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ExperimentError, match=rf"demo\.yaml: {words}"):
        load_scale(scales, "demo")


@pytest.mark.parametrize("name", ["dmeo", "../scales/demo", "a/b", "", ".", "demo ", "$(id)"])
def test_a_scale_s_name_stays_a_folder_under_the_results(name):
    with pytest.raises(ExperimentError, match="the scales are demo, gpu, paper, small, smoke"):
        load_scale(WORKFLOW, name)
