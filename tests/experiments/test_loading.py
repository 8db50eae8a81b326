import pytest

from stlight.config import DEFAULTS, ConfigError, RunConfig
from stlight.experiments import load_plan
from stlight.experiments.yaml_files import ExperimentError, quantity
from stlight.registry.dataset_specs import DATASETS
from stlight.registry.model_specs import OURS
from tests.conftest import WORKFLOW
from tests.tiny_runs import write_experiment


def test_the_paper_scale_is_the_supplement_s(paper):
    assert {name: len(e.run_names) for name, e in paper.experiments.items()} == {
        "section_b_complexity": 0,
        "table1_literature": 3,
        "table2_openstl": 12,
        "table3_kernel_sizes": 25,
        "table4_learning_rate_epochs": 7,
        "table5_final_div_factor": 12,
        "figure1_initialization": 15,
        "figure2_decoder_order": 12,
        "extra_ambiguities": 7,
    }
    # The ambiguities share the base with most other items, and a run on KTH with Table 1.
    assert len(paper.runs) == 66 + 11 + 7 - 2


def test_tables_3_4_and_5_share_their_runs(paper):
    names = [set(paper.experiments[name].run_names) for name in paper.experiments if name[:6] in ("table3", "table4", "table5")]
    assert sum(map(len, names)) == 44
    assert len(set.union(*names)) == 39


def test_table_2_and_table_1_reuse_table_4_s_longest_run(paper):
    longest = "mmnist/epochs=2000/seed0"
    for name in ("table1_literature", "table2_openstl", "table4_learning_rate_epochs"):
        assert longest in paper.experiments[name].run_names


def test_the_base_run_at_paper_scale_is_stlight_l(paper):
    base = paper.runs["mmnist/stlight_l/seed0"]
    assert base == RunConfig.from_fields({"source": "files"})
    assert (base.model.hidden_dim, base.model.depth, base.training.batch_size, base.training.num_epochs) == (1400, 16, 16, 200)


def test_names_are_the_same_at_every_scale_and_unique(demo, paper):
    # Table 2's models are trained for a share of their epochs at the smaller scales, and say so.
    shorter = {name.replace("epochs=2000", "epochs=50") if "model=" in name else name for name in paper.runs}
    assert set(demo.runs) - {"mmnist/epochs=50/seed0"} == shorter
    hashes = [config.hash for config in paper.runs.values()]
    assert len(set(hashes)) == len(hashes)


def test_stated_values_follow_the_scale_in_proportion(demo):
    base = demo.runs["mmnist/stlight_l/seed0"]
    for name, factor in {"epochs=500": 2.5, "epochs=1000": 5, "epochs=2000": 10}.items():
        assert demo.runs[f"mmnist/{name}/seed0"].training.num_epochs == factor * base.training.num_epochs
    assert demo.runs["mmnist/lr=0.003/seed0"].training.max_lr == pytest.approx(3 * base.training.max_lr)
    half = demo.runs["mmnist/dim=700/seed0"].model
    assert half.hidden_dim == base.model.hidden_dim / 2
    # Rounded to a width that the patches divide: 32 · 1000 / 1400 = 22.9.
    assert demo.runs["mmnist/dim=1000/seed0"].model.hidden_dim == 24
    assert demo.runs["mmnist/dim=1000+decoder=reassemble_shuffle/seed0"].model.hidden_dim == 24


def test_a_data_set_is_trained_by_its_own_protocol(demo, paper):
    taxibj = paper.runs["taxibj/stlight_l/seed0"].training
    assert (taxibj.schedule, taxibj.max_lr, taxibj.num_epochs, taxibj.batch_size) == ("cosine", 5e-4, 50, 16)
    assert (taxibj.warmup_epochs, taxibj.warmup_lr, taxibj.min_lr) == (5, 1e-5, 1e-6)
    kth = paper.runs["kth/epochs=150/seed0"].training
    assert (kth.schedule, kth.max_lr, kth.num_epochs, kth.batch_size) == ("onecycle", 1e-3, 150, 16)
    clips = {name: (d.clips_per_epoch, d.test_clips) for name, d in ((n, paper.runs[n].data) for n in paper.runs)}
    assert clips["taxibj/stlight_l/seed0"] == (20_461, 500)
    assert clips["kth/epochs=150/seed0"] == (5_200, 3_167)
    # A shorter training has a shorter warm-up, here none, and rates in proportion.
    short = demo.runs["taxibj/stlight_l/seed0"].training
    assert (short.num_epochs, short.warmup_epochs) == (1, 0)
    assert (short.max_lr, short.warmup_lr, short.min_lr) == pytest.approx((0.015, 3e-4, 3e-5))


