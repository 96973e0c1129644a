"""Draws learning curves and the inside of a trained model as a PNG, where matplotlib is installed.

    python -m ptb.plot Out/small
    python -m ptb.plot curves Out/small Out/medium --output curves.png
    python -m ptb.plot gates Out/small --prompt "the company said it would sell its unit"
    python -m ptb.plot units Out/small --text simple-examples/data/ptb.valid.txt

curves draws the perplexities in the history.csv of runs, with a star at each run's best epoch, and
is meant where no command is named; a run's folder that is called like a command is written as a
path, such as ./gates. gates draws what every unit of a model computes at each word of a sentence,
and units looks for units that follow where in its line a word stands. A model is what
python -m ptb.language_model takes for one.
"""

import argparse
import csv
import itertools
import logging
import math
import os
import sys
import textwrap
import types
import warnings

import numpy as np

from ptb import command_line, files
from ptb.errors import UserError
from ptb.history import CSV
from ptb.progress import columns
from ptb.units import EXPLANATIONS

COLUMNS = "epoch", "train_perplexity", "valid_perplexity"
CHINESE_FONTS = (
    "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Microsoft YaHei", "SimHei", "PingFang SC",
    "Noto Sans CJK JP",  # Older versions of matplotlib know all of Noto's by this name.
)
# Its brightness only ever grows, so that it can be read in grey and by who does not see red or
# green. Its middle is grey, the colour of 0 where a scale goes from negative to positive.
COLOURS = "cividis"
MOST_WORDS = 60  # of a prompt, in a picture of gates
MOST_UNITS = 40  # of a layer in such a picture
LONGEST_WORD = 20  # signs of a word that are shown, where words stand below each other
PANELS = {  # {field of rnn.Gates: its names in a picture}; the article names the gates so
    "forget_gate": ("forget gate", "遗忘门"),
    "input_gate": ("input gate", "输入门"),
    "candidate": ("candidate", "候选状态"),
    "cell_state": ("cell state", "神经元状态"),
    "output_gate": ("output gate", "输出门"),
    "output": ("output", "输出"),
}
PASSAGE_WIDTH = 90  # characters in a row of the coloured text
PASSAGE_ROWS = 24


