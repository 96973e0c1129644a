"""Learning curves as a picture."""

import errno
import itertools
import logging
import os
import struct
import subprocess
import sys
import threading
import warnings
import xml.etree.ElementTree

import numpy as np
import pytest
from conftest import ROOT, System, failing

from ptb import plot
from ptb.language_model import LanguageModel
from ptb.saving import checkpoint, files
from ptb.terminal.errors import UserError

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
def test_best_epoch_is_marked(header, ends, tmp_path, figures):
    """By a star at the first of the epochs with the lowest valid perplexity."""
    rows = ["1,1,270,180", "2,1,134,144.125", "3,1,90,144.125"]
    text = header + "".join(f"{row},9000,100{end}\n" for row, end in zip(rows, ends))
    folder = write(tmp_path / "run", text)
    plot.draw([folder], tmp_path / "curves.png")
    (star,) = [line for line in figures[0].axes[0].get_lines() if line.get_marker() == "*"]
    assert (list(star.get_xdata()), list(star.get_ydata())) == ([2], [144.125])
    text = figures[0].legends[0].get_texts()[0].get_text().replace("\n", "")
    assert text == f"train 90.00, valid 144.12, best 144.12 in epoch 2, {folder}"


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


# The perplexities of a run, {train, valid} of each epoch.
@pytest.mark.parametrize("epochs", [
    [(270, 180), (134, 144), (41, 120)],
    [(3e9, 2.9e9), (2.2e9, 2e9), (1.6e9, 1.5e9)],
    [(357771, 900), (300, 300), (45, 200)],
    [(6000, 700), (20, 90)],
    [(1e150, 1e160), (1e30, 2)],
    [(119.9, 119.9)],
    [(119.9, 119.9001)],
    [(1.0001, 1.0)],
    [(float("inf"), 1.7e308), (float("inf"), 50)],
    [(float("inf"), float("inf"))],
])
def test_numbers_on_the_axes_can_be_read(epochs, tmp_path, figures):
    """There are some, they differ, and none stands on another."""
    rows = "".join(f"{i},1,{t},{v},1,1\n" for i, (t, v) in enumerate(epochs, start=1))
    plot.draw([write(tmp_path / "run", HEADER + rows)], tmp_path / "x.png")
    figure, = figures
    figure.canvas.draw()
    axes, = figure.axes
    low, high = axes.get_ylim()
    ticks = [tick for tick in axes.yaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    texts = [tick.label1.get_text() for tick in ticks]
    assert 3 <= len({*texts}) == len(texts) and all(texts)
    boxes = [tick.label1.get_window_extent() for tick in ticks]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(low <= value <= high for pair in epochs for value in pair if value < plot.LARGEST)
    first, last = axes.get_xlim()
    whole = [float(tick) for tick in axes.get_xticks() if first <= tick <= last]
    assert 1 in whole and all(tick.is_integer() for tick in whole)


@pytest.mark.parametrize("names", [
    ["run"], [f"seed{k}" for k in range(11)], [f"seed{k}" for k in range(30)],
    ["a-long-name_" * 20 + end for end in "12"], ["W" * 250], ["学习率零点五" * 13, "b"],
], ids=["one", "eleven", "thirty", "long", "wide", "Chinese"])
@pytest.mark.filterwarnings("ignore:Glyph")
def test_legend_is_beside_the_curves(names, tmp_path, figures):
    """All of it is in the picture, nothing of it on the axes, and it tells all runs apart."""
    text = HEADER + "1,1,270.5,180.25,9000,100\n2,1,170.5,150.25,9000,100\n"
    plot.draw([write(tmp_path / name, text) for name in names], tmp_path / "x.png")
    figure, = figures
    figure.canvas.draw()
    legend, = figure.legends
    box = legend.get_window_extent()
    assert not box.overlaps(figure.axes[0].get_tightbbox())
    assert 0 <= box.x0 and 0 <= box.y0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    assert figure.axes[0].bbox.height > 300
    shown = [text.get_text().replace("\n", "") for text in legend.get_texts()]
    assert [text.split("/")[-1] for text in shown] == names
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle())
             for line in figure.axes[0].get_lines() if line.get_marker() != "*"}
    assert len(looks) == 2 * len(names)