def test_an_experiment_may_state_another_protocol(workflow):
    grid = [{"dataset": ["taxibj"], "max_lr": [0.0005, 0.001], "warmup_epochs": [0, 5]}, {"dataset": ["kth", "mfmnist"]}]
    write_experiment(workflow, grid=grid)
    runs = load_plan(workflow, "paper").experiments["mine"].run_names
    names = ["taxibj/warmup_epochs=0", "taxibj/stlight_l", "taxibj/lr=0.001+warmup_epochs=0", "taxibj/lr=0.001"]
    assert runs == [f"{name}/seed0" for name in (*names, "kth/stlight_l", "mfmnist/stlight_l")]


OWN = {"context_frames": 4, "horizon_frames": 6, "channels": 3, "height": 16, "width": 24}
OWN |= {"clips_per_epoch": 500, "validation_clips": 40, "test_clips": 50}


def test_a_data_set_of_one_s_own_has_its_shape_and_no_more_clips_than_the_scale_takes(workflow):
    write_experiment(workflow, base={"dataset": "balls"}, data_sets={"balls": OWN})
    for scale, clips in (("paper", (500, 40, 50)), ("demo", (150, 16, 48)), ("smoke", (1, 2, 3))):
        config = load_plan(workflow, scale).runs["balls/stlight_l/seed0"]
        assert config.clip_shape == (4, 6, 3, 16, 24)
        assert config.data.source == "files"
        assert (config.data.clips_per_epoch, config.data.validation_clips, config.data.test_clips) == clips


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"base": {"dataset": "balls"}},
            "dataset must be one of .*, or one of your own stated under",
        ),
        (
            {"base": {"dataset": "balls"}, "data_sets": {"balls": {"height": 16}}},
            r"data_sets\.balls: .* required property",
        ),
        (
            {"base": {"dataset": "balls"}, "data_sets": {"balls": OWN | {"height": 4}}},
            "height must be .* at least 7",
        ),
        (
            {"base": {"dataset": "balls"}, "data_sets": {"balls": OWN | {"width": 9}}},
            "frame size must be divisible",
        ),
        ({"base": {"dataset": "kth"}, "data_sets": {"kth": OWN}}, "and not as one of the benchmark's, got 'kth'"),
        ({"data_sets": {"My Balls": OWN}}, "My Balls"),
        ({"base": {"own_shape": None}}, "the shape of a data set of your own is stated under data_sets"),
        ({"base": {"source": "files"}}, "source is set by the scale"),
        ({"metrics": ["lpips"]}, r"lpips is measured only with base: \{lpips: true\}"),
        ({"base": {"dataset": "taxibj", "lpips": True}}, "lpips is for frames of 1 or 3 channels, taxibj has 2"),
        ({"base": {"schedule": "linear"}}, "schedule: input should be 'onecycle' or 'cosine', got 'linear'"),
        ({"base": {"warmup_epochs": 200}}, "warmup_epochs must be fewer than num_epochs 200, got 200"),
        ({"base": {"dataset": "mnist"}}, "got 'mnist'"),
    ],
)
def test_wrong_data_sets_and_schedules_are_named(workflow, content, words):
    write_experiment(workflow, **content)
    with pytest.raises(ExperimentError, match=rf"mine\.yaml: .*{words}"):
        load_plan(workflow, "paper")


