"""A run that is killed, stopped or out of space, and started again, is the run never stopped."""

import os
import pathlib
import random
import re
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import models
from conftest import ROOT
from ptb import events, plot

CONFIG = """
class KilledConfig(TstConfig):
    num_layers = 2
    num_steps = 5
    hidden_size = 20
    init_scale = 0.2
    max_epoch = 2
    max_max_epoch = EPOCHS
    keep_prob = 0.6
    vocab_size = 366
"""
SAMPLE = ROOT / "simple-examples" / "sample"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with one more configuration, and shorter texts."""
    folder = tmp_path_factory.mktemp("project")
    text = (ROOT / "configs.py").read_text() + CONFIG
    (folder / "configs.py").write_text(text.replace("EPOCHS", "4"))
    (folder / "lstm.py").write_text((ROOT / "lstm.py").read_text())
    os.symlink(ROOT / "ptb", folder / "ptb")
    (folder / "text").mkdir()
    for part, lines in ("train", 6000), ("valid", 100), ("test", 100):
        text = (SAMPLE / f"ptb.{part}.txt").read_text().splitlines(keepends=True)[:lines]
        (folder / "text" / f"ptb.{part}.txt").write_text("".join(text))
    return folder


def start(project, out, *args, **kwargs):
    """Starts a run of KilledConfig that saves all the time; returns the process."""
    command = [
        sys.executable, project / "lstm.py", "--config", "killed", "--data_path",
        project / "text", "--save_path", out, "--save_minutes", "0.002", *args,
    ]
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )


def finish(process):
    """Returns (stdout, stderr) of a process that must end well."""
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return stdout, stderr


def perplexities(stdout):
    """Returns {what: perplexity} of every complete printed line, each within its epoch."""
    values, epoch = {}, None
    for line in stdout.splitlines(keepends=True):
        if match := re.match(r"Epoch: (\d+) Learning rate", line):
            epoch = match[1]
        match = re.fullmatch(r"(?:Epoch: \d+ )?(\S+) [Pp]erplexity: (\S+)( speed.*)?\n", line)
        if match:
            values[epoch, match[1]] = match[2]
    return values


def variables(out):
    reader = tf.train.load_checkpoint(models.last_model(out / "killed"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_same(expected, got):
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(value, got[name], err_msg=name)


def curves(out):
    """Returns {tag: [(step, value)]} of the event files in the order TensorBoard reads them."""
    points = {}
    for path in sorted((out / "killed").glob("events.*")):
        for event in events.read(str(path))[0]:
            for value in event.summary.value:
                points.setdefault(value.tag, []).append((event.step, value.simple_value))
    return points


def history(out):
    """Returns history.csv without the columns that are times."""
    columns = plot.read_history(out / "killed")
    return {name: column for name, column in columns.items() if not name.endswith(("s", "second"))}


@pytest.fixture(scope="module")
def unbroken(project, tmp_path_factory):
    """What a run never stopped has: variables, printed perplexities, curves, history."""
    out = tmp_path_factory.mktemp("unbroken")
    stdout, _ = finish(start(project, out))
    return variables(out), perplexities(stdout), curves(out), history(out)


def newest(out):
    numbers = [int(path.name[-6:]) for path in pathlib.Path(out, "killed").glob("checkpoint-*")]
    return max(numbers, default=0)


@pytest.mark.slow
def test_killed_at_random_moments(project, unbroken, tmp_path):
    """Twenty times SIGKILL, each after a checkpoint more; at least five of them in a save."""
    rng = random.Random(11)
    printed, in_a_save = {}, 0
    unfinished = tmp_path / "killed" / ".unfinished"
    for kill in range(20):
        before = newest(tmp_path)
        process = start(project, tmp_path)
        while newest(tmp_path) <= before:
            assert process.poll() is None, f"ended after {kill} kills: {process.stderr.read()}"
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.3))
        if kill % 2:
            while not unfinished.exists():
                assert process.poll() is None
            time.sleep(rng.uniform(0, 0.004))
        process.kill()
        stdout, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL
        in_a_save += unfinished.exists()
        printed.update(assert_agree(perplexities(stdout), unbroken[1]))
    stdout, _ = finish(start(project, tmp_path))
    printed.update(assert_agree(perplexities(stdout), unbroken[1]))
    assert in_a_save >= 5
    assert printed == unbroken[1]
    assert_same(unbroken[0], variables(tmp_path))
    assert curves(tmp_path) == unbroken[2]
    assert history(tmp_path) == unbroken[3]


def assert_agree(printed, expected):
    assert printed.items() <= expected.items()
    return printed


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal_and_continued(signum, project, unbroken, tmp_path):
    process = start(project, tmp_path, "--save_minutes", "60")
    while " perplexity: " not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signum)
    asked = time.monotonic()
    _, stderr = process.communicate(timeout=30)
    assert time.monotonic() - asked < 5
    assert process.returncode == 128 + signum
    path = tmp_path / "killed" / "checkpoint-000001"
    line = f"lstm.py: stopped; the same command goes on from {path}"
    assert stderr.splitlines()[-1] == line
    assert "Traceback" not in stderr
    stdout, _ = finish(start(project, tmp_path))
    assert re.search(r"^Going on after 0 epochs and \d+ steps\.$", stdout, re.MULTILINE)
    assert perplexities(stdout).items() <= unbroken[1].items()
    assert_same(unbroken[0], variables(tmp_path))


def test_second_ctrl_c_leaves_at_once(project, tmp_path):
    """Here while the first waits for the end of a step that never comes."""
    code = (
        "import time; from ptb import stop\n"
        "with stop.Requests() as requests:\n"
        "    print('ready', flush=True)\n"
        "    while not requests.signum: time.sleep(0.01)\n"
        "    print('asked', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE,
                               text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == -signal.SIGINT


def test_disk_full_in_mid_run(project, unbroken, tmp_path):
    """The message names the folder, what was saved stays whole, and the run goes on from there."""
    process = start(project, tmp_path)
    while newest(tmp_path) < 3:
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.communicate()
    there = sorted((tmp_path / "killed").glob("checkpoint-*"))

    def no_space():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    process = start(project, tmp_path, preexec_fn=no_space)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    last = stderr.splitlines()[-1]
    assert last.startswith(f"lstm.py: cannot save in {tmp_path}/killed: "), stderr
    assert "Traceback" not in stderr
    assert sorted((tmp_path / "killed").glob("checkpoint-*")) == there
    assert not (tmp_path / "killed" / ".unfinished").exists()
    stdout, _ = finish(start(project, tmp_path))
    assert perplexities(stdout).items() <= unbroken[1].items()
    assert_same(unbroken[0], variables(tmp_path))


def test_finished_run_prints_its_results_and_how_to_go_on(project, unbroken, tmp_path):
    text = (project / "configs.py").read_text()
    (project / "configs.py").write_text(text.replace("max_max_epoch = 4", "max_max_epoch = 2"))
    try:
        first, _ = finish(start(project, tmp_path))
        (tmp_path / "killed" / "history.csv").unlink()
        again, _ = finish(start(project, tmp_path))
        assert history(tmp_path)["epoch"] == [1, 2]
        assert [line for line in first.splitlines() if "Test Perplexity" in line][0] in again
        assert "raise max_max_epoch" in again and "Learning rate" not in again
        process = start(project, tmp_path, "--seed", "2")
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 2
        assert "killed has another run: seed was 1 and is 2. Use another" in stderr
        anew, _ = finish(start(project, tmp_path, "--seed", "2", "--restart"))
        assert f"The run in {tmp_path}/killed is now in {tmp_path}/killed-old-1." in anew
        assert perplexities(anew) != perplexities(first)
        (tmp_path / "killed").rename(tmp_path / "other")
        (tmp_path / "killed-old-1").rename(tmp_path / "killed")
    finally:
        (project / "configs.py").write_text(text)
    more, _ = finish(start(project, tmp_path))  # to the end that unbroken has
    assert "Epoch: 3 Learning rate: 0.500" in more and "Epoch: 2 " not in more
    assert_same(unbroken[0], variables(tmp_path))
