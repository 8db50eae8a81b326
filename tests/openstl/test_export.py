"""The exported model is ours to the bit, the configurations are the paper's, and the method takes our step."""

import ast
import importlib
import runpy
import sys
import types
from types import SimpleNamespace

import pytest
import torch

from stlight import STLight
from stlight.cli import main
from stlight.openstl.export import EXPERIMENT, export, model_source
from stlight.registry.dataset_specs import DATASETS
from stlight.training.loop import take_step
from tests.openstl.interface import write_interface
from tests.tiny_runs import tiny
from tests.training.clips import begin

SMALL = {"hidden_dim": 8, "depth": 3}


@pytest.fixture(scope="module")
def exported():
    module = types.ModuleType("exported")
    exec(compile(model_source(), "stlight_model.py", "exec"), module.__dict__)
    return module


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"decoder": "reassemble_shuffle", "kernel_sizes": (5, 3), "skip": False},
        {"overlap": 2, "initialization": "kaiming_normal"},
        {"patch_size": 1, "channels": 2, "context_frames": 4, "horizon_frames": 6, "skip_parts": 5, "depth": 5},
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_the_exported_model_equals_ours_to_the_bit(arguments, training, exported):
    models = []
    for build in (STLight, exported.STLight):
        torch.manual_seed(0)
        models.append(build(**SMALL | arguments).train(training))
    ours, theirs = models
    assert {k: v.tolist() for k, v in ours.state_dict().items()} == {k: v.tolist() for k, v in theirs.state_dict().items()}
    clip = torch.rand(2, ours.context_frames, ours.channels, 8, 8)
    assert torch.equal(ours(clip), theirs(clip))


