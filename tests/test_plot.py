"""Learning curves as a picture."""

import builtins
import struct
import subprocess
import sys

import pytest

from conftest import ROOT
from ptb import plot
from ptb.errors import UserError

HEADER = "epoch,learning_rate,train_perplexity,valid_perplexity,words_per_second,seconds\n"


def write(folder, text):
    folder.mkdir()
    (folder / "history.csv").write_text(text)
    return str(folder)


@pytest.fixture
def two(tmp_path):
    """Two runs' folders, one of them with a perplexity that is infinite."""
    return [
        write(tmp_path / "a", HEADER + "1,1,270.5,180.25,9000,100\n2,0.5,134.5,144,9000,100\n"),
        write(tmp_path / "b", HEADER + "1,1,inf,700,9000,100\n"),
    ]


def test_history_is_read(two):
    history = plot.read_history(two[0])
    assert list(history) == HEADER.strip().split(",")
    assert history["train_perplexity"] == [270.5, 134.5]


@pytest.mark.parametrize("header, ends", [
    (HEADER, ["", "", ""]), (HEADER.replace("\n", ",best\n"), [",0", ",1", ",0"]),
], ids=["of the first release", "of this one"])
def test_best_epoch_is_marked(header, ends, tmp_path, monkeypatch):
    """By a star at the first of the epochs with the lowest valid perplexity."""
    pytest.importorskip("matplotlib")
    rows = ["1,1,270,180", "2,1,134,144.125", "3,1,90,144.125"]
    text = header + "".join(f"{row},9000,100{end}\n" for row, end in zip(rows, ends))
    folder = write(tmp_path / "run", text)
    drawn = []

    def save(figure, file, **_):
        open(file, "wb").close()
        drawn.extend(figure.axes[0].get_lines())

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", save)
    plot.draw([folder], tmp_path / "curves.png")
    (star,) = [line for line in drawn if line.get_marker() == "*"]
    assert (list(star.get_xdata()), list(star.get_ydata())) == ([2], [144.125])
    assert star.get_label() == f"best: valid 144.12 in epoch 2, {folder}"


def test_picture_of_several_runs(two, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    output = tmp_path / "curves.png"
    plot.main([*two, "--output", str(output)])
    assert capsys.readouterr().out == f"Learning curves in {output}\n"
    data = output.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width > 500 and height > 300
    plot.draw(two[:1], output)
    assert output.read_bytes() != data


def test_names_that_matplotlib_would_take_amiss(tmp_path, recwarn):
    pytest.importorskip("matplotlib")
    text = HEADER + "1,1,270.5,180.25,9000,100\n"
    for name in "运行", "_hidden", "$x^$":
        plot.draw([write(tmp_path / name, text)], tmp_path / "curves.png")
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


def test_without_matplotlib_it_says_so(two, tmp_path, monkeypatch):
    real = builtins.__import__

    def fail(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(UserError, match="matplotlib is not installed: pip install matplotlib"):
        plot.draw(two, tmp_path / "curves.png")


@pytest.mark.parametrize("text, message", [
    (HEADER, "no epoch is done yet"),
    ("", "is not what lstm.py wrote"),
    ("a,b\n1,2\n", "is not what lstm.py wrote"),
    (HEADER + "1,2\n", "is not what lstm.py wrote"),
    (HEADER + "1,1,low,180.25,9000,100\n", "is not what lstm.py wrote"),
])
def test_history_that_cannot_be_drawn(text, message, tmp_path, capsys):
    folder = write(tmp_path / "run", text)
    with pytest.raises(SystemExit) as status:
        plot.main([folder])
    assert status.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"plot.py: {folder}/history.csv") and message in captured.err


def test_failed_picture_leaves_nothing(two, tmp_path, monkeypatch):
    """The old picture stays, and no figure is left open."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    output = tmp_path / "curves.png"
    output.write_bytes(b"old")
    before = pyplot.get_fignums()

    def fail(figure, file, **_):
        open(file, "wb").write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(UserError, match="cannot write .*curves.png .No space left on device"):
        plot.draw(two, output)
    assert output.read_bytes() == b"old" and pyplot.get_fignums() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "curves.png"]


def test_importing_loads_no_tensorflow():
    code = "import sys, ptb.plot; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_mistakes_are_named(two, tmp_path):
    with pytest.raises(UserError, match="nowhere/history.csv: No such file"):
        plot.draw([str(tmp_path / "nowhere")], tmp_path / "curves.png")
    pytest.importorskip("matplotlib")
    with pytest.raises(UserError, match="--output: cannot write .*nowhere/curves.png"):
        plot.draw(two, tmp_path / "nowhere" / "curves.png")
