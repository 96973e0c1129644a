"""The inside of a trained model: gates against the NumPy reference, units, and their pictures."""

import itertools
import pathlib
import shutil
import struct
import sys

import models
import numpy as np
import numpy_lstm
import pytest
from conftest import train

from ptb import language_model, plot, reader, units
from ptb.language_model import LanguageModel
from ptb.reader import EOS, UNK
from ptb.terminal.errors import UserError

PROMPT = "w1 w0 nonsense w2 w7 w1 <eos> w5 w29"


@pytest.fixture(scope="module")
def params(trained):
    return read_params(trained)


def read_params(run_folder):
    return models.as_params(models.saved(models.last_model(run_folder)), num_layers=2)


def ids_of(model, text):
    return [model.vocabulary.index(w if w in model.vocabulary else UNK) for w in text.split()]


def reference(params, ids):
    """Returns {name in rnn.Gates: array [num_layers, num_words, size]}."""
    states = numpy_lstm.zero_state(params, 1)
    steps = []
    for i in ids:
        inputs, layers = params["embedding"][[i]], []
        for k, (kernel, bias) in enumerate(zip(params["kernels"], params["biases"])):
            c, h = states[k]
            i, j, f, o, c, h = numpy_lstm.cell(np.hstack([inputs, h]), c, kernel, bias)
            states[k], inputs = (c, h), h
            layers.append(dict(forget_gate=f, input_gate=i, candidate=j, cell_state=c,
                               output_gate=o, output=h))
        steps.append(layers)
    return {
        name: np.array([[step[k][name][0] for step in steps] for k in range(len(layers))])
        for name in layers[0]
    }


def test_gates_are_the_references(model, params):
    found = model.gates(PROMPT)
    expected = reference(params, ids_of(model, f"{EOS} {PROMPT}"))
    assert [*found._fields] == [*plot.PANELS] and {*found._fields} == {*expected}
    for name, array in found._asdict().items():
        assert array.dtype == np.float32 and array.shape == (2, 10, 6)
        np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(model.gates(f"<eos> {PROMPT}").cell_state, found.cell_state)


def test_gates_of_the_fast_layer_are_the_same(model, params):
    """By the probabilities of the words that follow, which it computes from its output."""
    logits = model.gates(PROMPT).output[-1] @ params["softmax_w"] + params["softmax_b"]
    log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    for row, (word, bits, likeliest, probability) in zip(log_probs, model.surprises(PROMPT)):
        assert bits == pytest.approx(-row[model.vocabulary.index(word)] / np.log(2), rel=1e-4)
        assert model.vocabulary[row.argmax()] == likeliest
        assert np.exp(row.max()) == pytest.approx(probability, rel=1e-4)


def test_gates_of_16_bits(corpus, tmp_path):
    train(models.TinyConfig, corpus, tmp_path, "--use_fp16")
    model = LanguageModel.load(str(tmp_path / "some"))
    found = model.gates("w1 w2")
    expected = reference(read_params(tmp_path / "some"), ids_of(model, "<eos> w1 w2"))
    for name, array in found._asdict().items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, expected[name], atol=0.02)


def test_surprises_are_those_of_the_next_words(model):
    found = model.surprises(PROMPT)
    words = [w if w in model.vocabulary else UNK for w in PROMPT.split()]
    assert [word for word, *_ in found] == words
    prompts = itertools.accumulate([EOS, *words], lambda text, word: f"{text} {word}")
    for prompt, (word, bits, likeliest, probability) in zip(prompts, found):
        expected = model.next_words(prompt, top_k=1000)
        assert (likeliest, probability) == pytest.approx(expected[0])
        assert bits == pytest.approx(-np.log2(dict(expected)[word]))
    assert model.surprises("<eos>") == []


def test_cell_states_side_by_side_are_those_one_by_one(model):
    rows = [f"<eos> {text}".split() for text in ("w1 w2 w3", "w4 strange w5")]
    for i, states in enumerate(model.cell_states(rows)):
        assert states.shape == (2, 2, 6) and states.dtype == np.float32
        for row, state in zip(rows, states):
            expected = model.gates(" ".join(row)).cell_state[:, i]
            np.testing.assert_allclose(state, expected, rtol=1e-5, atol=1e-6)


