"""The verb `run` checks what it is given, and calls Snakemake so that it works from any folder."""

import itertools
import os
import sys

import pytest
from snakemake.cli import parse_args, parse_config

from stlight import cli
from tests.conftest import REPOSITORY, WORKFLOW

EXPERIMENT = """
title: Mine
paper: {section: "-", item: Mine}
summary: Words.
grid: {depth: [8, 16]}
metrics: [mse]
figure: {kind: lines}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a folder of experiments that load fast."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "one.yaml").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here, monkeypatch):
    """Return the function that gives the arguments of the Snakemake that would replace the process."""
    called = []
    monkeypatch.setattr(os, "execv", lambda path, command: called.append(command))

    def run(*arguments):
        assert cli.main(["run", *arguments]) == 0
        command = called.pop()
        assert command[:4] == [sys.executable, "-P", "-m", "snakemake"]
        return command[4:]

    return run


def config_of(command):
    assert command[0] == "--config"
    return parse_config(list(itertools.takewhile(lambda word: not word.startswith("--"), command[1:])))


def option(command, name):
    return command[command.index(name) + 1]


def test_only_given_settings_reach_snakemake(run, here):
    command = run("--experiments", "mine", "--scale", "smoke")
    assert config_of(command) == {"scale": "smoke", "experiments": str(here / "mine")}
    assert option(command, "-s") == str(WORKFLOW / "Snakefile")
    assert option(command, "--workflow-profile") == str(REPOSITORY / "profiles" / "default")
    assert option(command, "--cores") == "all"


@pytest.mark.parametrize("folder", ["5", "a: b", "1e3", "über #1"])
def test_all_settings_reach_snakemake_as_they_are(folder, run, here):
    mine = str(here / "mine")
    command = run("--experiments", mine, "--results", folder, "--data", "yes", "--hours", "2", "--cores", "3")
    assert config_of(command) == {"experiments": mine, "results": folder, "data": "yes", "hours": "2.0"}
    assert option(command, "--cores") == "3"


def test_what_follows_two_dashes_is_snakemakes(run):
    command = run("--experiments", "mine", "--", "report", "-n", "--forcerun", "analyse")
    _, read = parse_args(command)
    assert list(read.targets) == ["report"]
    assert read.dryrun
    assert list(read.forcerun) == ["analyse"]
    assert parse_config(read.config) == config_of(command)


def test_a_profile_of_the_suite_has_a_name(run, here):
    command = run("--experiments", "mine", "--profile", "slurm")
    assert option(command, "--profile") == str(REPOSITORY / "profiles" / "slurm")
    # The profile says how many jobs there are; rules take no cores for theirs.
    assert "--cores" not in command


@pytest.mark.parametrize(
    ("stated", "words"),
    [("scale: papre", "no scale 'papre'"), ("hours: -1", "--config hours: "), ("x: [", "not valid YAML"), ("[1]", "must hold")],
)
def test_the_configuration_of_the_current_folder_is_checked_too(stated, words, here, capsys):
    (here / "config").mkdir()
    (here / "config" / "config.yaml").write_text(stated)
    assert cli.main(["run", "--experiments", "mine"]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--scale papre", "no scale 'papre'; the scales are"),
        ("--hours 0", "--hours must be at least 1e-06, got 0"),
        ("--cores 0", "--cores must be all or a number from 1, got '0'"),
        ("--cores many", "--cores must be all or a number from 1, got 'many'"),
        ("--slots-per-gpu auto", "slots_per_gpu=auto and device_rate=FILE: one needs the other"),
        ("--slots-per-gpu 1000", "must be auto or a number from 1 to 100, got '1000'"),
        ("--results mine/one.yaml", "--config results: mine/one.yaml is not a folder"),
        ("--experiments nowhere", "workflow/nowhere holds no .yaml file"),
        ("-- --config scale=paper", "--config would replace the settings"),
        ("-- -Cscale=paper", "-Cscale=paper would replace the settings"),
        ("--workflow mine", "no scale 'demo'"),
    ],
)
def test_a_mistake_stops_it_before_snakemake_starts(arguments, words, here, monkeypatch, capsys):
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("started"))
    own = [] if "--experiments" in arguments else ["--experiments", "mine"]
    assert cli.main(["run", *own, *arguments.split()]) == 1
    message = capsys.readouterr().err
    assert message.startswith("stlight: ")
    assert words in message
    assert message.count("\n") == 1


def test_a_name_that_means_two_folders_is_refused(run, here, capsys):
    (here / "mine").rename(here / "sweeps")
    assert cli.main(["run", "--experiments", "sweeps"]) == 1
    assert f"give the whole path, {here / 'sweeps'} or {WORKFLOW / 'sweeps'}" in capsys.readouterr().err
    assert config_of(run("--experiments", str(here / "sweeps"))) == {"experiments": str(here / "sweeps")}


def test_other_verbs_take_a_folder_of_experiments_of_the_users_own(here, capsys):
    assert cli.main(["status", "--scale", "smoke", "--experiments", "mine"]) == 0
    assert "scale smoke: 2 runs" in capsys.readouterr().out