def read_history(folder):
    """Returns {column: [number of each epoch]} of history.csv in a run's folder.

    Raises:
      UserError: there is none, it has no epoch yet, or it is not what lstm.py wrote.
    """
    path = os.path.join(folder, CSV)
    try:
        with open(path, encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        if not {*COLUMNS} <= {*header} or any(len(row) != len(header) for row in rows):
            raise ValueError
        rows = [list(map(float, row)) for row in rows]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name a folder that lstm.py saved in") from error
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is not what lstm.py wrote; start the run again") from error
    if not rows:
        raise UserError(f"{path}: no epoch is done yet; try again after the first")
    return dict(zip(header, map(list, zip(*rows))))


def load_matplotlib():
    """Returns what the pictures need of matplotlib: {pyplot, ticker, chinese_fonts}.

    Raises:
      UserError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise UserError("matplotlib is not installed: pip install matplotlib") from error
    matplotlib.use("Agg")  # This backend draws into files and needs no window.
    from matplotlib import font_manager, pyplot, ticker

    fonts = [name for name in CHINESE_FONTS if name in font_manager.get_font_names()]
    # For every sign matplotlib takes the first of these fonts that has it.
    pyplot.rcParams["font.family"] = ["DejaVu Sans", *fonts]
    # Otherwise what stands between two dollar signs would be read as mathematics.
    pyplot.rcParams["text.parse_math"] = False
    warnings.filterwarnings("ignore", "Glyph .* missing from")
    # It would complain that a Chinese font has no bold signs.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    return types.SimpleNamespace(pyplot=pyplot, ticker=ticker, chinese_fonts=fonts)


def save(pyplot, figure, output, dpi):
    """Writes a figure as a PNG, and closes it.

    Raises:
      UserError: the file cannot be written.
    """
    try:
        with files.whole(output) as unfinished:
            figure.savefig(unfinished, format="png", dpi=dpi, pil_kwargs={"optimize": True})
    except OSError as error:
        raise UserError(f"--output: cannot write {output} ({error.strerror})") from error
    finally:
        pyplot.close(figure)


def draw(folders, output):
    """Writes a PNG with the train and valid perplexity of each run by epoch.

    Raises:
      UserError: a run has no history, matplotlib is missing, or `output` cannot be written.
    """
    output = files.local_path(str(output))
    folders = [files.local_path(str(folder)) for folder in folders]
    histories = [read_history(folder) for folder in folders]
    matplotlib = load_matplotlib()

    figure, axes = matplotlib.pyplot.subplots(figsize=(8, 5), layout="constrained")
    finite = []
    for number, (folder, history) in enumerate(zip(folders, histories)):
        name = os.path.normpath(folder)
        for what, style in ("train", "--"), ("valid", "-"):
            values = history[f"{what}_perplexity"]
            axes.plot(history["epoch"], values, style, color=f"C{number}", marker=".",
                      label=f"{what} {values[-1]:.2f}, {name}")
            finite += [value for value in values if math.isfinite(value)]
        # The earlier versions of history.csv have no column that tells the best epoch.
        best, epoch = min(zip(history["valid_perplexity"], history["epoch"]))
        axes.plot(epoch, best, "*", color=f"C{number}", markersize=12,
                  label=f"best: valid {best:.2f} in epoch {epoch:.0f}, {name}")
    axes.set(xlabel="epoch", ylabel="perplexity", yscale="log", title="Learning curves")
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    ticks = [base * 10**power for power in range(9) for base in (1, 1.5, 2, 3, 4, 5, 7)]
    low, high = min(finite, default=1), max(finite, default=10)
    axes.set_yticks([tick for tick in ticks if low / 1.3 <= tick <= high * 1.3], minor=False)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.grid(alpha=0.3)
    axes.legend()
    save(matplotlib.pyplot, figure, output, dpi=150)


def draw_gates(model, prompt, output, layer=None, units=None):
    """Writes a PNG with what the units of a model compute at each word of a prompt.

    On top stands how much each word surprised the model (-log2 p, in bits), with the probability of
    the likeliest word in its place and that word, in bold where the model was right. Below, for
    each layer, there is a heat map of each field of rnn.Gates: words along x, units along y.

    Args:
      model: a LanguageModel.
      prompt: the words, at most MOST_WORDS.
      output: the file to write.
      layer: the number of the only layer to draw, counted from 1; None draws all.
      units: the numbers of the units to draw of each layer, counted from 1, at most MOST_UNITS;
        None draws those whose cell state varies most, the zero before the first word included.

    Raises:
      UserError: there is no such layer or unit, the prompt has no words or more than fit,
        matplotlib is missing, or `output` cannot be written.
    """
    from ptb.reader import EOS, split_words

    output = files.local_path(str(output))
    matplotlib = load_matplotlib()
    if len(split_words(prompt)) > MOST_WORDS:
        raise UserError(f"the prompt has {len(split_words(prompt))} words; {MOST_WORDS} fit")
    if units is not None and len({*units}) > MOST_UNITS:
        raise UserError(f"--units names {len({*units})} units; {MOST_UNITS} fit")
    gates = model.gates(prompt)
    num_layers, num_words, size = gates.cell_state.shape
    layers = range(num_layers) if layer is None else _from_0("--layer", [layer], num_layers)
    chosen = {  # {layer: the units to draw of it}, counted from 0
        layer: _most_varied(gates.cell_state[layer]) if units is None
        else _from_0("--units", units, size)
        for layer in layers
    }
    # A few extreme cell states would leave all others the colour of 0, so they end the scale early.
    drawn = [np.abs(gates.cell_state[layer][:, chosen[layer]]).ravel() for layer in layers]
    largest = float(np.quantile(np.concatenate(drawn), 0.98)) or 1.0
    scales = {
        "forget_gate": (0, 1), "input_gate": (0, 1), "output_gate": (0, 1), "candidate": (-1, 1),
        "output": (-1, 1), "cell_state": (-largest, largest),
    }

    num_columns = 3 if num_words <= 20 else 2
    panel_rows = len(PANELS) // num_columns
    panel_heights = [0.5 + 0.11 * len(chosen[layer]) for layer in layers for _ in range(panel_rows)]
    figure, axes = matplotlib.pyplot.subplots(
        1 + len(panel_heights), num_columns, squeeze=False, layout="constrained",
        figsize=(num_columns * max(2.5, 1.2 + 0.22 * num_words), 4 + sum(panel_heights)),
        height_ratios=[1.5, *panel_heights],
    )
    letters = int(15 * figure.get_figwidth())  # as many fit beside each other
    figure.suptitle(textwrap.fill(model.description, letters), fontsize=8)
    expected = model.surprises(prompt)
    words = [EOS, *(word for word, *_ in expected)]
    for above in axes[0]:
        _draw_surprises(above, expected)
        _label_words(above, words)
    for row, layer in enumerate(layers):
        panels = axes[1 + row * panel_rows : 1 + (row + 1) * panel_rows]
        for panel, (name, titles) in zip(panels.flat, PANELS.items()):
            _draw_heat_map(panel, getattr(gates, name)[layer], chosen[layer], scales[name])
            title = " ".join(titles if matplotlib.chinese_fonts else titles[:1])
            panel.set_title(f"layer {layer + 1}: {title}", fontsize=9)
            _label_words(panel, words)
        for panel in panels[:-1].flat:
            panel.tick_params(labelbottom=False)
        for panel in panels[:, 0]:
            panel.set_ylabel("unit", fontsize=8)
    save(matplotlib.pyplot, figure, output, dpi=100)


def _from_0(flag, numbers, count):
    """Returns the numbers that a flag has, each once, counted from 0 instead of from 1.

    Raises:
      UserError: one is not among the `count` that there are.
    """
    for number in numbers:
        if not 1 <= number <= count:
            raise UserError(f"{flag} {number} is not there; the model has 1 to {count}")
    return sorted({number - 1 for number in numbers})


def _most_varied(cell_state):
    """Returns the MOST_UNITS units that vary most, in order, for cell_state [num_words, size]."""
    variation = np.vstack([np.zeros_like(cell_state[:1]), cell_state]).std(axis=0)
    return np.sort(np.argsort(-variation, kind="stable")[:MOST_UNITS])


def _shortened(word):
    """Returns as much of a word as a picture has room for."""
    return word if len(word) <= LONGEST_WORD else word[: LONGEST_WORD - 1] + "…"


def _draw_heat_map(axes, values, units, scale):
    """Draws those columns of values [num_words, size] that are `units` as rows, with their scale.

    The scale ends in points where there are values beyond it.
    """
    low, high = scale
    values = values[:, units].T
    image = axes.imshow(
        values, aspect="auto", cmap=COLOURS, vmin=low, vmax=high, interpolation="nearest"
    )
    bar = axes.figure.colorbar(
        image, ax=axes, pad=0.01, aspect=40, ticks=[low, (low + high) / 2, high], format="{x:.3g}",
        extend="both" if np.abs(values).max() > high else "neither",
    )
    bar.ax.tick_params(labelsize=6)
    axes.set_yticks(range(len(units)), [unit + 1 for unit in units], fontsize=6)


def _label_words(axes, words):
    """Writes words below axes that have one place for each."""
    axes.set_xlim(-0.5, len(words) - 0.5)
    axes.set_xticks(range(len(words)), [*map(_shortened, words)], rotation=90, fontsize=8)


def _draw_surprises(axes, expected):
    """Draws what LanguageModel.surprises returns as a bar a word, what it expected above them."""
    places = range(1, len(expected) + 1)
    surprises = [bits for _, bits, *_ in expected]
    axes.bar(places, surprises, color="0.4")
    axes.set_ylim(0, 1.05 * max([1, *surprises]))
    axes.set_ylabel("surprise (bits)", fontsize=8)
    axes.tick_params(labelsize=6)
    top = axes.secondary_xaxis("top")
    labels = [f"{probability:.2f} {_shortened(word)}" for *_, word, probability in expected]
    top.set_xticks(places, labels, rotation=90, fontsize=8)
    for label, (word, _, likeliest, _) in zip(top.get_xticklabels(), expected):
        label.set_fontweight("bold" if word == likeliest else "normal")


def draw_text(words, values, title, output):
    """Writes a PNG with a text, each word coloured by its value, as much of it as fits.

    Args:
      words: the words of the text; after each `<eos>` a new row begins.
      values: a number for each word.
      title: what stands above.
      output: the file to write.

    Raises:
      UserError: matplotlib is missing, or `output` cannot be written.
    """
    output = files.local_path(str(output))
    matplotlib = load_matplotlib()
    places = _places(words)
    rows = places[-1][1] + 1
    scale = np.abs(values[: len(places)]).max() or 1.0
    colours = matplotlib.pyplot.cm.ScalarMappable(
        matplotlib.pyplot.Normalize(-scale, scale), COLOURS
    )
    figure, axes = matplotlib.pyplot.subplots(
        figsize=(1 + 0.085 * PASSAGE_WIDTH, 1.2 + 0.22 * rows), layout="constrained"
    )
    fonts = ["DejaVu Sans Mono", *matplotlib.chinese_fonts]
    for (x, y, width), word, value in zip(places, words, values):
        axes.add_patch(matplotlib.pyplot.Rectangle((x, y), width, 1, color=colours.to_rgba(value)))
        axes.text(x + width / 2, y + 0.5, _shortened(word), ha="center", va="center", fontsize=8,
                  family=fonts, color="white" if value < 0 else "black")
    axes.set(xlim=(0, PASSAGE_WIDTH), ylim=(rows, 0), title=title)
    axes.axis("off")
    figure.colorbar(colours, ax=axes, location="bottom", shrink=0.5, label="cell state")
    save(matplotlib.pyplot, figure, output, dpi=100)


def _places(words):
    """Returns (x, y, width) of as many words as fit a picture, in characters and rows."""
    from ptb.reader import EOS

    places = []
    x = y = 0
    for word in words:
        width = columns(_shortened(word)) + 1
        if x + width > PASSAGE_WIDTH:
            x, y = 2, y + 1
        if y == PASSAGE_ROWS:
            break
        places.append((x, y, width))
        x, y = (0, y + 1) if word == EOS else (x + width, y)
    return places


def _curves(args):
    draw(args.runs, args.output)
    print(f"Learning curves in {args.output}")


def _gates(args):
    load_matplotlib()  # Where it is missing, nobody waits for TensorFlow to hear that.
    from ptb.language_model import model_of, say_unknown

    with model_of(args) as model:
        say_unknown(model, args.prompt)
        draw_gates(model, args.prompt, args.output, args.layer, args.units)
    print(f"Gates in {args.output}")


def _units(args):
    load_matplotlib()
    from ptb import reader, units
    from ptb.language_model import model_of, say_unknown

    pieces = reader.read_lines(0 if args.text == "-" else files.local_path(args.text))
    words = reader.split_words("".join(itertools.chain.from_iterable(pieces)))
    with model_of(args) as model:
        say_unknown(model, words)
        found = units.best_explained(model, words, args.by)
        print("layer", "unit", "explained_by", "correlation", sep="\t")
        for unit in found:
            print(unit.layer, unit.number, unit.explained_by, f"{unit.correlation:.3f}", sep="\t")
        words = units.as_read(model, words)
        words = words[: len(_places(words))]
        states = [*model.cell_states([[reader.EOS, *words]])][1:]
    best = found[0]
    name = f"layer {best.layer}, unit {best.number}"
    explanation = f"correlation with {best.explained_by}: {best.correlation:.2f}"
    draw_text(
        words, [state[0, best.layer - 1, best.number - 1] for state in states],
        f"Cell state of {name} ({explanation})", args.output,
    )
    print(f"Text coloured by {name} in {args.output}")


def _unit_numbers(text):
    """Returns the numbers in a text such as 3,17."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no list of numbers such as 3,17") from error


