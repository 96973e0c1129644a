"""A run that is killed, stopped or out of space, and started again, is the run never stopped."""

import contextlib
import io
import os
import random
import re
import signal
import subprocess
import sys
import time

import models
import pytest
from conftest import ROOT, history_rows, newest_number, perplexities, points, train, write_texts

import configs
from ptb import run
from ptb.saving import files

FIELDS = {
    "num_layers": 2, "num_steps": 5, "hidden_size": 20, "init_scale": 0.2, "max_epoch": 2,
    "max_max_epoch": 4, "keep_prob": 0.6, "vocab_size": 366,
}
SomeConfig = type("SomeConfig", (configs.TstConfig,), FIELDS)
# lstm.py with one more configuration, in a process of its own.
CODE = """
import runpy, sys
sys.path.insert(0, {root!r})
import configs
configs.SomeConfig = type("SomeConfig", (configs.TstConfig,), {fields!r})
sys.argv = ["lstm.py", *sys.argv[1:]]
runpy.run_path({root!r} + "/lstm.py", run_name="__main__")
"""
@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("text"), 500)


def start(text, out):
    """Starts a run that saves all the time; returns the process."""
    code = CODE.format(root=str(ROOT), fields=FIELDS)
    command = [
        sys.executable, "-c", code, "--config", "some", "--data_path", text, "--save_path", out,
        "--save_minutes", "0.002",
    ]
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def unbroken(text, tmp_path_factory):
    """What a run never stopped has: variables and printed perplexities."""
    out = tmp_path_factory.mktemp("unbroken")
    with contextlib.redirect_stdout(io.StringIO()) as stdout:
        train(SomeConfig, text, out)
    return models.last_saved(out), perplexities(stdout.getvalue())


def finish(process):
    """Returns (stdout, stderr) of a process that must end well."""
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return stdout, stderr


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """Twenty times SIGKILL, each after a checkpoint more; at least five of them in a save."""
    (tmp_path / "text").mkdir()
    text = write_texts(tmp_path / "text", 6000)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = perplexities(finish(start(text, whole))[0])
    rng = random.Random(11)
    printed, in_a_save = {}, 0

    def unfinished():
        return list(broken.glob("some/.unfinished*checkpoint*"))

    for kill in range(20):
        before = newest_number(broken)
        process = start(text, broken)
        while newest_number(broken) <= before:
            assert process.poll() is None, f"ended after {kill} kills: {process.stderr.read()}"
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.3))
        if kill % 2:
            while not unfinished():
                assert process.poll() is None
            time.sleep(rng.uniform(0, 0.004))
        process.kill()
        stdout, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL
        in_a_save += bool(unfinished())
        printed.update(assert_agree(perplexities(stdout), expected))
    stdout, _ = finish(start(text, broken))
    printed.update(assert_agree(perplexities(stdout), expected))
    assert in_a_save >= 5
    assert printed == expected
    models.assert_same(models.last_saved(whole), models.last_saved(broken))
    assert points(broken / "some")[0] == points(whole / "some")[0]
    assert history_rows(broken / "some") == history_rows(whole / "some")


def assert_agree(printed, expected):
    assert printed.items() <= expected.items()
    return printed


@pytest.mark.parametrize("signum", [
    signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
])
def test_stopped_by_a_signal_and_continued(
    signum, text, unbroken, script, tmp_path, monkeypatch, capsys
):
    after_step = run.Follower.after_step

    def ask_and_go_on(follower, step, *args):
        if step == 7:
            os.kill(os.getpid(), signum)
        after_step(follower, step, *args)

    monkeypatch.setattr(configs, "SomeConfig", SomeConfig, raising=False)
    # Where the tests run in the background, Ctrl-C is ignored.
    before = signal.signal(signum, signal.SIG_DFL)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(run.Follower, "after_step", ask_and_go_on)
            stopped = script("--config", "some", "--data_path", text, "--save_path", tmp_path)
    finally:
        signal.signal(signum, before)
    assert stopped.returncode == 128 + signum
    path = tmp_path / "some" / "checkpoint-000001"
    assert stopped.stderr == f"lstm.py: stopped; the same command goes on from {path}\n"
    train(SomeConfig, text, tmp_path)
    stdout = capsys.readouterr().out
    assert re.search(r"^Going on after 0 epochs and 7 steps\.$", stdout, re.MULTILINE)
    assert perplexities(stdout).items() <= unbroken[1].items()
    models.assert_same(unbroken[0], models.last_saved(tmp_path))