def test_more_runs_than_can_be_told_apart(two, tmp_path):
    with pytest.raises(UserError, match="there are 101 runs; 100 fit"):
        plot.draw(two[:1] * 101, tmp_path / "x.png")


def test_names_that_matplotlib_would_take_amiss(tmp_path, figures):
    text = HEADER + "1,1,270.5,180.25,9000,100\n"
    for name in "_hidden", "$x^$":
        plot.draw([write(tmp_path / name, text)], tmp_path / "curves.png")
        figures[-1].canvas.draw()
        assert figures[-1].legends[0].get_texts()[0].get_text().endswith(name)


@pytest.mark.parametrize("name, advice", [
    ("运行", "运 行; install the package fonts-noto-cjk (its name in Debian and Ubuntu)"),
    ("\ue000", "\ue000"),
    ("".join(map(chr, range(0x4E00, 0x4E0B))), " ".join(map(chr, range(0x4E00, 0x4E0A))) + " …; "),
])
def test_signs_without_a_font_are_named(name, advice, tmp_path, monkeypatch, capsys, recwarn):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(plot, "chinese_fonts", lambda font_manager: [])
    folder = write(tmp_path / name, HEADER + "1,1,270.5,180.25,9000,100\n")
    for action in "default", "default", "ignore", "error":
        with warnings.catch_warnings():
            warnings.simplefilter(action)
            plot.draw([folder], tmp_path / "curves.png")
        line, = capsys.readouterr().err.splitlines()
        assert line.startswith(
            f"Drawn as boxes, as no font of the pictures has them: {advice}"
        )
    assert not recwarn.list


def test_other_warnings_are_passed_on(tmp_path, recwarn):
    pytest.importorskip("matplotlib")
    with plot.picture(str(tmp_path / "x.png"), dpi=50):
        warnings.warn("something else", stacklevel=1)
    assert [str(warning.message) for warning in recwarn] == ["something else"]


def test_font_that_was_installed_later_is_found(monkeypatch):
    """matplotlib itself knows those only that it found when it looked for the first time."""
    font_manager = pytest.importorskip("matplotlib.font_manager")
    fonts = font_manager.fontManager.ttflist
    path = next(font.fname for font in fonts if font.name == "STIXGeneral")
    monkeypatch.setattr(
        font_manager.fontManager, "ttflist", [font for font in fonts if font.fname != path]
    )
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [__file__, path])
    monkeypatch.setattr(plot, "CHINESE_FONTS", ("none", "STIXGeneral"))
    assert plot.chinese_fonts(font_manager) == ["STIXGeneral"]


def test_without_matplotlib_it_says_so(two, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match="^matplotlib is not installed: pip install matplotlib$"):
        plot.draw(two, tmp_path / "curves.png")


def test_matplotlib_that_cannot_be_loaded(two, tmp_path, monkeypatch):
    """The reason is given, such as a part that is missing."""
    matplotlib = pytest.importorskip("matplotlib")
    with monkeypatch.context() as patch:
        patch.setattr(matplotlib, "__version_info__", (3, 6, 3))
        with pytest.raises(UserError, match="matplotlib .* is too old: pip install --upgrade"):
            plot.draw(two, tmp_path / "curves.png")
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "matplotlib")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UserError, match="cannot be loaded .ModuleNotFoundError: import of PIL"):
        plot.draw(two, tmp_path / "curves.png")