def _parser():
    parser = command_line.Parser(prog="python -m ptb.plot", description=__doc__)

    def command(function, help_, output):
        added = parser.command(function, help_)
        added.add_argument("--output", default=output, help=f"the file to write ({output})")
        return added

    curves = command(_curves, "Draws the perplexities of runs by epoch.", "learning_curves.png")
    curves.add_argument("runs", nargs="+", metavar="run", help="a run's folder")

    gates = command(_gates, "Draws what the units compute at each word of a sentence.", "gates.png")
    gates.add_model()
    gates.add_argument("--prompt", required=True, help=f"the sentence, of up to {MOST_WORDS} words")
    gates.add_argument("--layer", type=int, help="draw this layer only; 1 reads the words")
    gates.add_argument("--units", type=_unit_numbers, metavar="N,N,…",
                       help=f"draw these units, from 1 on (the {MOST_UNITS} that vary most)")

    units = command(_units, "Finds the ten units that follow the place in a line best, draws one.",
                    "units.png")
    units.add_model()
    units.add_argument("--text", required=True, help="a text file, or - for stdin")
    units.add_argument("--by", choices=EXPLANATIONS, help="compare with this one only (all three)")
    return parser


def main(argv=None):
    """Runs the command line of this module."""
    command_line.print_whatever_it_is()
    with command_line.errors_in_one_line("plot.py"):
        argv = sys.argv[1:] if argv is None else argv
        if argv[:1] not in (["curves"], ["gates"], ["units"], ["-h"], ["--help"]):
            argv = ["curves", *argv]
        args = _parser().parse_args(argv)
        args.function(args)


if __name__ == "__main__":
    main()