def test_the_exported_model_needs_torch_and_the_standard_library_only():
    imports = [node for node in ast.walk(ast.parse(model_source())) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {(node.module or "").partition(".")[0] for node in imports} == {"torch", "typing"}


def test_the_exported_model_checks_its_arguments(exported):
    with pytest.raises(ValueError, match="hidden_dim must be divisible by patch_size² = 4"):
        exported.STLight(hidden_dim=9)
    with pytest.raises(TypeError, match="hiden_dim"):
        exported.STLight(hiden_dim=8)


def test_every_published_size_has_a_configuration(paper, tmp_path):
    written = {str(path) for path in export(paper, tmp_path)}
    sizes = {f"configs/{name}/{size.replace('-', '_')}.py" for name, spec in DATASETS.items() for size in spec.sizes}
    assert len(sizes) == 11
    assert written == sizes | {
        "openstl/models/stlight_model.py",
        "openstl/methods/stlight.py",
        "tools/train_stlight.py",
        "STLIGHT.md",
    }
    for variant in paper.experiment(EXPERIMENT).variants:
        config = runpy.run_path(str(tmp_path / "configs" / variant.dataset / f"{variant.axes['model'].replace('-', '_')}.py"))
        model, training = variant.paper.model, variant.paper.training
        stated = config["stlight"]
        assert {name: stated[name] for name in stated if name != "kernel_sizes"} == {
            name: getattr(model, name) for name in stated if name != "kernel_sizes"
        }
        assert stated["kernel_sizes"] == (model.k1, model.k2)
        assert (config["epoch"], config["batch_size"], config["lr"]) == (
            training.num_epochs,
            training.batch_size,
            training.max_lr,
        )
        assert config["sched"] == training.schedule


def test_the_main_papers_hyperparameters_are_exported(paper, tmp_path):
    # Main paper, Table 2: learning rate, final div factor or warm-up, batch, schedule, epochs.
    export(paper, tmp_path)
    read = {name: runpy.run_path(str(tmp_path / "configs" / name / "STLight_L.py")) for name in ("mmnist", "taxibj", "kth")}
    keys = ("lr", "batch_size", "sched", "epoch", "dataname")
    assert [[config[key] for key in keys] for config in read.values()] == [
        [0.003, 16, "onecycle", 200, "mmnist"],
        [0.003, 16, "cosine", 50, "taxibj"],
        [0.0005, 12, "onecycle", 100, "kth"],
    ]
    assert read["mmnist"]["final_div_factor"] == read["kth"]["final_div_factor"] == 10000
    assert read["mmnist"]["stlight"]["hidden_dim"] == 1400


def test_an_export_replaces_its_own_files_and_nothing_else(paper, tmp_path):
    export(paper, tmp_path)
    export(paper, tmp_path)
    (tmp_path / "tools" / "train_stlight.py").write_text("mine")
    (tmp_path / "STLIGHT.md").unlink()
    assert main(["export", "openstl", str(tmp_path)]) == 1
    assert (tmp_path / "tools" / "train_stlight.py").read_text() == "mine"
    assert not (tmp_path / "STLIGHT.md").exists()


@pytest.fixture
def openstl(request, paper, tmp_path, monkeypatch):
    write_interface(tmp_path, request.param)
    export(paper, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "openstl"]:
        del sys.modules[name]


@pytest.mark.parametrize("openstl", ["v0.3.0"], indirect=True)
def test_a_step_of_the_method_equals_ours(openstl):
    """Equal weights and clips give the same loss. Trained weights agree to 1e-6, except biases whose true gradient is zero.

    BatchNorm removes a bias before it, so that Adam follows the sign of its gradient's rounding error.
    """
    config = tiny(dataset="kth", prediction="direct", hidden_dim=8, depth=3, downsampling=8, max_lr=1e-3)
    training, shape = begin(config), config.clip_shape
    stated = {"hidden_dim": 8, "depth": 3, "kernel_sizes": (3, 7)}
    args = SimpleNamespace(stlight=stated, in_shape=[10, 1, 16, 16], pre_seq_length=10, aft_seq_length=20, lr=1e-3)
    args.weight_decay, args.epoch, args.final_div_factor = 0.0, config.training.num_epochs, config.training.final_div_factor
    method = importlib.import_module("openstl.methods.stlight").STLight(args, "cpu", config.steps_per_epoch)
    method.model.load_state_dict(training.model.state_dict())
    clip = torch.rand(2, 30, *shape[2:], generator=torch.Generator().manual_seed(0))
    training.model.train()
    ours = take_step(training.model, training.optimizer, clip, 10, config.training).item()
    training.schedule.step()
    assert method.train_step(clip[:, :10], clip[:, 10:]) == pytest.approx(ours, abs=1e-6)
    assert method.scheduler.get_last_lr() == pytest.approx(training.schedule.get_last_lr())
    before_norm = {"patch_encoder.0.bias", *(f"mixers.{i}.1.0.bias" for i in range(3))}
    theirs = method.model.state_dict()
    for name, weight in training.model.state_dict().items():
        torch.testing.assert_close(theirs[name], weight, rtol=0, atol=1e-4 if name in before_norm else 1e-6, msg=name)


@pytest.mark.parametrize("openstl", ["v1.0.0"], indirect=True)
def test_the_method_follows_lightnings_style_too(openstl):
    Method = importlib.import_module("openstl.methods.stlight").STLight
    method = Method(stlight=SMALL, in_shape=[4, 2, 8, 8], pre_seq_length=4, aft_seq_length=4)
    clip = torch.rand(2, 4, 2, 8, 8)
    assert method(clip, clip).shape == clip.shape
    assert method.train_step(clip, clip).item() > 0
    optimizer = torch.optim.Adam(method.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=1)
    optimizer.step()
    method.lr_scheduler_step(schedule, None)
    assert optimizer.param_groups[0]["lr"] == 1.0
    stepped = []
    method.lr_scheduler_step(SimpleNamespace(step=stepped.append), None)
    assert stepped == [method.current_epoch + 1]


@pytest.mark.parametrize("openstl", ["v0.3.0"], indirect=True)
@pytest.mark.parametrize(
    ("more", "calls"), [([], ["train", "test"]), (["--test"], ["test"]), (["--batch_size", "4"], ["train", "test"])]
)
def test_the_launcher_takes_the_file_before_defaults_and_the_command_line_before_the_file(more, calls, openstl, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_stlight.py", "-c", str(openstl / "configs" / "kth" / "STLight_L.py"), *more])
    runpy.run_path(str(openstl / "tools" / "train_stlight.py"), run_name="__main__")
    (args, method), *rest = importlib.import_module("openstl.api").CALLS
    assert (args.method, method.__name__, rest) == ("STLight", "STLight", calls)
    assert (args.batch_size, args.epoch, args.seed) == (4 if "4" in more else 12, 100, 42)


@pytest.mark.parametrize("openstl", ["v0.3.0"], indirect=True)
def test_the_launcher_refuses_another_methods_configuration(openstl, monkeypatch, capsys):
    (openstl / "other.py").write_text("method = 'SimVP'\n")
    monkeypatch.setattr(sys, "argv", ["train_stlight.py", "-c", str(openstl / "other.py")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(openstl / "tools" / "train_stlight.py"), run_name="__main__")
    assert ended.value.code == 2
    assert "--config_file must be one of STLight's" in capsys.readouterr().err
