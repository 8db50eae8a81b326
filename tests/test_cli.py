"""The command line: which options a verb takes, and how it reports a mistake."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stlight import cli
from stlight.commands import computing
from stlight.registry.dataset_specs import DATASETS
from stlight.runs.provenance import source_version
from stlight.runtime.run_lock import LockLost


def help_of(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_says_what_it_does_and_takes_the_common_options(verb, capsys):
    text = " ".join(help_of(verb, capsys).split())
    assert f"usage: stlight {verb} " in text
    assert "--scale SCALE" in text
    assert ("--complete" in text) == (verb == "analyse")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train mmnist/k1=5+lr=0.001/seed0 --threads 0", "--threads must be at least 1, got 0"),
        ("train mmnist/k1=5+lr=0.001/seed0 --checkpoint-every nan", "--checkpoint-every must be at least 0, got nan"),
        (
            "train mmnist/k1=55+lr=0.001/seed0",
            "scale demo has no run 'mmnist/k1=55+lr=0.001/seed0'; did you mean 'mmnist/k1=5+lr=0.001/seed0'?",
        ),
        ("train mmnist/k1=5+lr=0.001/seed0 --config-hash old", "have changed since the workflow started; start it again"),
        ("status --slots-per-gpu 1000", "--slots-per-gpu must be 1 to 100, got 1000"),
        ("plan --budget 0", "--budget must be at least 1e-06, got 0"),
        ("identify --params 32.9X", "--params must be a number, which may end in K, M or G, got '32.9X'"),
        ("identify --params 32.9M --flops=-32.3G", "--flops must be above 0, got -32.3G"),
        ("identify --params 32.9M --dataset mnist", f"--dataset must be one of {', '.join(DATASETS)}, got 'mnist'"),
        ("identify --params 32.9M --patch-size 3", "patch_size must be one of 1, 2, 4, got 3"),
        ("identify --params 32.9M --depth 40", "depth must be one of 1, 2, …, 32, got 40"),
        ("identify --params 32.9", "no layout has 32.9 parameters on mmnist, in either counting"),
        ("analyse table9", "no experiment 'table9'"),
        ("prepare kth files", "kth/boxing is missing: python -m stlight fetch kth, or put"),
        ("status --scale papre", "no scale 'papre'; the scales are"),
    ],
)
def test_a_mistake_is_reported_in_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments.split()) == 1
    message = capsys.readouterr().err
    assert message.startswith("stlight: ")
    assert words in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "stlight: out of memory\n"),
        (LockLost("the folder"), "stlight: the folder\n"),
        (OSError(28, "No space left on device"), "stlight: [Errno 28] No space left on device\n"),
    ],
)
def test_what_stops_a_verb_from_outside_is_reported_in_one_line(error, message, monkeypatch, capsys):
    def run(options):
        raise error

    monkeypatch.setitem(cli.VERBS, "status", run)
    assert cli.main(["status"]) == 1
    assert capsys.readouterr().err == message


def test_a_job_refuses_other_code_than_the_workflow_was_planned_with(capsys):
    assert cli.main(["status", "--scale", "smoke", "--planned-source", source_version()]) == 0
    assert cli.main(["status", "--scale", "smoke", "--planned-source", "0123456789abcdef"]) == 1
    planned, folder = "planned with code of version 0123456789abcdef, but ", Path(cli.__file__).parent
    assert f"{planned}{folder} is {source_version()}; start it again" in capsys.readouterr().err


def test_an_interrupted_run_asks_to_be_started_again(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(computing, "_train", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert cli.main(["train", "mmnist/stlight_l/seed0", "--results", str(tmp_path)]) == 75
    assert "interrupted by SIGTERM; run the same command again to resume" in capsys.readouterr().err


def test_a_signal_before_training_begins_ends_the_process_as_interrupted():
    code = "import runpy, signal, stlight.cli; stlight.cli.main = lambda: signal.raise_signal(signal.SIGUSR1);"
    code += "runpy.run_module('stlight', run_name='__main__')"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 75


def test_help_loads_neither_torch_nor_pandas():
    code = "import sys, stlight.cli\ntry: stlight.cli.main(['--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit(bool({'torch', 'pandas', 'pydantic'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_counts_say_which_code_made_them(tmp_path, monkeypatch):
    # Other tests of this process compile.
    monkeypatch.setattr("stlight.runtime.process.leave_out_compiler", lambda: None)
    assert cli.main(["count", "table2_openstl", "--scale", "smoke", "--results", str(tmp_path)]) == 0
    counts = json.loads((tmp_path / "smoke" / "complexity" / "table2_openstl.json").read_text())
    assert counts.pop("provenance")["source"] == source_version()
    assert {name.partition("/")[0] for name in counts} == {"mmnist"}


PLAIN_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_a_locale_without_utf_8_compiles_the_kernels(tmp_path):
    code = "from stlight.kernels.compile import library; library('mixer.c'); library('frames.c')"
    plain = os.environ | PLAIN_LOCALE | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_empty_folder_is_refused(capsys):
    for option in ("--results", "--data-root"):
        with pytest.raises(SystemExit):
            cli.main(["status", "--scale", "smoke", option, ""])
        assert f"argument {option}: must not be empty" in capsys.readouterr().err


def test_code_that_is_being_edited_is_one_line(monkeypatch, capsys):
    def broken():
        compile("x = (", "metrics.py", "exec")

    monkeypatch.setattr("stlight.runs.provenance.source_version", broken)
    assert cli.main(["status", "--scale", "smoke", "--planned-source", "0123456789abcdef"]) == 1
    assert "metrics.py: not valid Python" in capsys.readouterr().err


def test_a_locale_without_utf_8_breaks_no_verb(tmp_path):
    plain = os.environ | PLAIN_LOCALE
    for verb in (["count", "section_b_complexity"], ["waiting"], ["identify", "--params", "32.9M"]):
        command = [sys.executable, "-m", "stlight", *verb, "--results", str(tmp_path)]
        done = subprocess.run(command, env=plain, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