def test_disk_full_in_mid_run(text, unbroken, script, tmp_path, monkeypatch, capsys):
    """The message names the folder, what was saved stays whole, and the run goes on from there."""
    resource = pytest.importorskip("resource")
    train(type("SomeConfig", (SomeConfig,), {"max_max_epoch": 1}), text, tmp_path)
    there = sorted((tmp_path / "some").glob("checkpoint-*"))
    monkeypatch.setattr(configs, "SomeConfig", SomeConfig, raising=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        full = script("--config", "some", "--data_path", text, "--save_path", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert full.returncode == 2
    last = full.stderr.splitlines()[-1]
    assert last.startswith(f"lstm.py: cannot save in {tmp_path}/some: "), full.stderr
    assert last.endswith("whole checkpoint stays, and the same command continues from it")
    assert sorted((tmp_path / "some").glob("checkpoint-*")) == there
    assert not list((tmp_path / "some").glob(".unfinished*"))
    train(SomeConfig, text, tmp_path)
    assert perplexities(capsys.readouterr().out).items() <= unbroken[1].items()
    models.assert_same(unbroken[0], models.last_saved(tmp_path))


def test_start_reads_the_newest_checkpoint_once(text, tmp_path, monkeypatch):
    """It is looked for before the corpus is read, and once more when the folder is locked."""
    short = type("SomeConfig", (SomeConfig,), {"max_max_epoch": 1})
    train(short, text, tmp_path)
    read, really = [], files.sha256_of
    monkeypatch.setattr(files, "sha256_of", lambda path: read.append(str(path)) or really(path))
    train(short, text, tmp_path)
    data = f"{tmp_path}/some/checkpoint-000002/model.ckpt.data-00000-of-00001"
    assert read.count(data) == 1


def test_finished_run_prints_its_results_and_how_to_go_on(
    script, text, unbroken, tmp_path, monkeypatch
):
    def start(*args):
        return script("--config", "some", "--data_path", text, "--save_path", tmp_path, *args)

    short = type("SomeConfig", (SomeConfig,), {"max_max_epoch": 2})
    monkeypatch.setattr(configs, "SomeConfig", short, raising=False)
    first = start().stdout
    (tmp_path / "some" / "history.csv").unlink()
    again = start().stdout
    assert [row["epoch"] for row in history_rows(tmp_path / "some")] == ["1", "2"]
    assert [line for line in first.splitlines() if "Test Perplexity" in line][0] in again
    assert "raise max_max_epoch" in again and "Learning rate" not in again
    refused = start("--seed", "2")
    assert refused.returncode == 2
    assert "some has another run: seed was 1 and is 2. Use another" in refused.stderr
    anew = start("--seed", "2", "--restart").stdout
    assert f"What was in {tmp_path}/some is now in {tmp_path}/some-old-1." in anew
    assert perplexities(anew) != perplexities(first)
    (tmp_path / "some").rename(tmp_path / "other")
    (tmp_path / "some-old-1").rename(tmp_path / "some")
    monkeypatch.setattr(configs, "SomeConfig", SomeConfig)
    more = start().stdout  # to the end that unbroken has
    assert "Epoch: 3 Learning rate: 0.500" in more and "Epoch: 2 " not in more
    models.assert_same(unbroken[0], models.last_saved(tmp_path))
