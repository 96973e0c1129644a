"""What the tests share: small corpora, small runs, what these leave, and reference material."""

import contextlib
import csv
import os
import pathlib
import random
import re
import sys
import types

import pytest
from absl.testing import flagsaver

# The tests run in as many processes as there are cores, and their matrices are small: a second
# thread in each of them would only get in the way of the others.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import models

import configs
import lstm
from ptb import plot, run
from ptb.language_model import LanguageModel
from ptb.saving import files, history
from ptb.terminal import command_line, progress
from ptb.terminal.quiet import tf

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
SAMPLE = ROOT / "simple-examples" / "sample"

tf.disable_eager_execution()


@pytest.fixture
def shared():
    """The folder with PTB and a TensorFlow 1.15 checkpoint; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the reference material beside the project (../shared)")
    return SHARED


@pytest.fixture(autouse=True, scope="session")
def not_deterministic():
    """lstm.main leaves this process as it is, where determinism could not be switched off again.

    test_deterministic.py has a process in which it is on.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "make_deterministic", tf.set_random_seed)
        yield


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    """A warning that is given once in a process is given once in each test."""
    monkeypatch.setattr(files, "warned", set())


@pytest.fixture
def flags():
    """lstm.FLAGS, put back after the test."""
    with flagsaver.flagsaver():
        yield lstm.FLAGS


@pytest.fixture
def script(capsys):
    """To be called with arguments: runs lstm.py on them in this process.

    Returns its exit status and what it printed, {returncode, stdout, stderr}.
    """

    def call(*args):
        capsys.readouterr()
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
            command_line.run(lstm.main, ["lstm.py", *map(str, args)])
        printed = capsys.readouterr()
        return types.SimpleNamespace(
            returncode=ended.value.code or 0, stdout=printed.out, stderr=printed.err
        )

    return call


@pytest.fixture
def terminal(monkeypatch):
    """To be called: stderr is a terminal from then on, and progress is shown at once."""

    def begin():
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setattr(progress, "PATIENCE", 0)
        monkeypatch.setattr(progress, "INTERVAL", 0)

    return begin


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, which stay as they were drawn."""
    pytest.importorskip("matplotlib")
    kept = []
    monkeypatch.setattr(plot, "save", lambda figure, output, dpi: kept.append(figure))
    return kept


@pytest.fixture(scope="session")
def trained(corpus, tmp_path_factory):
    """The folder of a finished run of two epochs of a two-layer model, vocabulary as it comes."""
    fields = {"max_max_epoch": 2, "vocab_size": None}
    out = tmp_path_factory.mktemp("trained")
    train(type("SomeConfig", (models.TinyConfig,), fields), corpus, out)
    return out / "some"


@pytest.fixture(scope="session")
def model(trained):
    """That LanguageModel."""
    return LanguageModel.load(str(trained))


@pytest.fixture
def loaded(model, monkeypatch):
    """Whatever a command names, it asks that model, and leaves it open."""
    monkeypatch.setattr(LanguageModel, "load", lambda *args: contextlib.nullcontext(model))


@pytest.fixture(scope="module")
def mixture(trained, corpus, tmp_path_factory):
    """Three models of the corpus: a run, a smaller one in 16 bits, and one as the tutorial's.

    The last has more rows than there are words.
    """
    out = tmp_path_factory.mktemp("mixture")
    fields = {"num_layers": 1, "hidden_size": 4, "batch_size": 5, "vocab_size": None}
    train(type("SomeConfig", (models.TinyConfig,), fields), corpus, out, "--use_fp16")
    config = type("SomeConfig", (models.TinyConfig,), {"hidden_size": 5, "vocab_size": 35})()
    with models.built(config, [0] * 100) as (session, *_):
        models.randomize(session, 1.5)
        path = tf.train.Saver(tf.trainable_variables()).save(session, str(out / "model.ckpt-9"))
    return [trained, out / "some", path]


def train(config, data_path, out, *args):
    """Runs lstm.main on a configuration class, as `--config some`, and saves in out/some."""
    with pytest.MonkeyPatch.context() as patch, flagsaver.flagsaver():
        patch.setattr(configs, "SomeConfig", config, raising=False)
        lstm.FLAGS([
            "lstm.py", "--config=some", f"--data_path={data_path}", f"--save_path={out}", *args
        ])
        lstm.main([])


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder with a corpus of 30 word types, large enough for one step of TstConfig."""
    return write_corpus(tmp_path_factory.mktemp("corpus"), train_lines=300)


def write_corpus(folder, train_lines):
    """Writes a corpus of at most 30 word types into a folder, and returns that."""
    rng = random.Random(7)
    for part, lines in ("train", train_lines), ("valid", 60), ("test", 20):
        text = "".join(
            " "  # The lines of PTB begin and end with a space, too.
            + " ".join(f"w{min(int(rng.expovariate(0.2)), 29)}" for _ in range(rng.randint(3, 12)))
            + " \n"
            for _ in range(lines)
        )
        (folder / f"ptb.{part}.txt").write_text(text, encoding="utf-8")
    return folder


def write_texts(folder, train_lines):
    """Writes the beginning of the sample corpus, and returns its folder."""
    for part, lines in ("train", train_lines), ("valid", 100), ("test", 100):
        text = (SAMPLE / f"ptb.{part}.txt").read_text().splitlines(keepends=True)[:lines]
        (folder / f"ptb.{part}.txt").write_text("".join(text))
    return folder


# A run, and what it leaves in its folder and prints.

class Killed(Exception):
    """Ends a run as SIGKILL would: nothing is saved."""


def newest_number(out):
    """Returns the number of the newest checkpoint of the run in out/some; 0 where there is none."""
    numbers = [int(path.name[-6:]) for path in pathlib.Path(out, "some").glob("checkpoint-*")]
    return max(numbers, default=0)


def history_rows(folder):
    """Returns the rows of history.csv without the two columns that are times."""
    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["words_per_second"], row["seconds"]
    return rows


def points(folder):
    """Returns {tag: [(step, value)]} and the number of graphs in a folder's event files."""
    found, graphs = {}, 0
    for path in sorted(folder.glob("events.out.tfevents.*")):
        recorded, whole = history.read_events(str(path))
        assert whole and recorded[0].file_version == "brain.Event:2"
        for event in recorded:
            graphs += b"of_this_graph" in event.graph_def
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found, graphs


def correct_sum(path):
    """Makes SHA256SUMS agree with a file that was changed."""
    sums = path.parent / "SHA256SUMS"
    lines = [
        f"{files.sha256_of(path)}  {path.name}" if line.endswith(f"  {path.name}") else line
        for line in sums.read_text().splitlines()
    ]
    sums.write_text("\n".join(lines) + "\n")


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


class System:
    """The os module as a module of ours sees it, with other functions under some of its names."""

    def __init__(self, **functions):
        self.__dict__.update(functions)

    def __getattr__(self, name):
        return getattr(os, name)


def failing(number, when=lambda *args: True, otherwise=None):
    """Returns a function that fails with an error number where `when` says so."""

    def function(*args):
        if when(*args):
            raise OSError(number, os.strerror(number), args[0])
        return otherwise(*args)

    return function