# Units.

def test_what_a_line_has_at_each_word():
    words = "<eos> ab <unk> c <eos> d".split()
    position, length, unk = units.explained(words).T
    np.testing.assert_allclose(position, np.log([1, 2, 3, 4, 1, 2]))
    assert length.tolist() == [0, 2, 8, 10, 0, 1]
    assert unk.tolist() == [0, 0, 1, 0, 0, 0]


def test_unk_that_is_spelled():
    """As in a text of characters."""
    assert units.explained([*"a_<unk>_<b>"])[:, 2].tolist() == [0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("num_lines, num_parts", [(1, 1), (39, 1), (40, 2), (2500, 100)])
@pytest.mark.parametrize("end", [[EOS], []])
def test_parts_of_a_text(num_lines, num_parts, end):
    """They hold every line once and whole; each begins as a prompt does."""
    words = [word for i in range(num_lines) for word in (f"w{i}", f"v{i}", EOS)][:-1] + end
    parts = units.parts_of(words)
    assert len(parts) == num_parts
    assert all(part[0] == EOS and part[1][0] == "w" for part in parts)
    assert [word for part in parts for word in part[1:]] == words


class Known:
    """A model with a unit for each explanation, one that never changes, and one that is noise."""

    vocabulary = ["a", "bcd", UNK, EOS]

    def cell_states(self, rows):
        rng = np.random.default_rng(1)
        numbers = np.array([units.explained(row) for row in rows])
        for i in range(numbers.shape[1]):
            noise = rng.normal(size=(4, len(rows)))
            position, length, unk = numbers[:, i].T
            states = [-3 * position + 0.01 * noise[0], length + noise[1], noise[2],
                      0 * unk + 1 / 3, unk + noise[3], 0 * unk]
            yield np.float32(states).T.reshape(len(rows), 2, 3)


@pytest.fixture
def text():
    """Lines of different lengths, with words that a model of Known does not know."""
    rng = np.random.default_rng(2)
    return [word for _ in range(300)
            for word in (*rng.choice(["a", "bcd", "strange"], rng.integers(0, 30)), EOS)]


def test_units_that_follow_something_are_found(text):
    found = units.best_explained(Known(), text)
    assert [unit[:3] for unit in found[:3]] == [
        (1, 1, "position"), (1, 2, "length"), (2, 2, "unk")
    ]
    assert found[0].correlation == pytest.approx(-1, abs=1e-3)
    assert found[1].correlation == pytest.approx(1, abs=0.05)
    assert [(unit.layer, unit.number) for unit in found[3:]] == [(1, 3)]  # The rest is constant.
    assert [unit[:3] for unit in units.best_explained(Known(), text, "unk", count=1)] == [
        (2, 2, "unk")
    ]


def test_correlations_are_pearsons(model, text):
    words = units.as_read(model, [word.replace("a", "w1") for word in text[:700]])
    parts = units.parts_of(words)
    states = [np.array([*model.cell_states([part])])[:, 0].reshape(len(part), -1) for part in parts]
    numbers = np.vstack([units.explained(part) for part in parts])
    expected = np.corrcoef(numbers.T, np.vstack(states).T)[:3, 3:].reshape(3, 2, 6)
    for by, of_units in zip(units.EXPLANATIONS, expected):
        for layer, number, _, correlation in units.best_explained(model, words, by, count=100):
            assert correlation == pytest.approx(of_units[layer - 1, number - 1], rel=1e-4, abs=1e-5)
    best = units.best_explained(model, words)
    assert len(best) == 10 and len({unit[:2] for unit in best}) == 10
    strongest = np.sort(np.abs(expected).max(axis=0).ravel())[::-1][:10]
    np.testing.assert_allclose([abs(unit.correlation) for unit in best], strongest, rtol=1e-4)


def test_text_that_explains_nothing():
    with pytest.raises(UserError, match="the text has 99 words; to find units takes 100 or more"):
        units.best_explained(Known(), ["a"] * 99)
    with pytest.raises(UserError, match="along the text no cell state changes, or no position$"):
        units.best_explained(Known(), [EOS] * 100, "position")
    with pytest.raises(UserError, match="no cell state changes, or no position and no length and"):
        units.best_explained(Known(), [EOS] * 100)


# Pictures.

def size_of(path):
    """Returns (width, height) of a PNG."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def images(figure):
    """Returns the axes with heat maps of a figure."""
    return [axes for axes in figure.axes if axes.images]


def test_picture_of_gates(trained, tmp_path, monkeypatch, capsys):
    """Where no other place is named, it is one that git ignores."""
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    output = pathlib.Path("Out", "gates.png")
    plot.main(["gates", str(trained), "--prompt", "w1 $ w2 $"])
    captured = capsys.readouterr()
    assert captured.out == f"Gates in {output}\n"
    assert captured.err.splitlines()[1:] == ["Not in the vocabulary, read as <unk>: $"]
    width, height = size_of(output)
    assert width > 500 and height > 500


def test_what_the_picture_of_gates_shows(model, figures):
    plot.draw_gates(model, PROMPT, "gates.png")
    figure, = figures
    gates = model.gates(PROMPT)
    panels = images(figure)
    assert len(panels) == 2 * len(plot.PANELS)
    for panel, (layer, name) in zip(panels, itertools.product(range(2), plot.PANELS)):
        image, = panel.images
        np.testing.assert_array_equal(image.get_array(), getattr(gates, name)[layer].T)
        low, high = image.get_clim()
        assert (low, high) == (0, 1) if name.endswith("gate") else low == -high
        expected = f"layer {layer + 1}: {name.replace('_', ' ')}"
        assert panel.get_title().startswith(expected)
        assert labels(panel.yaxis) == [str(number) for number in range(1, 7)]
        assert image.get_cmap().name == "cividis"
    assert panels[3].images[0].get_clim() == panels[9].images[0].get_clim()
    expected = model.surprises(PROMPT)
    bars = figure.axes[0].patches
    assert [bar.get_height() for bar in bars] == [bits for _, bits, *_ in expected]
    assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == pytest.approx([*range(1, 10)])
    words = [EOS, *(word for word, *_ in expected)]
    assert labels(figure.axes[0].xaxis) == labels(panels[-1].xaxis) == words
    above = labels(figure.axes[0].child_axes[0].xaxis)
    assert above == [f"{probability:.2f} {word}" for *_, word, probability in expected]


def test_units_and_layer_that_are_chosen(model, figures):
    plot.draw_gates(model, "w1", "gates.png", layer=2, units=[5, 2, 5])
    panels = images(figures[0])
    assert len(panels) == len(plot.PANELS)
    expected = model.gates("w1").cell_state[1][:, [1, 4]].T
    np.testing.assert_array_equal(panels[3].images[0].get_array(), expected)
    assert labels(panels[0].yaxis) == ["2", "5"]


def test_units_that_vary_most_are_drawn(model, figures, monkeypatch):
    monkeypatch.setattr(plot, "MOST_UNITS", 3)
    plot.draw_gates(model, PROMPT, "gates.png", layer=1)
    states = np.vstack([np.zeros(6), model.gates(PROMPT).cell_state[0]])
    expected = np.sort(np.argsort(states.std(axis=0))[-3:]) + 1
    assert labels(images(figures[0])[0].yaxis) == [*map(str, expected)]


@pytest.mark.parametrize("prompt", ["<eos>", " ".join(["w1"] * plot.MOST_WORDS)])
def test_shortest_and_longest_picture(prompt, model, figures):
    plot.draw_gates(model, prompt, "gates.png", layer=1)
    num_words = len(model.gates(prompt).cell_state[0])
    assert images(figures[0])[0].images[0].get_array().shape[1] == num_words
    figures[0].canvas.draw()


@pytest.mark.parametrize("fonts", [[], ["SimHei"]])
def test_chinese_names_where_there_is_a_font(fonts, model, figures, monkeypatch):
    font_manager = pytest.importorskip("matplotlib.font_manager")
    monkeypatch.setattr(font_manager, "get_font_names", lambda: fonts)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
    plot.draw_gates(model, "w1", "gates.png", layer=1)
    titles = [panel.get_title() for panel in images(figures[0])]
    assert titles[0] == f"layer 1: forget gate{' 遗忘门' if fonts else ''}"


def test_small_probabilities_are_not_zero(model, figures, monkeypatch):
    """As they are where there are very many words."""
    found = [("a", 1.0, "b", 0.25), ("c", 20.0, "d", 2.13e-6)]
    monkeypatch.setattr(model, "surprises", lambda prompt: found)
    plot.draw_gates(model, "w1 w2", "gates.png")
    assert labels(figures[0].axes[0].child_axes[0].xaxis) == ["0.25 b", "2e-06 d"]


def test_units_on_the_command_line(trained, corpus, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    output = pathlib.Path("Out", "units.png")
    text = corpus / "ptb.valid.txt"
    args = ["units", str(trained), "--text", str(text)]
    plot.main(args)
    header, *rows, last = capsys.readouterr().out.splitlines()
    assert header.split("\t") == ["layer", "unit", "explained_by", "correlation"]
    model = LanguageModel.load(str(trained))
    expected = units.best_explained(model, reader.split_words(text.read_text()))
    assert [row.split("\t") for row in rows] == [
        [str(unit.layer), str(unit.number), unit.explained_by, f"{unit.correlation:.3f}"]
        for unit in expected
    ]
    best = expected[0]
    assert last == f"Text coloured by layer {best.layer}, unit {best.number} in {output}"
    size_of(output)
    plot.main([*args, "--by", "length"])
    rows = capsys.readouterr().out.splitlines()[1:-1]
    assert {row.split("\t")[2] for row in rows} == {"length"}


def test_text_is_coloured_by_its_values(figures):
    words = ["a", "long" * 10, "我们", "<unk>", EOS, "b", EOS]
    values = [-2.0, 2.0, 0.0, 1.0, -1.0, 0.5, -0.5]
    plot.draw_text(words, values, "title", "units.png")
    axes, bar = figures[0].axes
    assert [text.get_text() for text in axes.texts] == [
        "a", "longlonglonglonglon…", *words[2:]
    ]
    colours = sys.modules["matplotlib"].colormaps["cividis"]
    np.testing.assert_allclose(
        [patch.get_facecolor() for patch in axes.patches],
        [colours((value + 2) / 4) for value in values],
    )
    assert [text.get_color() for text in axes.texts[:2]] == ["white", "black"]
    assert [patch.get_xy() for patch in axes.patches[4:]] == [(34, 0), (0, 1), (2, 1)]


def test_text_that_is_longer_than_a_picture(figures):
    words = ["word"] * 10000
    plot.draw_text(words, [0.5] * len(words), "title", "units.png")
    boxes = figures[0].axes[0].patches
    assert max(box.get_y() for box in boxes) == plot.PASSAGE_ROWS - 1
    assert max(box.get_x() + box.get_width() for box in boxes) <= plot.PASSAGE_WIDTH
    assert len(figures[0].axes[0].texts) == len(boxes) < len(words)


@pytest.mark.parametrize("args, message", [
    (["gates", "{run}"], "required: --prompt"),
    (["gates", "--prompt", "w1"], "required: model"),
    (["gates", "{run}", "--prompt", " "], "the prompt has no words"),
    (["gates", "{run}", "--prompt", "w1 " * 61], "the prompt has 61 words; 60 fit"),
    (["gates", "{run}", "--prompt", "w1", "--units", "3,x"], "3,x is no list of numbers"),
    (["gates", "{run}", "--prompt", "w1", "--units", ""], "is no list of numbers such as 3,17"),
    (["gates", "{run}", "--prompt", "w1", "--units", "3,7"], "--units 7 is not there; the model"),
    (["gates", "{run}", "--prompt", "w1", "--units", "0"], "--units 0 is not there; the model has"),
    (["gates", "{run}", "--prompt", "w1", "--units", ",".join(map(str, range(1, 42)))],
     "--units names 41 units; 40 fit"),
    (["gates", "{run}", "--prompt", "w1", "--layer", "3"], "3 is not there; the model has 1 to 2"),
    (["gates", "{run}", "--prompt", "w1", "--layer", "0"], "--layer 0 is not there"),
    (["gates", "{run}", "--prompt", "w1", "--layer", "x"], "invalid int value"),
    (["gates", "{run}", "--prompt", "w1", "--average_with", "{run}"], "asked of one model"),
    (["units", "{run}", "--text", "{empty}", "--average_with", "{run}"], "asked of one model"),
    (["gates", "{none}", "--prompt", "w1"], "none: no trained model there"),
    (["gates", "{damaged}", "--prompt", "w1"], "is damaged"),
    (["gates", "{run}", "--prompt", "w1", "--output", "{none}/a.png"], "none/a.png: No such file"),
    (["gates", "{run}", "--prompt", "w1", "--output", "{none}.jpg"], "none.jpg: a picture's name"),
    (["units", "{run}"], "required: --text"),
    (["units", "{run}", "--text", "{none}"], "none: No such file or directory"),
    (["units", "{run}", "--text", "{empty}"], "the text has 0 words; to find units takes 100"),
    (["units", "{run}", "--text", "{bytes}"], "bytes: line 1 is not UTF-8"),
    (["units", "{run}", "--text", "{empty}", "--by", "x"], "invalid choice: 'x'"),
    (["{run}", "--prompt", "w1"], "unrecognized arguments: --prompt"),
    ([], "required: run"),
])
def test_mistakes_get_one_line(args, message, trained, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    (tmp_path / "empty").write_text("")
    (tmp_path / "bytes").write_bytes(b"\xff\n")
    shutil.copytree(trained / "checkpoint-000003", tmp_path / "damaged")
    (tmp_path / "damaged" / "run.json").write_text("{}")
    names = {name: tmp_path / name for name in ("none", "empty", "bytes", "damaged")}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as status:
        plot.main([arg.format(run=trained, **names) for arg in args])
    captured = capsys.readouterr()
    assert status.value.code == 2 and captured.out == ""
    line = captured.err.splitlines()[-1]
    assert line.startswith("plot.py: ") and message in line


# What each command takes at the least, besides a model.
ARGUMENTS = [("gates", ["--prompt", "a"]), ("units", ["--text", "a"]), ("averages", [])]


@pytest.mark.parametrize("command, args", ARGUMENTS)
def test_without_matplotlib_nobody_waits(command, args, capsys, tmp_path, monkeypatch):
    """The model, which is not there, is not asked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(language_model, "read_models", None)
    with pytest.raises(SystemExit):
        plot.main([command, "nowhere", *args])
    assert capsys.readouterr().err == (
        "plot.py: matplotlib is not installed: pip install matplotlib\n"
    )


@pytest.mark.parametrize("output", ["nowhere/x.png", "folder.png", "x.jpg"])
@pytest.mark.parametrize("command, args", ARGUMENTS)
def test_for_an_output_that_cannot_be_nobody_waits(output, command, args, tmp_path, monkeypatch):
    monkeypatch.setattr(language_model, "read_models", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(SystemExit) as status:
        plot.main([command, "nowhere", *args, "--output", output])
    assert status.value.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_stdout_has_the_picture_alone(trained, corpus, capsysbinary):
    """The table, too, is on stderr then."""
    pytest.importorskip("matplotlib")
    plot.main(["units", str(trained), "--text", str(corpus / "ptb.valid.txt"), "--output", "-"])
    out, err = capsysbinary.readouterr()
    assert out.startswith(b"\x89PNG\r\n\x1a\n") and out.endswith(b"IEND\xaeB`\x82")
    assert b"\nlayer\tunit\texplained_by\tcorrelation\n" in err and b" in -\n" in err


def test_run_that_is_called_like_a_command(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    text = "epoch,train_perplexity,valid_perplexity\n1,2,3\n"
    monkeypatch.chdir(tmp_path)
    for name in "gates", "curves":
        (tmp_path / name).mkdir()
        (tmp_path / name / "history.csv").write_text(text)
    pictures = []
    output = str(pathlib.Path("Out", "learning_curves.png"))
    for args in ["./gates"], ["curves", "gates"], ["--output", output, "./gates"]:
        plot.main(args)
        pictures.append((tmp_path / output).read_bytes())
    assert pictures[0] == pictures[1] == pictures[2]
    assert capsys.readouterr().out == f"Learning curves in {output}\n" * 3