def test_auto_takes_a_data_set_s_files_where_all_of_them_lie(workflow, tmp_path):
    def sources():
        runs = load_plan(workflow, "demo", tmp_path).runs.values()
        return {config.data.dataset: config.data.source for config in runs}

    assert sources() == {"mmnist": "embedded", "taxibj": "stand_in", "kth": "stand_in"}
    for dataset, names in ((name, spec.files) for name, spec in DATASETS.items()):
        for name in names[:-1]:
            (tmp_path / name).mkdir(parents=True)
        assert sources().get(dataset) != "files"
        (tmp_path / names[-1]).mkdir(parents=True)
    assert sources() == {"mmnist": "files", "taxibj": "files", "kth": "files"}


def test_a_scale_says_how_runs_compute_where_an_experiment_does_not(workflow):
    scale = workflow / "scales" / "demo.yaml"
    scale.write_text(scale.read_text() + "compute: {kernels: fused, precision: bfloat16}\n")
    experiment = workflow / "experiments" / "table5_final_div_factor.yaml"
    experiment.write_text(experiment.read_text().replace("grid:", "base: {kernels: plain}\ngrid:"))
    runs = load_plan(workflow, "demo").runs
    ours = [c.training for c in runs.values() if c.model.model == OURS]
    assert {(t.kernels, t.precision) for t in ours} == {("fused", "bfloat16"), ("plain", "bfloat16")}
    # Kernels are STLight's.
    others = [c.training for c in runs.values() if c.model.model != OURS]
    assert {(t.kernels, t.precision) for t in others} == {("auto", "bfloat16")}
    assert runs["mmnist/stlight_l/seed0"].training.kernels == "fused"
    scale.write_text(scale.read_text().replace("kernels: fused", "kernels: fast"))
    with pytest.raises(ExperimentError, match=r"demo\.yaml: compute.*'fast'"):
        load_plan(workflow, "demo")


def test_scheduled_sampling_takes_the_same_share_of_a_run_at_every_scale(paper):
    for scale in ("demo", "small", "paper"):
        runs = load_plan(WORKFLOW, scale).runs
        of_baselines = [c for c in runs.values() if c.model.model != OURS]
        assert of_baselines
        for config in of_baselines:
            steps = config.training.num_epochs * config.steps_per_epoch
            assert config.training.sampling_steps / steps == pytest.approx(50_000 / 1_250_000, rel=0.02)


def test_held_values_do_not_follow(demo):
    assert {c.model.k1 for c in demo.runs.values()} == {3, 5, 7, 9, 11}
    assert {c.training.final_div_factor for c in demo.runs.values()} == {1000, 3000, 10000}


@pytest.mark.parametrize("scale", ["smoke", "demo", "small", "paper"])
def test_every_scale_s_runs_can_be_built(scale):
    load_plan(WORKFLOW, scale)


def test_official_files_are_taken_where_they_lie(tmp_path):
    assert load_plan(WORKFLOW, "demo", tmp_path).runs["mmnist/stlight_l/seed0"].data.source == "embedded"
    (tmp_path / "moving_mnist").mkdir()
    (tmp_path / "moving_mnist" / "train-images-idx3-ubyte.gz").touch()
    assert load_plan(WORKFLOW, "demo", tmp_path).runs["mmnist/stlight_l/seed0"].data.source == "embedded"
    (tmp_path / "moving_mnist" / "mnist_test_seq.npy").touch()
    assert load_plan(WORKFLOW, "demo", tmp_path).runs["mmnist/stlight_l/seed0"].data.source == "files"


def test_a_new_file_is_a_new_experiment_and_shares_runs(workflow):
    before = load_plan(workflow, "demo")
    write_experiment(workflow, grid={"dilation": [3, 4], "skip": [True, False]})
    after = load_plan(workflow, "demo")
    added = set(after.runs) - set(before.runs)
    assert added == {f"mmnist/{name}/seed0" for name in ("dilation=4", "dilation=4+skip=false")}
    assert "mmnist/stlight_l/seed0" in after.experiments["mine"].run_names