def test_settings_of_the_process_stay_and_do_not_matter(two, tmp_path, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    log = logging.getLogger("matplotlib.font_manager")

    def state():
        return ({**matplotlib.rcParams}, [*warnings.filters], log.level, pyplot.get_fignums(),
                matplotlib.get_backend(), {**os.environ})

    plot.draw(two, tmp_path / "expected.png")
    monkeypatch.setattr(log, "level", logging.INFO)
    settings = {"text.usetex": True, "font.family": ["serif"], "savefig.bbox": "tight",
                "figure.constrained_layout.use": True, "axes.grid": True, "backend": "svg"}
    with matplotlib.rc_context(settings):
        before = state()
        plot.draw(two, tmp_path / "found.png")
        assert state() == before
    assert (tmp_path / "found.png").read_bytes() == (tmp_path / "expected.png").read_bytes()


@pytest.mark.parametrize("backend", ["nobody_has_this", "module://nobody.has_this", "svg"])
def test_backend_of_a_notebook_does_not_matter(backend, two, tmp_path):
    """Its name is inherited by the notebook's processes; what matplotlib makes of it stays."""
    pytest.importorskip("matplotlib")
    code = (
        "import os, sys\n"
        "from ptb import plot\n"
        "plot.draw([sys.argv[1]], sys.argv[2])\n"
        "import matplotlib\n"
        "print(os.environ['MPLBACKEND'], matplotlib.get_backend(), sep='\\n')\n"
    )
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    process = subprocess.run(
        [sys.executable, "-c", code, two[0], tmp_path / "x.png"], cwd=ROOT, text=True,
        capture_output=True,
        env={**os.environ, "MPLBACKEND": backend, "MATPLOTLIBRC": str(tmp_path / "matplotlibrc")},
    )
    assert process.returncode == 0, process.stderr
    variable, found = process.stdout.splitlines()
    assert variable == backend and (found == "svg" or backend != "svg")
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("name, beginning", [
    ("x.png", b"\x89PNG"), ("x.PDF", b"%PDF"), ("x.svg", b"<?xml"),
])
def test_format_is_that_of_the_ending(name, beginning, two, tmp_path):
    pytest.importorskip("matplotlib")
    plot.draw(two, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(beginning)


@pytest.mark.parametrize("name", ["x", "x.jpg", "x.svgz", "png", ".png", "x.png.gz"])
def test_other_formats_are_refused_first(name, tmp_path):
    with pytest.raises(UserError, match=f"{name}: a picture's name ends in .png, .pdf or .svg"):
        plot.draw([tmp_path / "nothing"], tmp_path / name)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_picture_on_stdout(name, two, capsysbinary):
    pytest.importorskip("matplotlib")
    plot.main([*two, "--output", name])
    out, err = capsysbinary.readouterr()
    assert out.startswith(b"\x89PNG\r\n\x1a\n") and out.endswith(b"IEND\xaeB`\x82")
    assert err.decode() == f"Learning curves in {name}\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has other pipes")
@pytest.mark.parametrize("name, beginning, end", [
    ("pipe", b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"), ("pipe.pdf", b"%PDF", b"%%EOF\n"),
])
def test_picture_into_a_pipe(name, beginning, end, two, tmp_path):
    """As `>(…)` of a shell is one: without an ending, and written from its start to its end."""
    pytest.importorskip("matplotlib")
    pipe = tmp_path / name
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    plot.draw(two, pipe)
    reader.join()
    assert read[0].startswith(beginning) and read[0].endswith(end)


def test_pictures_have_a_place_that_git_ignores(two, tmp_path, monkeypatch, capsys):
    """The repository's own files are not overwritten, and none appears among them."""
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    plot.main(two)
    output = os.path.join("Out", "learning_curves.png")
    assert capsys.readouterr().out == f"Learning curves in {output}\n"
    assert [path.name for path in (tmp_path / "Out").iterdir()] == ["learning_curves.png"]
    assert "Out/" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("text, message", [
    (HEADER, "no epoch is done yet"),
    ("", "is not what lstm.py wrote"),
    ("a,b\n1,2\n", "is not what lstm.py wrote"),
    (HEADER + "1,2\n", "is not what lstm.py wrote"),
    (HEADER + "1,1,low,180.25,9000,100\n", "is not what lstm.py wrote"),
    (HEADER + "nan,1,270.5,180.25,9000,100\n", "is not what lstm.py wrote"),
    (HEADER + "1,1,nan,180.25,9000,100\n", "is not what lstm.py wrote"),
    (HEADER + "1,1,270.5,-4,9000,100\n", "is not what lstm.py wrote"),
])
def test_history_that_cannot_be_drawn(text, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = write(tmp_path / "run", text)
    with pytest.raises(SystemExit) as status:
        plot.main([folder])
    assert status.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"plot.py: {folder}/history.csv") and message in captured.err


def test_perplexity_by_the_number_of_models(mixture, corpus, tmp_path, capsys):
    """A run's test perplexity is what lstm.py printed; an average's is what score says of it."""
    pytest.importorskip("matplotlib")
    output = tmp_path / "averages.png"
    runs = [str(path) for path in mixture]
    plot.main(["averages", *runs, "--data_path", str(corpus), "--output", str(output)])
    header, *rows, last = capsys.readouterr().out.splitlines()
    assert header.split("\t") == ["models", "valid", "test", "valid_alone", "test_alone", "run"]
    assert last == f"Perplexities of averages in {output}"
    assert output.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    rows = [row.split("\t") for row in rows]
    assert [(row[0], row[-1]) for row in rows] == [*zip("123", runs)]
    for row, run in zip(rows[:2], runs):
        assert row[4] == f"{checkpoint.newest(run)[0].position.test:.3f}"
    assert rows[0][1:3] == rows[0][3:5]
    for number, row in enumerate(rows, start=1):
        for names, shown in (runs[:number], row[1:3]), (runs[number - 1 : number], row[3:5]):
            is_run = runs[2] not in names
            with LanguageModel.load(names, None if is_run else corpus) as model:
                for part, value in zip(("valid", "test"), shown):
                    scores = model.score((corpus / f"ptb.{part}.txt").read_text(), stream=True)
                    log_prob, words, _ = np.sum(scores, axis=0)
                    assert float(value) == pytest.approx(np.exp(-log_prob / words), abs=1e-3)


def test_what_the_picture_of_averages_shows(figures):
    pairs = {"valid": [(120.5, 120.5), (111.25, 121.0)], "test": [(115.0, 115.0), (99.0, np.inf)]}
    plot.draw_averages(pairs, "x.png", [("one medium", 87.0, 84.0), ("one large", 82.0, 78.0)])
    figure, = figures
    figure.canvas.draw()
    axes, = figure.axes
    drawn = [[*map(float, line.get_ydata())] for line in axes.get_lines()]
    assert drawn[:4] == [[120.5, 111.25], [120.5, 121.0], [115.0, 99.0], [115.0, np.inf]]
    assert drawn[4:] == [[value, value] for value in (87, 84, 82, 78)]
    assert all([*line.get_xdata()] == [1, 2] for line in axes.get_lines())
    colours = [line.get_color() for line in axes.get_lines()]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert colours[4:] == [colours[0], colours[2]] * 2
    styles = [line.get_linestyle() for line in axes.get_lines()]
    assert styles[4] == styles[5] != styles[6] == styles[7]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("number of models", "perplexity")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "valid: 111.25 by the average of 2 models; each model alone (×): 120.50 to 121.00",
        "test: 99.00 by the average of 2 models; each model alone (×): 115.00 to inf",
        "one medium: valid 87.00, test 84.00", "one large: valid 82.00, test 78.00",
    ]


def test_what_is_beside_a_single_model_has_a_width(figures):
    plot.draw_averages({"valid": [(120.5, 120.5)]}, "x.png", [("one medium", 87.0)])
    line = figures[0].axes[0].get_lines()[-1]
    assert [*line.get_ydata()] == [87, 87] and line.get_xdata()[0] < 1 < line.get_xdata()[1]


@pytest.mark.parametrize("args, message", [
    ([], "required: run"),
    (["{run}", "--data_path", "{none}"], "none/ptb.valid.txt: No such file or directory"),
    (["{run}", "--data_path", "{short}"], "short/test.txt: 1 word, too few to predict one"),
    (["{run}", "{none}", "--data_path", "{corpus}"], "none: no trained model there"),
    (["{run}", "{tutorials}", "--data_path", "{other}"], "only models with the same vocabulary"),
    (["{run}", "--data_path", "gs://corpus"], "gs://corpus is an address"),
    (["{run}", "--data_path", ""], "a path is empty; name a file or folder"),
    (["{run}", "--beside", "medium", "87", "low"], "--beside: 87 low: no two perplexities"),
    (["{run}", "--beside", "medium", "0.5", "84"], "--beside: 0.5 84: no two perplexities"),
    (["{run}", "{tutorials}", "--data_path", "{corpus}", "--best"], "which --best needs"),
    (["{run}", "--data_path", "{corpus}", "--output", "x.jpg"], "x.jpg: a picture's name ends in"),
])
def test_mistakes_in_a_picture_of_averages(args, message, mixture, corpus, tmp_path, capsys):
    """Whatever is wrong with one of the models, none is evaluated before that is said."""
    pytest.importorskip("matplotlib")
    names = {name: tmp_path / name for name in ("none", "short", "other")}
    for name, last in ("short", "w1"), ("other", "w1 w2"):
        (tmp_path / name).mkdir()
        for part, text in ("train", " w1 w2 w1 \n"), ("valid", "w1 w2\n"), ("test", last):
            (tmp_path / name / f"{part}.txt").write_text(text)
    names |= {"run": mixture[0], "tutorials": mixture[2], "corpus": corpus}
    with pytest.raises(SystemExit) as status:
        plot.main(["averages", *(arg.format(**names) for arg in args)])
    captured = capsys.readouterr()
    *notes, line = captured.err.splitlines()
    assert all(" has rows for " in note for note in notes) and len(notes) < 2
    assert status.value.code == 2 and captured.out == ""
    assert line.startswith("plot.py: ") and message in line


def test_failed_picture_leaves_nothing(two, tmp_path, monkeypatch):
    """The old picture stays."""
    pytest.importorskip("matplotlib")
    output = tmp_path / "curves.png"
    output.write_bytes(b"old")

    monkeypatch.setattr(files, "os", System(fsync=failing(errno.ENOSPC)))
    with pytest.raises(UserError, match="cannot write .*curves.png: No space left on device"):
        plot.draw(two, output)
    assert output.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "curves.png"]


