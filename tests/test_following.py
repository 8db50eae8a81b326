"""`stlight status` follows a scale: on a screen, as lines, as JSON, and whatever lies in the results folder."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stlight.cli import main
from stlight.commands.inputs import generate
from stlight.commands.screen import draw_line, draw_screen, duration
from stlight.costs.overview import Follower
from stlight.experiments import load_plan
from stlight.runs.record import Heartbeat
from stlight.runtime import run_lock
from tests.conftest import REPOSITORY, WORKFLOW
from tests.tiny_runs import record_untrained, write_experiment

STATUS = [sys.executable, "-m", "stlight", "status"]


@pytest.fixture
def plan(scales, tmp_path):
    """Two runs of one experiment: depths 8 and 16."""
    write_experiment(scales)
    return load_plan(scales, "smoke", tmp_path)


@pytest.fixture
def arguments(plan, scales, tmp_path):
    return ["status", "--scale", "smoke", "--workflow", str(scales), "--results", str(tmp_path)]


def finish(plan, folder, names=None):
    for name in names or plan.runs:
        record_untrained(folder, name, plan.runs[name])
    if not names:
        for path in ("tables/mine.csv", "figures/mine.png", "examples/mine.png", "report.html"):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).touch()


def look(plan, folder):
    return Follower(plan, folder).look(time.time())


def test_states_of_runs_and_items(plan, tmp_path):
    (first, config), (second, _) = plan.runs.items()
    folder = tmp_path / "smoke"
    assert look(plan, folder).runs == {"waiting": 2}
    with run_lock.hold(folder / "runs" / first):
        Heartbeat(folder / "runs" / first, config_hash=config.hash, num_epochs=3, gpus=("1",)).beat(epoch=1, seconds=60.0)
        found = look(plan, folder)
    (active,) = found.active
    epochs = config.training.num_epochs
    assert (active.name, active.epoch, active.pid, active.gpus) == (first, 1, str(os.getpid()), ["1"])
    assert active.since[:4] == time.strftime("%Y")
    assert active.remaining_seconds == pytest.approx(60 * (epochs - 1), abs=10)
    finish(plan, folder, [second])
    (item,) = look(plan, folder).items
    assert (item.runs, item.finished, item.table) == (2, 1, "waiting")
    assert look(plan, folder).runs == {"interrupted": 1, "done": 1}
    finish(plan, folder)
    assert look(plan, folder).finished


def test_a_run_that_finishes_again_makes_its_table_stale(plan, tmp_path):
    finish(plan, tmp_path)
    os.utime(tmp_path / "tables" / "mine.csv", (time.time() - 100,) * 2)
    found = look(plan, tmp_path)
    assert not found.finished
    assert found.items[0].table == "waiting"
    (log := tmp_path / "logs" / "analyse" / "mine.log").parent.mkdir(parents=True)
    log.touch()
    assert [active.name for active in look(plan, tmp_path).active] == ["analyse mine"]
    log.write_text("stlight: no space\n")
    assert [(one.name, one.why) for one in look(plan, tmp_path).failures] == [("analyse mine", "stlight: no space")]


def test_failed_runs_say_why_and_block_their_item(plan, tmp_path):
    (first, config), (second, _) = plan.runs.items()
    Heartbeat(tmp_path / "runs" / first, config_hash=config.hash, num_epochs=3).beat(epoch=0, seconds=0.0, error="E: full")
    log = tmp_path / "logs" / "train" / f"{second}.log"
    log.parent.mkdir(parents=True)
    log.write_text("warning\nstlight: its data is missing\nleaked 3 types\n")
    found = look(plan, tmp_path)
    assert {one.name: one.why for one in found.failures} == {first: "E: full", second: "stlight: its data is missing"}
    assert found.failures[1].log == str(log)
    assert (found.items[0].table, found.items[0].failed) == ("blocked", 2)
    # Nothing that has not failed is left, but the scale is not finished.
    assert not found.finished


def test_a_run_of_another_host_lives_while_its_lock_is_renewed(plan, tmp_path):
    first, config = next(iter(plan.runs.items()))
    folder = tmp_path / "runs" / first
    Heartbeat(folder, config_hash=config.hash, num_epochs=3, host="node7", pid=4).beat(epoch=1, seconds=5.0)
    holder = {"pid": 4, "host": "node7", "since": "2026-01-01 10:00:00", "kernel": "another", "token": "1"}
    (folder / ".lock").write_text(json.dumps(holder))
    (active,) = look(plan, tmp_path).active
    assert (active.host, active.status, active.since) == ("node7", "running", "2026-01-01 10:00:00")
    os.utime(folder / ".lock", (time.time() - 100,) * 2)
    assert look(plan, tmp_path).active == []


def test_the_remaining_time_is_unknown_until_a_run_is_timed(plan, tmp_path):
    assert look(plan, tmp_path).remaining_seconds is None
    finish(plan, tmp_path, list(plan.runs)[:1])
    assert look(plan, tmp_path).remaining_seconds > 0


def test_json_has_the_documented_schema(plan, arguments, tmp_path, capsys):
    finish(plan, tmp_path / "smoke", list(plan.runs)[:1])
    assert main([*arguments, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    schema = json.loads(generate()["status"])
    jsonschema.Draft202012Validator(schema).validate(content)
    assert content["runs"] == {"done": 1, "waiting": 1}


def test_watching_ends_when_all_is_finished(plan, arguments, tmp_path, capsys):
    finish(plan, tmp_path / "smoke", list(plan.runs)[:1])
    threading.Timer(0.5, finish, (plan, tmp_path / "smoke")).start()
    assert main([*arguments, "--watch", "0.1"]) == 0
    *before, last = capsys.readouterr().out.splitlines()
    assert before
    assert all("1 of 2 runs" in line for line in before[:1])
    assert "2 of 2 runs, finished" in last


def test_refuses_an_interval_of_nothing(arguments, capsys):
    assert main([*arguments, "--watch", "0"]) == 1
    assert "--watch must be at least 0.1, got 0" in capsys.readouterr().err


@pytest.mark.parametrize(("no_color", "coloured"), [("1", False), ("", True)])
def test_a_screen_fits_the_terminal_and_ctrl_c_ends_it(arguments, no_color, coloured):
    reader, writer = pty.openpty()
    environment = os.environ | {"NO_COLOR": no_color, "TERM": "xterm", "COLUMNS": "50", "LINES": "8"}
    command = [*STATUS, *arguments[1:], "--watch", "0.2"]
    process = subprocess.Popen(command, stdout=writer, stderr=subprocess.DEVNULL, env=environment, cwd=REPOSITORY)
    os.close(writer)
    text = ""
    while text.count("\x1b[H") < 3:
        text += os.read(reader, 4096).decode()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    os.close(reader)
    screen = text.split("\x1b[H")[1]
    assert ("\x1b[1m" in screen) == coloured
    assert screen.count("\n") <= 7
    assert "0 of 2 runs" in screen


def test_a_reader_that_has_enough_is_no_error(arguments):
    process = subprocess.Popen([*STATUS, *arguments[1:], "--watch", "0.1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert (process.wait(60), process.stderr.read()) == (0, b"")
    process.stderr.close()


def test_status_does_not_load_torch():
    code = "import sys; from stlight.cli import main; main(['status', '--json', '--results', 'results/reference'])\n"
    code += "sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=REPOSITORY, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("width", "height"), [(20, 3), (60, 10), (100, 24), (200, 80)])
def test_no_line_is_wider_than_the_screen(demo, width, height):
    overview = look(demo, REPOSITORY / "results" / "reference" / "demo")
    lines = draw_screen(overview, "results/demo", width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("stlight demo")


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (99, "99 s"), (150, "2 min"), (7200, "2.0 h"), (9e5, "10.4 d")])
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


GARBAGE = (b"", b"null", b"[]", b"{}", b'"x"', b"NaN", b"\xff\x00", b"[" * 5000, b'{"variants": {"mmnist/stlight_l": 3}}')
PROGRESS_KEYS = ("pid", "host", "epoch", "num_epochs", "seconds", "error", "why", "gpus", "status")
VALUES = st.sampled_from((None, True, -1, 0, 7, 10**400, 1.5, float("nan"), float("inf"), "", "x", [1], {}))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_half_written_folder_never_stops_it(data, tmp_path_factory):
    """Files cut in half, garbage, folders in place of files: the look still has every run, and can be drawn and printed."""
    plan = PLAN.setdefault("plan", load_plan(WORKFLOW, "smoke", REPOSITORY / "nowhere"))
    folder = tmp_path_factory.mktemp("results")
    names = data.draw(st.lists(st.sampled_from(sorted(plan.runs)), max_size=3, unique=True))
    for name in names:
        run = folder / "runs" / name
        record_untrained(folder, name, plan.runs[name])
        drawn = {key: data.draw(VALUES) for key in PROGRESS_KEYS if data.draw(st.booleans())}
        progress = {"config_hash": plan.runs[name].hash} | drawn
        for file in ("record.json", "progress.json", ".lock", f"../../../../logs/train/{name}.log"):
            path = run / file
            kind = data.draw(st.sampled_from(("keep", "cut", "garbage", "folder", "link", "progress", "missing")))
            if kind == "keep":
                continue
            (run / file).parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b'{"pid": 1'
            path.unlink(missing_ok=True)
            if kind == "folder":
                path.mkdir()
            elif kind == "link":
                path.symlink_to("nowhere")
            elif kind != "missing":
                made = {"cut": content[: data.draw(st.integers(0, len(content)))], "progress": json.dumps(progress).encode()}
                path.write_bytes(made[kind] if kind in made else data.draw(st.sampled_from(GARBAGE)))
    for name in data.draw(st.lists(st.sampled_from(("table1_literature", "table2_openstl")), unique=True)):
        for file in (f"speed/{name}.json", f"complexity/{name}.json", f"tables/{name}.csv", "report.html"):
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_bytes(data.draw(st.sampled_from(GARBAGE)))
    found = look(plan, folder)
    assert sum(found.runs.values()) == len(plan.runs)
    assert found.model_dump_json()
    assert len(draw_screen(found, "results", 80, 24, colours=True)) <= 24
    assert "smoke" in draw_line(found)


PLAN = {}