def test_numbers_mean_the_same_however_they_are_written(workflow):
    text = (workflow / "experiments" / "table5_final_div_factor.yaml").read_text()
    before = load_plan(workflow, "demo")
    (workflow / "experiments" / "table5_final_div_factor.yaml").write_text(
        text.replace("[1000, 3000, 10000]", "[1e3, 3E+3, 1.0e4]")
    )
    assert load_plan(workflow, "demo").runs == before.runs


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"grid": {"k3": [3]}}, r"mine\.yaml: grid\[0\]: unknown field 'k3'; did you mean 'k[12]'"),
        ({"base": {"hiden_dim": 700}}, r"mine\.yaml: base: unknown field 'hiden_dim'; did you mean 'hidden_dim'"),
        ({"grid": {"k1": [3, 4]}}, r"mine\.yaml: at k1 = 4: kernel_sizes \(k1\) must be odd, got 4"),
        ({"grid": {"max_lr": [0.0]}}, r"mine\.yaml: at max_lr = 0: max_lr: input should be greater than 0, got 0"),
        ({"grid": {"decoder": ["both"]}}, r"mine\.yaml: at decoder = both: decoder: .*'shuffle_reassemble'.*got 'both'"),
        ({"grid": {"clips_per_epoch": [5]}}, r"clips_per_epoch is set by the scale"),
        ({"grid": {"k1": []}}, r"mine\.yaml: grid"),
        ({"metrics": ["mes"]}, r"mine\.yaml: metrics"),
        ({"colour": "red"}, r"mine\.yaml: .*'colour' was unexpected"),
        ({"figure": {"kind": "pie"}}, r"mine\.yaml: figure\.kind: 'pie'"),
        ({"figure": {"kind": "heatmap"}}, r"figure: kind heatmap takes x, y, metric, got nothing else"),
        (
            {"grid": {"k1": [3], "depth": [8]}, "figure": {"kind": "heatmap", "x": "k2", "y": "k1", "metric": "mse"}},
            r"figure\.x: must be one of depth, k1, got 'k2'",
        ),
        (
            {"grid": {"k1": [3], "k2": [5], "depth": [8, 16]}, "table": {"rows": "k1", "columns": "k2"}},
            r"table: several points of the grid share one cell of k1 × k2",
        ),
        ({"published": [{"depth": 8}]}, r"published\[0\]: gives none of the metrics mse"),
        (
            {"grid": {"depth": [8, 16], "skip": [True, False]}, "published": [{"depth": 8, "mse": 1}]},
            r"published\[0\]: 2 points of the grid have depth = 8: name every axis",
        ),
        ({"base": {"hidden_dim": "1400"}}, r"hidden_dim must be like 1400, got '1400'"),
        ({"figure": {"kind": "bars"}}, r"the grid must have an axis dataset"),
        ({"train": False}, r"figure: kind growth is for experiments with train: false"),
        ({"grid": {"k1": [True]}}, r"k1 must be like 3, got True"),
        ({"grid": {3: [3]}}, r"the key '3' is not text"),
        ({"published": [{"depth": 8, "mse": "nan"}]}, r"published\[0\]\.mse: must be a number.*got 'nan'"),
        ({"published": [{"depth": 8, "mse": 1}, {"depth": 8, "mse": 2}]}, r"published\[1\]\.mse: this cell is published twice"),
        ({"published": [{"depth": 4, "mse": 1}]}, r"published\[0\]: no point of the grid has depth = 4"),
        (
            {"published": [{"depth": 8, "mae": 1}]},
            r"published\[0\]: 'mae' is neither an axis of the grid nor one of the metrics",
        ),
        ({"metrics": {"kth": ["mse"]}}, r"metrics: given for kth, the grid has mmnist"),
    ],
)
def test_wrong_files_are_answered_in_one_line(workflow, content, words):
    write_experiment(workflow, **content)
    with pytest.raises(ExperimentError, match=words) as caught:
        load_plan(workflow, "demo")
    assert "\n" not in str(caught.value)


def test_whole_seeds_written_as_decimals_are_whole(workflow):
    write_experiment(workflow, seeds=2.0)
    assert load_plan(workflow, "demo").experiments["mine"].seeds == 2