def test_importing_loads_no_tensorflow():
    code = "import sys, ptb.plot; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_mistakes_are_named(two, tmp_path):
    with pytest.raises(UserError, match="nowhere/history.csv: No such file"):
        plot.draw([str(tmp_path / "nowhere")], tmp_path / "curves.png")
    (tmp_path / "small-sample" / "checkpoint-000001").mkdir(parents=True)
    with pytest.raises(UserError, match="lstm.py saved in; there is .*/small-sample$"):
        plot.draw([str(tmp_path / "small")], tmp_path / "curves.png")
    with pytest.raises(UserError, match="cannot write .*nowhere/curves.png: No such file"):
        plot.draw(two, tmp_path / "nowhere" / "curves.png")
    (tmp_path / "bare" / "checkpoint-000001").mkdir(parents=True)  # a run without a history
    with pytest.raises(UserError, match="lstm.py saved in; there is .*/small-sample$"):
        plot.draw([str(tmp_path / "bare")], tmp_path / "curves.png")


def test_mistyped_command_is_named(capsys):
    with pytest.raises(SystemExit) as status:
        plot.main(["gate", "Out/small", "--prompt", "a b"])
    assert status.value.code == 2
    assert capsys.readouterr().err == "plot.py: gate: no such command; did you mean gates?\n"


def test_control_characters_are_not_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    plot.draw_text(["a\0b", "\x1b[1m"], [0, 1], "title", str(tmp_path / "x.svg"))
    xml.etree.ElementTree.parse(tmp_path / "x.svg")
