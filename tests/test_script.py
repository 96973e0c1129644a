"""`python lstm.py` as a person runs it."""

import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys

import models
import pytest
from conftest import ROOT, SAMPLE, perplexities, train

import configs
import lstm
from ptb import dataset
from ptb.language_model import LanguageModel
from ptb.saving import checkpoint
from ptb.terminal import command_line
from ptb.terminal.errors import UserError
from ptb.terminal.quiet import tf

def run(*args, project=ROOT, **kwargs):
    """Runs lstm.py with the arguments in a process of its own; returns it, finished."""
    command = [sys.executable, str(project / "lstm.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **kwargs)


def assert_refused(process, message):
    """One line on stderr, exit status 2, nothing trained."""
    lines = process.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("lstm.py: "), process.stderr
    assert re.search(message, lines[0])
    assert "erplexity" not in process.stdout
    assert process.returncode == 2


@pytest.fixture(scope="module")
def smoke(corpus, tmp_path_factory):
    """A finished run of TstConfig: the process and the folder it saved to."""
    out = tmp_path_factory.mktemp("out")
    return run("--config", "Tst", "--data_path", corpus, "--save_path", out), out


def test_smoke_run_says_what_it_runs(smoke, corpus):
    process, out = smoke
    words = [len((corpus / f"ptb.{part}.txt").read_text().replace("\n", " <eos> ").split())
             for part in ("train", "valid", "test")]
    types = len(set((corpus / "ptb.train.txt").read_text().split())) + 2  # <eos> and <unk>
    expected = (
        rf"{corpus} is not the PTB corpus: published figures do not apply\.",
        r"Configuration tst: 1 x 2 units, 50,040 parameters, fused mode, float32, seed 1",
        rf"Corpus {corpus} \(own\): {words[0]:,} words to train on, {words[1]} valid, "
        rf"{words[2]} test, {types} types",
        rf"TensorFlow {re.escape(tf.__version__)} on CPU.*, saving in {out}/tst",
    )
    lines = process.stdout.splitlines()
    for line, pattern in zip(lines, expected):
        assert re.fullmatch(pattern, line)


def test_smoke_run_prints_the_articles_lines(smoke):
    process, out = smoke
    assert process.returncode == 0, process.stderr
    *lines, last = process.stdout.splitlines()[4:]
    number = r"\d+\.\d{3}"
    assert lines[0] == "Epoch: 1 Learning rate: 1.000"
    assert 10 <= len(lines[1:-4]) <= 12
    for line in lines[1:-4]:
        assert re.fullmatch(rf"0\.\d{{3}} perplexity: {number} speed: \d+ wps", line)
    assert re.fullmatch(rf"Epoch: 1 Train Perplexity: {number}", lines[-4])
    assert re.fullmatch(rf"Epoch: 1 Valid Perplexity: {number}", lines[-3])
    assert re.fullmatch(rf"Test Perplexity: {number}", lines[-2])
    assert lines[-1] == f"Saving model to {out}/tst/checkpoint-000002/model.ckpt."
    command = f"python -m ptb.language_model generate {out}/tst --prompt '<eos>'"
    assert last == f"To let the model write: {command}"


def test_smoke_run_learns(smoke):
    perplexities = re.findall(r" Perplexity: (\S+)", smoke[0].stdout)
    assert all(1 < float(value) < 9000 for value in perplexities)  # 10000 knows nothing


def test_smoke_run_warns_of_nothing(smoke):
    """Neither does TensorFlow, while it is imported."""
    assert smoke[0].stderr == ""


def test_saved_model_has_every_variable_the_tutorial_asks_for(smoke):
    path = models.last_model(smoke[1] / "tst")
    assert dict(tf.train.list_variables(path)) == models.TST_VARIABLES
    reader = tf.train.load_checkpoint(path)
    assert reader.get_tensor("Model/global_step").dtype == "int64"
    assert reader.get_tensor("Model/global_step") > 10
    assert reader.get_tensor("Train/Model/Variable") == 1.0
    assert reader.get_tensor("Train/Model/Variable").dtype == "float32"


def test_saved_model_gives_the_printed_perplexities(smoke, corpus):
    process, out = smoke
    config = configs.TstConfig()
    _, valid, test, _ = lstm.reader.ptb_raw_data(corpus, config.vocab_size)
    for ids, part in (valid, "Valid"), (test, "Test"):
        with models.built(config, ids) as (session, _, *evaluated):
            tf.train.Saver().restore(session, models.last_model(out / "tst"))
            perplexity = models.perplexity(session, evaluated[part == "Test"])
        assert f"{part} Perplexity: {perplexity:.3f}" in process.stdout


def test_same_command_same_perplexities(smoke, script, corpus, tmp_path):
    args = "--config", "tst", "--data_path", corpus, "--save_path"
    again = script(*args, tmp_path / "again").stdout
    other = script(*args, tmp_path / "other", "--seed", "2").stdout
    assert perplexities(again) == perplexities(smoke[0].stdout)
    assert perplexities(other).keys() == perplexities(again).keys()
    assert perplexities(other) != perplexities(again)


@pytest.mark.slow
def test_checkpoint_of_tensorflow_1_15(shared):
    """Its variables restore by name, and give the perplexities TensorFlow 1.15 gave."""
    config = configs.TstConfig()
    _, valid, test, _ = lstm.reader.ptb_raw_data(shared / "simple-examples" / "data")
    checkpoint = str(shared / "checkpoints" / "tf115-tst" / "model.ckpt-23239")
    assert dict(tf.train.list_variables(checkpoint)) == models.TST_VARIABLES
    for ids, which, recorded in (valid, 0, 483.049), (test, 1, 458.287):
        with models.built(config, ids) as (session, _, *evaluated):
            tf.train.Saver().restore(session, checkpoint)
            perplexity = models.perplexity(session, evaluated[which])
        assert perplexity == pytest.approx(recorded, abs=1.5e-3)


def test_learning_rate_schedule(corpus, tmp_path, capsys):
    """Full for max_epoch epochs, then lower by lr_decay each; the small config's, but tiny."""
    small = configs.SmallConfig
    fields = {name: getattr(small, name) for name in ("max_epoch", "max_max_epoch", "lr_decay")}
    fields.update(batch_size=20, num_steps=20)
    train(type("SomeConfig", (models.TinyConfig,), fields), corpus, tmp_path)
    printed = re.findall(r"Epoch: (\d+) Learning rate: (\S+)", capsys.readouterr().out)
    rates = "1.000 1.000 1.000 1.000 0.500 0.250 0.125 0.062 0.031 0.016 0.008 0.004 0.002".split()
    assert printed == [(str(i), rate) for i, rate in enumerate(rates, start=1)]
    checkpoint = tf.train.load_checkpoint(models.last_model(tmp_path / "some"))
    assert checkpoint.get_tensor("Train/Model/Variable") == 0.5**9  # it is the one in use


def test_without_a_corpus_or_a_connection_it_trains_on_the_sample(
    tmp_path, monkeypatch, script
):
    quick = {"vocab_size": 400, "batch_size": 50, "num_steps": 20}
    monkeypatch.setattr(configs, "QuickConfig", type("QuickConfig", (models.TinyConfig,), quick),
                        raising=False)
    monkeypatch.setattr(dataset, "URLS", ())
    monkeypatch.chdir(tmp_path)
    lines = script("--config", "quick").stdout.splitlines()
    assert lines[0].startswith("PTB could not be downloaded: training on the sample corpus")
    assert "(sample): 100,002 words to train on, 10,008 valid, 10,004 test, 366 types" in lines[3]
    at = [line.startswith("Test Perplexity: ") for line in lines].index(True)
    assert lines[at + 1] == "(on the sample corpus: compares with nothing published)"
    assert os.listdir(tmp_path) == ["Out"] and os.listdir("Out") == ["quick-sample"]
    assert models.last_model("Out/quick-sample")
    # From now on that is the run, for which nothing is tried again.
    downloads = []
    monkeypatch.setattr(dataset, "download", downloads.append)
    again = script("--config", "quick").stdout
    assert again.startswith("Going on with the run on the sample corpus, whose perplexities")
    assert "The run in ./Out/quick-sample is finished:" in again and downloads == []
    last = again.splitlines()[-1]
    assert last.startswith(f"To let the model write in {ROOT}: python -m ptb.language_model gen")
    assert last.endswith(f"ate {tmp_path}/Out/quick-sample --prompt '<eos>'")
    with pytest.raises(UserError, match="; there is Out/quick-sample$"):
        LanguageModel.load("Out/quick")
    assert "PTB could not be downloaded" in script("--config", "quick", "--restart").stdout
    assert len(downloads) == 1


def test_help(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = script("--help")
    assert process.returncode == 0
    text = " ".join(process.stdout.split())
    for flag in "config", "data_path", "save_path", "[no]use_fp16", "rnn_mode", "seed":
        assert re.search(rf" --{re.escape(flag)}: (?:(?! --).)*\. \(default:", text), flag
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("args, message", [
    (["--confg", "medium"], "Unknown command line flag 'confg'"),
    (["--use_fp16", "false"], "unexpected word 'false'"),
    (["--seed", "one"], "flag --seed=one: it takes a number; --help lists the flags"),
    (["--save_minutes", "soon"], "flag --save_minutes=soon: it takes a number; --help"),
    (["--seed", "-1"], "--seed=-1"),
    (["--rnn_mode", "cudnn"], "--rnn_mode=cudnn: value should be one of <fused\\|basic>"),
    (["--config", "smal"], "smal: unknown; configs.py has small, medium, large, tst"),
    (["--config", "tst", "--data_path", "nowhere"], "--data_path: nowhere: no such folder"),
    (["--config", "tst", "--save_path", "/dev/null"], "--save_path: /dev/null is a file, or in"),
])
def test_mistakes_get_one_line(args, message, script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused(script(*args), message)


def test_corpus_too_short_gets_one_line(script, corpus, tmp_path):
    for part in "train", "test":
        (tmp_path / f"ptb.{part}.txt").write_bytes((corpus / f"ptb.{part}.txt").read_bytes())
    (tmp_path / "ptb.valid.txt").write_text("too short\n")
    process = script("--config", "tst", "--data_path", tmp_path, "--save_path", tmp_path)
    assert_refused(process, "ptb.valid.txt: 3 words, too few for batch_size 20 and num_steps 2")
    (tmp_path / "ptb.valid.txt").write_bytes((corpus / "ptb.valid.txt").read_bytes())
    (tmp_path / "ptb.test.txt").write_text("short")
    process = script("--config", "tst", "--data_path", tmp_path, "--save_path", tmp_path)
    assert_refused(process, "ptb.test.txt: 1 word, too few to predict one: use 2 or more")


@pytest.mark.parametrize("old, new, message", [
    ("keep_prob = 0.35", "keep_prob = 3.5", "LargeConfig.keep_prob is 3.5; a probability is at mo"),
    ("keep_prob = 0.35", "keep_prob = 0,35", r"LargeConfig.keep_prob is \(0, 35\), not a number"),
    ("keep_prob = 0.35", "keep_prob = 0.3.5", r"lstm.py: edited.py, line \d\d: SyntaxError: .*; f"),
    ("keep_prob = 0.35", "keep_prob = half", r"edited.py, line \d\d: NameError: .*'half'.*; fix"),
    ("Config:", ":", "--config large: unknown; edited.py has none; the name of a configuration"),
    ("class LargeConfig", "class HugeConfig", "--config large: unknown; edited.py has small, med"),
])
def test_mistakes_in_configs_get_one_line(old, new, message, tmp_path, monkeypatch, capsys):
    """In a configs.py that a user has edited, here edited.py."""
    text = (ROOT / "configs.py").read_text()
    assert old in text
    (tmp_path / "edited.py").write_text(text.replace(old, new))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "edited", raising=False)
    monkeypatch.setattr(sys, "argv", ["lstm.py"])
    with pytest.raises((SystemExit, UserError)) as error:
        command_line.get_config("large", command_line.import_edited("edited"))
    lines = capsys.readouterr().err.splitlines() or [str(error.value)]
    assert len(lines) == 1 and re.search(message, lines[0])
    assert error.type is UserError or error.value.code == 2


@pytest.mark.slow
def test_mistake_in_configs_ends_the_script(corpus, tmp_path):
    """In a copy of the project whose configs.py a user has edited."""
    (tmp_path / "configs.py").write_text("class WideConfig\n    hidden_size = 300\n")
    shutil.copy(ROOT / "lstm.py", tmp_path)
    os.symlink(ROOT / "ptb", tmp_path / "ptb")
    args = "--config", "wide", "--data_path", corpus, "--save_path", tmp_path / "out"
    assert_refused(run(*args, project=tmp_path), "configs.py, line 1: SyntaxError: .*; fix the f")
    assert not (tmp_path / "out").exists()


def test_diverging_run_stops_and_says_where(corpus, tmp_path):
    wild = type("WildConfig", (models.TinyConfig,), {"learning_rate": 1e38, "max_grad_norm": 1e30})
    message = r"^epoch 1, learning rate \S+: the (cost|train perplexity) is .* at step \d+.*; lower"
    with pytest.raises(UserError, match=message):
        train(wild, corpus, tmp_path)
    assert not list((tmp_path / "some").glob("checkpoint-*"))


# What real processes, pipes and terminals do; test_run.py has the same within this process.

@pytest.mark.slow
def test_closed_pipe_ends_a_run_without_a_traceback(tmp_path):
    """In the middle of the sample corpus, as `| head` does; it is saved."""
    process = subprocess.Popen(
        on_sample(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while " perplexity: " not in process.stdout.readline():
        assert process.poll() is None
    process.stdout.close()
    stderr = process.stderr.read()
    assert process.wait(60) == 141
    path = f"{tmp_path}/tst-sample/checkpoint-000001"
    assert stderr == (
        "lstm.py: the output cannot be written (Broken pipe); stopped; the same command goes on "
        f"from {path}\n"
    )
    assert checkpoint.read(path).position.step > 10
    process.stderr.close()


def with_ctrl_c():
    """Makes Ctrl-C what it is on a terminal: a script that is started otherwise may ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def on_sample(out):
    """Returns the command that trains TstConfig on the sample corpus and saves in a folder."""
    command = [sys.executable, ROOT / "lstm.py", "--config", "tst", "--data_path", SAMPLE]
    return [*map(str, command), "--save_path", str(out)]


@pytest.mark.slow
@pytest.mark.parametrize("redirected", ["", "2>&1"])
def test_ctrl_c_that_ends_the_reader_of_the_output_as_well(redirected, tmp_path):
    """`python lstm.py | tee log`: a terminal sends Ctrl-C to both."""
    log, status = tmp_path / "log", tmp_path / "status"
    log.touch()
    command = f"{shlex.join(on_sample(tmp_path))} {redirected}"
    code = f"trap : INT; {{ {command}; echo $? > {status}; }} | tee {log} > /dev/null"
    process = subprocess.Popen(
        ["bash", "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=with_ctrl_c,
    )
    while " perplexity: " not in log.read_text():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    stderr = process.communicate(timeout=60)[1]
    assert status.read_text() == "130\n"
    path = f"{tmp_path}/tst-sample/checkpoint-000001"
    said = f"lstm.py: stopped; the same command goes on from {path}\n"
    assert stderr == ("" if redirected else said)
    assert checkpoint.read(path).position.step > 10


@pytest.mark.slow
def test_terminal_that_is_closed(tmp_path):
    """SIGHUP comes, and nothing can be printed any more."""
    process, terminal = pty.fork()
    if not process:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        command = on_sample(tmp_path)
        os.execv(command[0], command)
    printed = b""
    while b" perplexity: " not in printed:
        printed += os.read(terminal, 1000)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 128 + signal.SIGHUP
    assert checkpoint.read(f"{tmp_path}/tst-sample/checkpoint-000001").position.step > 10


def test_run_with_whole_numbers_for_its_rates(tmp_path, corpus):
    """Every number of it is read again."""
    fields = {"learning_rate": 1, "lr_decay": 1, "max_grad_norm": 5, "keep_prob": 1}
    for epochs in 1, 2:
        fields["max_max_epoch"] = epochs
        train(type("SomeConfig", (models.TinyConfig,), fields), corpus, tmp_path)
    assert checkpoint.find(str(tmp_path / "some")).position.epoch == 2


def test_run_whose_perplexity_is_infinite_stops(corpus, tmp_path):
    """Its costs stay finite, and so do its weights."""
    wild = type("WildConfig", (models.TinyConfig,), {"learning_rate": 1e30})
    message = r"^epoch 1, .*: the train perplexity is infinite at step \d+; lower learning_rate"
    with pytest.raises(UserError, match=message):
        train(wild, corpus, tmp_path)


@pytest.mark.slow
def test_ctrl_c_before_training_is_one_line(tmp_path):
    for part in "train", "valid", "test":  # Reading the first of them takes some seconds.
        (tmp_path / f"ptb.{part}.txt").write_text("a b\n" * (10_000_000 if part == "train" else 9))
    process = subprocess.Popen(
        [sys.executable, ROOT / "lstm.py", "--data_path", tmp_path, "--save_path", tmp_path],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=with_ctrl_c,
    )
    assert "is not the PTB corpus" in process.stdout.readline()  # Now it begins to read.
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "lstm.py: interrupted"
