"""A run that is killed, stopped or out of space, and started again, is the run never stopped."""

import contextlib
import io
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import models
import numpy as np
import pytest
from conftest import ROOT, train
from test_history import points
from test_run import history_rows

import configs
from ptb.saving import files
from ptb.terminal.quiet import tf

SAMPLE = ROOT / "simple-examples" / "sample"
FIELDS = {
    "num_layers": 2, "num_steps": 5, "hidden_size": 20, "init_scale": 0.2, "max_epoch": 2,
    "max_max_epoch": 4, "keep_prob": 0.6, "vocab_size": 366,
}
SomeConfig = type("SomeConfig", (configs.TstConfig,), FIELDS)
# lstm.py with one more configuration, and Ctrl-C as it is on a terminal: a script that was started
# in the background ignores it.
CODE = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
{first}
sys.path.insert(0, {root!r})
import configs
configs.SomeConfig = type("SomeConfig", (configs.TstConfig,), {fields!r})
sys.argv = ["lstm.py", *sys.argv[1:]]
runpy.run_path({root!r} + "/lstm.py", run_name="__main__")
"""


def write_texts(folder, train_lines):
    """Writes the beginning of the sample corpus, and returns its folder."""
    for part, lines in ("train", train_lines), ("valid", 100), ("test", 100):
        text = (SAMPLE / f"ptb.{part}.txt").read_text().splitlines(keepends=True)[:lines]
        (folder / f"ptb.{part}.txt").write_text("".join(text))
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("text"), 500)


def start(text, out, *args, first=""):
    """Starts a run that saves all the time; returns the process. `first` is Python code."""
    code = CODE.format(first=first, root=str(ROOT), fields=FIELDS)
    command = [
        sys.executable, "-c", code, "--config", "some", "--data_path", text, "--save_path", out,
        "--save_minutes", "0.002", *args,
    ]
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


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
    reader = tf.train.load_checkpoint(models.last_model(out / "some"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_same(expected, got):
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(value, got[name], err_msg=name)


@pytest.fixture(scope="module")
def unbroken(text, tmp_path_factory):
    """What a run never stopped has: variables and printed perplexities."""
    out = tmp_path_factory.mktemp("unbroken")
    with contextlib.redirect_stdout(io.StringIO()) as stdout:
        train(SomeConfig, text, out)
    return variables(out), perplexities(stdout.getvalue())


def finish(process):
    """Returns (stdout, stderr) of a process that must end well."""
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return stdout, stderr


def newest(out):
    numbers = [int(path.name[-6:]) for path in pathlib.Path(out, "some").glob("checkpoint-*")]
    return max(numbers, default=0)


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
        before = newest(broken)
        process = start(text, broken)
        while newest(broken) <= before:
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
    assert_same(variables(whole), variables(broken))
    assert points(broken / "some")[0] == points(whole / "some")[0]
    assert history_rows(broken / "some") == history_rows(whole / "some")


def assert_agree(printed, expected):
    assert printed.items() <= expected.items()
    return printed


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal_and_continued(signum, text, unbroken, tmp_path, capsys):
    process = start(text, tmp_path, "--save_minutes", "60")
    while " perplexity: " not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signum)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 128 + signum
    path = tmp_path / "some" / "checkpoint-000001"
    line = f"lstm.py: stopped; the same command goes on from {path}"
    assert stderr.splitlines()[-1] == line
    assert "Traceback" not in stderr
    train(SomeConfig, text, tmp_path)
    stdout = capsys.readouterr().out
    assert re.search(r"^Going on after 0 epochs and \d+ steps\.$", stdout, re.MULTILINE)
    assert perplexities(stdout).items() <= unbroken[1].items()
    assert_same(unbroken[0], variables(tmp_path))


def test_disk_full_in_mid_run(text, unbroken, tmp_path, capsys):
    """The message names the folder, what was saved stays whole, and the run goes on from there."""
    train(type("SomeConfig", (SomeConfig,), {"max_max_epoch": 1}), text, tmp_path)
    there = sorted((tmp_path / "some").glob("checkpoint-*"))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    process = start(text, tmp_path, first=limit)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    last = stderr.splitlines()[-1]
    assert last.startswith(f"lstm.py: cannot save in {tmp_path}/some: "), stderr
    assert last.endswith("whole checkpoint stays, and the same command continues from it")
    assert "Traceback" not in stderr
    assert sorted((tmp_path / "some").glob("checkpoint-*")) == there
    assert not list((tmp_path / "some").glob(".unfinished*"))
    capsys.readouterr()
    train(SomeConfig, text, tmp_path)
    assert perplexities(capsys.readouterr().out).items() <= unbroken[1].items()
    assert_same(unbroken[0], variables(tmp_path))


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
    def run(*args):
        return script("--config", "some", "--data_path", text, "--save_path", tmp_path, *args)

    short = type("SomeConfig", (SomeConfig,), {"max_max_epoch": 2})
    monkeypatch.setattr(configs, "SomeConfig", short, raising=False)
    first = run().stdout
    (tmp_path / "some" / "history.csv").unlink()
    again = run().stdout
    assert [row["epoch"] for row in history_rows(tmp_path / "some")] == ["1", "2"]
    assert [line for line in first.splitlines() if "Test Perplexity" in line][0] in again
    assert "raise max_max_epoch" in again and "Learning rate" not in again
    refused = run("--seed", "2")
    assert refused.returncode == 2
    assert "some has another run: seed was 1 and is 2. Use another" in refused.stderr
    anew = run("--seed", "2", "--restart").stdout
    assert f"The run in {tmp_path}/some is now in {tmp_path}/some-old-1." in anew
    assert perplexities(anew) != perplexities(first)
    (tmp_path / "some").rename(tmp_path / "other")
    (tmp_path / "some-old-1").rename(tmp_path / "some")
    monkeypatch.setattr(configs, "SomeConfig", SomeConfig)
    more = run().stdout  # to the end that unbroken has
    assert "Epoch: 3 Learning rate: 0.500" in more and "Epoch: 2 " not in more
    assert_same(unbroken[0], variables(tmp_path))