def test_wrong_yaml_repeated_keys_and_scales_are_named(workflow):
    path = workflow / "experiments" / "mine.yaml"
    path.write_text("title: [")
    with pytest.raises(ExperimentError, match=r"mine\.yaml: not valid YAML"):
        load_plan(workflow, "demo")
    path.write_text("title: a\ntitle: b\n")
    with pytest.raises(ExperimentError, match="the key 'title' is given twice"):
        load_plan(workflow, "demo")
    path.write_bytes(b"title: \xff")
    with pytest.raises(ExperimentError, match=r"mine\.yaml: not UTF-8 text"):
        load_plan(workflow, "demo")
    path.rename(path.with_suffix(".yml"))
    with pytest.raises(ExperimentError, match=r"mine\.yml: would not be read: rename it to mine\.yaml"):
        load_plan(workflow, "demo")
    path.with_suffix(".yml").unlink()
    with pytest.raises(ExperimentError, match="no scale 'dmeo'; the scales are demo, paper, small, smoke"):
        load_plan(workflow, "dmeo")
    scale = workflow / "scales" / "demo.yaml"
    text = scale.read_text()
    scale.write_text(text.replace("hidden_dim: 32", "hidden_dim: 25"))
    with pytest.raises(ExperimentError, match=r"demo\.yaml: base: hidden_dim 25 must be divisible by patch_size² = 4"):
        load_plan(workflow, "demo")
    scale.write_text(text.replace("depth:", "dept:"))
    with pytest.raises(ExperimentError, match=r"demo\.yaml: base.*'dept' was unexpected"):
        load_plan(workflow, "demo")


def test_unknown_runs_and_experiments_name_the_nearest(demo):
    with pytest.raises(ExperimentError, match="did you mean 'mmnist/lr=0.003/seed0'"):
        demo.run("mmnist/lr=0.003/seed")
    with pytest.raises(ExperimentError, match="did you mean 'table3_kernel_sizes'"):
        demo.experiment("table3_kernels")


def test_hash_follows_the_meaning():
    base = RunConfig.from_fields({})
    assert base.hash == RunConfig.from_fields({"max_lr": 1e-3, "k1": 3}).hash
    different = [{"k1": 5}, {"max_lr": 0.002}, {"skip": False}, {"test_clips": 9}]
    assert len({RunConfig.from_fields(fields).hash for fields in [{}, *different]}) == 5
    assert RunConfig.from_fields({}, seed=1).hash != base.hash


def test_configuration_errors_name_field_and_value():
    with pytest.raises(ConfigError, match="batch_size must be at most clips_per_epoch 10, got 16"):
        RunConfig.from_fields({"clips_per_epoch": 10})
    with pytest.raises(ConfigError, match="frame size must be divisible by patch_size 5"):
        RunConfig.from_fields({"patch_size": 5, "hidden_dim": 25, "overlap": 1})
    with pytest.raises(ConfigError, match="source must be one of embedded, files for dataset mmnist, got 'stand_in'"):
        RunConfig.from_fields({"source": "stand_in"})


def test_every_field_is_documented():
    for section in ("model", "data", "training"):
        for name, field in type(getattr(RunConfig(), section)).model_fields.items():
            assert field.description, name
    assert len(DEFAULTS) > 15


def test_quantities_read_as_printed():
    assert [quantity(text) for text in ("32.9M", "116.0G", "14.77", "23")] == pytest.approx([32.9e6, 116e9, 14.77, 23])


@pytest.mark.parametrize("name", ["../scales/demo", "a/b", "", ".", "demo ", "$(id)"])
def test_a_scale_s_name_stays_a_folder_under_the_results(name):
    with pytest.raises(ExperimentError, match="the scales are demo, paper, small, smoke"):
        load_plan(WORKFLOW, name)


@pytest.mark.parametrize("name", ["$(touch x)", "a;b", "a b", "ä+b", "-n"])
def test_an_experiment_s_name_is_plain(workflow, name):
    write_experiment(workflow, name)
    with pytest.raises(ExperimentError, match="is made of letters, digits, _ and -"):
        load_plan(workflow, "demo")


def test_no_variant_s_name_has_a_comma(demo, workflow):
    # Snakemake cuts wildcards there when it hands a job to another process.
    write_experiment(
        workflow, grid={"depth": [8, 16], "decoder": ["shuffle_reassemble", "reassemble_shuffle"]}, base={"max_lr": 0.003}
    )
    assert "mmnist/depth=8+decoder=reassemble_shuffle+lr=0.003/seed0" in load_plan(workflow, "demo").runs
    assert not any("," in name for name in demo.runs)
