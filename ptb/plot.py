"""Draws learning curves and the inside of a trained model, where matplotlib is installed.

    python -m ptb.plot Out/small
    python -m ptb.plot curves Out/small Out/medium --output curves.png
    python -m ptb.plot averages Out/seed-1/small Out/seed-2/small Out/seed-3/small
    python -m ptb.plot gates Out/small --prompt "the company said it would sell its unit"
    python -m ptb.plot units Out/small --text simple-examples/data/ptb.valid.txt

curves draws the perplexities in the history.csv of runs, with a star at each run's best epoch, and
is meant where no command is named; a run's folder that is called like a command is written as a
path, such as ./gates. averages draws how the perplexity of the corpus falls when the first model
is averaged with the second, then with the third as well, and so on. gates draws what every unit of
a model computes at each word of a sentence, and units looks for units that follow where in its line
a word stands. A model is what python -m ptb.language_model takes for one.

A picture is in the folder Out unless --output names another file, whose ending, .png, .pdf or .svg,
decides what it is. `-` is a PNG on stdout.
"""

import argparse
import contextlib
import csv
import difflib
import io
import itertools
import logging
import math
import os
import re
import sys
import warnings

import numpy as np

from ptb import reader
from ptb.evaluate import perplexity
from ptb.language_model import LanguageModel, model_of, say_unknown
from ptb.saving import files
from ptb.saving.checkpoint import hint_of_runs
from ptb.saving.history import CSV
from ptb.terminal import command_line
from ptb.terminal.errors import UserError, shortened
from ptb.terminal.progress import columns, counted
from ptb.trained_model import read_models
from ptb.units import EXPLANATIONS, as_read, best_explained

COLUMNS = "epoch", "train_perplexity", "valid_perplexity"
COMMANDS = "curves", "averages", "gates", "units"
FORMATS = "png", "pdf", "svg"
OLDEST_MATPLOTLIB = 3, 7  # It is the first that puts a legend outside of the axes.
OUT = "Out"  # the folder of pictures that are not told where to go
CHINESE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB",
    "Noto Sans CJK JP",  # Older versions of matplotlib know all of Noto's by this name.
)
# Its brightness only ever grows, so that it can be read in grey and by who does not see red or
# green. Its middle is grey, the colour of 0 where a scale goes from negative to positive.
COLOURS = "cividis"
MOST_WORDS = 60  # of a prompt, in a picture of gates
MOST_UNITS = 40  # of a layer in such a picture
LONGEST_WORD = 20  # signs of a word that are shown, where words stand below each other
NUM_COLOURS = 10  # of curves; more could not be told apart
MARKERS = ".s^vDP<X>p"  # of curves: the first for so many runs, the second for the next, and so on
LARGEST = 1e200  # perplexity that is drawn; with the margins of the axes, numbers end at 1e308
LEGEND_WIDTH = 90  # columns of a row of the legend below them
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
        history = {column: [float(row[i]) for row in rows] for i, column in enumerate(header)}
        epochs, *perplexities = (history[column] for column in COLUMNS)
        if not all(map(math.isfinite, epochs)) or not np.all(np.greater(perplexities, 0)):
            raise ValueError
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; name a folder that lstm.py saved in{hint_of_runs(folder)}"
        ) from error
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is not what lstm.py wrote; start the run again") from error
    if not rows:
        raise UserError(f"{path}: no epoch is done yet; try again after the first")
    return history


def load_matplotlib():
    """Returns the package matplotlib, with those of its modules that the pictures need.

    Raises:
      UserError: it is not installed, too old, or cannot be loaded.
    """
    try:
        matplotlib = _import_matplotlib()
    except Exception as error:  # Where versions do not fit together it may be any.
        if isinstance(error, ModuleNotFoundError) and error.name == "matplotlib":
            raise UserError("matplotlib is not installed: pip install matplotlib") from error
        raise UserError(
            f"matplotlib cannot be loaded ({type(error).__name__}: {error}): "
            "pip install --force-reinstall matplotlib"
        ) from error
    if matplotlib.__version_info__ < OLDEST_MATPLOTLIB:
        raise UserError(
            f"matplotlib {matplotlib.__version__} is too old: pip install --upgrade matplotlib"
        )
    return matplotlib


def _import_matplotlib():
    """Imports matplotlib, also where MPLBACKEND names a backend that is not installed.

    A notebook passes that variable on to its processes. matplotlib fails on it when it is imported,
    and the pictures need none of these backends.
    """
    is_first = "matplotlib" not in sys.modules
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if is_first and backend:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend  # for who draws in windows afterwards
    import matplotlib.backends.backend_agg
    import matplotlib.figure
    import matplotlib.legend_handler
    import matplotlib.style  # noqa: F401

    return matplotlib


def chinese_fonts(font_manager):
    """Returns which of CHINESE_FONTS are installed."""
    if not {*CHINESE_FONTS} & {*font_manager.get_font_names()}:
        # matplotlib keeps a list of the fonts, and looks for no others than those.
        known = {font.fname for font in font_manager.fontManager.ttflist}
        for path in {*font_manager.findSystemFonts()} - known:
            with contextlib.suppress(Exception):  # Any may be damaged.
                font_manager.fontManager.addfont(path)
    return [name for name in CHINESE_FONTS if name in font_manager.get_font_names()]


@contextlib.contextmanager
def picture(output, dpi):
    """Yields (matplotlib, an empty figure), and writes the figure to a path when the block ends.

    matplotlib's settings are its defaults within the block, and afterwards what they were: neither
    what a process has set nor a matplotlibrc or MPLBACKEND matters here, and nothing of it changes.

    Raises:
      UserError: matplotlib cannot be used, or the path cannot be written.
    """
    matplotlib = load_matplotlib()
    settings = {
        # For every sign matplotlib takes the first of these fonts that has it.
        "font.family": ["DejaVu Sans", *chinese_fonts(matplotlib.font_manager)],
        # Otherwise what stands between two dollar signs would be read as mathematics.
        "text.parse_math": False,
    }
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    with (
        warnings.catch_warnings(record=True) as caught,
        matplotlib.style.context(["default", settings]),
    ):
        warnings.filterwarnings("always", "Glyph .* missing from")
        log.setLevel(logging.ERROR)  # It would complain that a Chinese font has no bold signs.
        try:
            figure = matplotlib.figure.Figure(layout="constrained")
            matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
            yield matplotlib, figure
            save(figure, output, dpi)
        finally:
            log.setLevel(level)
    _say_missing(caught)


def _say_missing(caught):
    """Prints which signs have no font, as matplotlib's warnings tell, and passes on the others."""
    missing = {}  # {sign: what matplotlib calls it}
    for warning in caught:
        found = re.match(r"Glyph (\d+) (.*) missing from", str(warning.message))
        if found:
            missing[chr(int(found[1]))] = found[2]
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    if missing:
        signs = " ".join(missing) if len(missing) <= 10 else " ".join([*missing][:10]) + " …"
        line = f"Drawn as boxes, as no font of the pictures has them: {signs}"
        if re.search("CJK|KANA|HANGUL", " ".join(missing.values())):
            line += "; install the package fonts-noto-cjk (its name in Debian and Ubuntu)"
        print(line, file=sys.stderr)


def save(figure, output, dpi):
    """Writes a figure to a path, in the format that its ending names.

    Raises:
      UserError: the file cannot be written.
    """
    format_ = _format(output)
    options = {"pil_kwargs": {"optimize": True}} if format_ == "png" else {}
    data = io.BytesIO()  # A pipe, unlike this, is not read and written in any order.
    figure.savefig(data, format=format_, dpi=dpi, **options)
    with files.output(output) as file:
        file.write(data.getbuffer())


def _format(output):
    """Returns the one of FORMATS that a path stands for, by its ending; None where for none."""
    ending = os.path.splitext(output)[1].lower()
    if ending[1:] in FORMATS:
        return ending[1:]
    return "png" if output in files.STDOUT or files.is_stream(output) else None


def checked_output(output):
    """Returns the path of a picture as a str; the folder OUT is made where it is missing.

    Raises:
      UserError: it has the ending of no format, or cannot be written.
    """
    output = files.local_path(output)
    if _format(output) is None:
        raise UserError(f"{output}: a picture's name ends in .png, .pdf or .svg")
    if os.path.dirname(output) == OUT:
        with contextlib.suppress(OSError):  # That it cannot be made is found below.
            os.makedirs(OUT, exist_ok=True)
    files.check_writable(output)
    return output


def draw(folders, output):
    """Writes a picture with the train and valid perplexity of each run by epoch.

    Args:
      folders: the runs' folders.
      output: the file to write.

    Raises:
      UserError: a run has no history, there are more runs than fit, matplotlib is missing, or
        `output` cannot be written.
    """
    output = checked_output(output)
    folders = [files.local_path(folder) for folder in folders]
    if len(folders) > NUM_COLOURS * len(MARKERS):
        raise UserError(f"there are {len(folders)} runs; {NUM_COLOURS * len(MARKERS)} fit")
    histories = [read_history(folder) for folder in folders]

    with picture(output, dpi=150) as (matplotlib, figure):
        axes = figure.subplots()
        handles, labels = [], []
        for number, (folder, history) in enumerate(zip(folders, histories)):
            train, valid = history["train_perplexity"], history["valid_perplexity"]
            # The earlier versions of history.csv have no column that tells the best epoch.
            best, epoch = min(zip(valid, history["epoch"]))
            style = {
                "color": f"C{number % NUM_COLOURS}", "marker": MARKERS[number // NUM_COLOURS],
                "markersize": 6 if number < NUM_COLOURS else 4,
            }
            star = style | {"marker": "*", "markersize": 12}
            handles.append(tuple(
                axes.plot(x, _drawn(y), linestyle=line, **look)[0]
                for x, y, line, look in [
                    (history["epoch"], train, "--", style), (history["epoch"], valid, "-", style),
                    ([epoch], [best], "none", star),
                ]
            ))
            labels.append(_in_rows(
                f"train {_shown(train[-1])}, valid {_shown(valid[-1])}, "
                f"best {_shown(best)} in epoch {epoch:.0f}, {os.path.normpath(folder)}",
                LEGEND_WIDTH,
            ))
        axes.set(xlabel="epoch", title="Learning curves")
        _finish_perplexities(matplotlib, axes, handles, labels)


def draw_averages(perplexities, output, beside=()):
    """Writes a picture with the perplexity of averages by the number of models.

    Args:
      perplexities: {name of a text: [(that of the average of the first models, that of the last of
        these alone)] for one model, for two, and so on}.
      output: the file to write.
      beside: [(name, perplexity of each text in order)] of others, which get broken lines.

    Raises:
      UserError: matplotlib is missing, or `output` cannot be written.
    """
    output = checked_output(output)
    with picture(output, dpi=150) as (matplotlib, figure):
        axes = figure.subplots()
        handles, labels = [], []
        for number, (text, pairs) in enumerate(perplexities.items()):
            numbers = range(1, len(pairs) + 1)
            averaged, alone = np.array(pairs).T
            handles.append(tuple(
                axes.plot(numbers, _drawn(y), color=f"C{number}", marker=marker, linestyle=line)[0]
                for y, marker, line in [(averaged, MARKERS[0], "-"), (alone, "x", "none")]
            ))
            labels.append(
                f"{text}: {_shown(averaged[-1])} by the average of {counted(len(pairs), 'model')}; "
                f"each model alone (×): {_shown(alone.min())} to {_shown(alone.max())}"
            )
        ends = [1, len(pairs)] if len(pairs) > 1 else [0.5, 1.5]
        for (name, *values), line in zip(beside, itertools.cycle(("--", ":", "-."))):
            handles.append(tuple(
                axes.plot(ends, [value] * 2, color=f"C{number}", linestyle=line)[0]
                for number, value in enumerate(values)
            ))
            shown = (f"{text} {_shown(value)}" for text, value in zip(perplexities, values))
            labels.append(_in_rows(f"{name}: {', '.join(shown)}", LEGEND_WIDTH))
        axes.set(xlabel="number of models", title="Averages of models")
        _finish_perplexities(matplotlib, axes, handles, labels)


def _drawn(perplexities):
    """Returns perplexities with infinity, which is not drawn, for those that are too large."""
    return np.where(np.less(perplexities, LARGEST), perplexities, np.inf)


def _finish_perplexities(matplotlib, axes, handles, labels):
    """Gives a picture of perplexities by whole numbers its scales and, below, its legend."""
    lines = axes.get_lines()
    numbers = [number for line in lines for number in line.get_xdata()]
    margin = 0.05 * (max(numbers) - min(numbers)) or 0.5
    axes.set_xlim(min(numbers) - margin, max(numbers) + margin)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True, min_n_ticks=1))
    drawn = [value for line in lines for value in line.get_ydata() if 0 < value < LARGEST]
    low, high = min(drawn, default=1), max(drawn, default=10)
    factor = 1.02 * (high / low) ** 0.05
    low, high = low / factor, high * factor
    axes.set(ylabel="perplexity", yscale="log")
    axes.set_ylim(low, high)
    axes.set_yticks(_ticks(matplotlib.ticker, low, high))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.grid(alpha=0.3)
    figure = axes.figure
    legend = figure.legend(
        handles, labels, loc="outside lower center", handlelength=9, fontsize=9,
        handler_map={tuple: matplotlib.legend_handler.HandlerTuple(ndivide=None, pad=1)},
    )
    # The legend has a place of its own below the axes, however large it is.
    width, height = legend.get_window_extent().size / figure.dpi
    figure.set_size_inches(max(8, width + 0.5), 5 + height)


def _shown(perplexity):
    """Returns a perplexity as the legend has it."""
    return f"{perplexity:.2f}" if perplexity < 1e6 else f"{perplexity:.3g}"


def _ticks(ticker, low, high):
    """Returns some round numbers from low to high, both > 0, for an axis of logarithms.

    Args:
      ticker: matplotlib's module of that name.
    """
    if high < 3 * low:
        ticks = ticker.MaxNLocator(8).tick_values(low, high)
    else:
        factors = [1]
        if high < 1e4 * low:
            factors = [1, 1.5, 2, 3, 4, 5, 7] if high < 100 * low else [1, 2, 5]
        first, last = math.floor(math.log10(low)), math.floor(math.log10(high))
        powers = range(first, last + 1, (last - first) // 10 + 1)
        ticks = [factor * 10.0**power for power in powers for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]


def _in_rows(text, width):
    """Returns a text with line ends in it, where so many columns of a row are full."""
    rows = [""]
    for sign in text:
        if columns(rows[-1] + sign) > width:
            rows.append("")
        rows[-1] += sign
    return "\n".join(rows)


def draw_gates(model, prompt, output, layer=None, units=None):
    """Writes a picture of what the units of a model compute at each word of a prompt.

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
    output = checked_output(output)
    num_words = len(reader.split_words(prompt))
    if num_words > MOST_WORDS:
        raise UserError(f"the prompt has {num_words} words; {MOST_WORDS} fit")
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
    expected = model.surprises(prompt)
    words = [reader.EOS, *(word for word, *_ in expected)]
    with picture(output, dpi=100) as (matplotlib, figure):
        width = num_columns * max(2.5, 1.2 + 0.22 * num_words)
        figure.set_size_inches(width, 4 + sum(panel_heights))
        axes = figure.subplots(
            1 + len(panel_heights), num_columns, squeeze=False, height_ratios=[1.5, *panel_heights]
        )
        # So many columns fit beside each other.
        figure.suptitle(_in_rows(model.description, int(15 * width)), fontsize=8)
        for above in axes[0]:
            _draw_surprises(above, expected)
            _label_words(above, words)
        has_chinese = chinese_fonts(matplotlib.font_manager)
        for row, layer in enumerate(layers):
            panels = axes[1 + row * panel_rows : 1 + (row + 1) * panel_rows]
            for panel, (name, titles) in zip(panels.flat, PANELS.items()):
                _draw_heat_map(panel, getattr(gates, name)[layer], chosen[layer], scales[name])
                title = " ".join(titles if has_chinese else titles[:1])
                panel.set_title(f"layer {layer + 1}: {title}", fontsize=9)
                _label_words(panel, words)
            for panel in panels[:-1].flat:
                panel.tick_params(labelbottom=False)
            for panel in panels[:, 0]:
                panel.set_ylabel("unit", fontsize=8)


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
    """Returns as much of a word as a picture has room for, without control characters."""
    word = re.sub(r"[\0-\x1f\x7f-\x9f]", "\ufffd", word)  # An .svg may not have them.
    return shortened(word, LONGEST_WORD)


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
    labels = [
        (f"{p:.2f}" if p >= 0.01 else f"{p:.0e}") + f" {_shortened(word)}"
        for *_, word, p in expected
    ]
    top.set_xticks(places, labels, rotation=90, fontsize=8)
    for label, (word, _, likeliest, _) in zip(top.get_xticklabels(), expected):
        label.set_fontweight("bold" if word == likeliest else "normal")


def draw_text(words, values, title, output):
    """Writes a picture of a text, each word coloured by its value, as much of it as fits.

    Args:
      words: the words of the text; after each `<eos>` a new row begins.
      values: a number for each word.
      title: what stands above.
      output: the file to write.

    Raises:
      UserError: matplotlib is missing, or `output` cannot be written.
    """
    output = checked_output(output)
    places = _places(words)
    rows = places[-1][1] + 1
    scale = np.abs(values[: len(places)]).max() or 1.0
    with picture(output, dpi=100) as (matplotlib, figure):
        figure.set_size_inches(1 + 0.085 * PASSAGE_WIDTH, 1.2 + 0.22 * rows)
        axes = figure.subplots()
        colours = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(-scale, scale), COLOURS)
        fonts = ["DejaVu Sans Mono", *chinese_fonts(matplotlib.font_manager)]
        for (x, y, width), word, value in zip(places, words, values):
            box = matplotlib.patches.Rectangle((x, y), width, 1, color=colours.to_rgba(value))
            axes.add_patch(box)
            axes.text(x + width / 2, y + 0.5, _shortened(word), ha="center", va="center",
                      fontsize=8, family=fonts, color="white" if value < 0 else "black")
        axes.set(xlim=(0, PASSAGE_WIDTH), ylim=(rows, 0), title=title)
        axes.axis("off")
        figure.colorbar(colours, ax=axes, location="bottom", shrink=0.5, label="cell state")


def _places(words):
    """Returns (x, y, width) of as many words as fit a picture, in characters and rows."""
    places = []
    x = y = 0
    for word in words:
        width = columns(_shortened(word)) + 1
        if x + width > PASSAGE_WIDTH:
            x, y = 2, y + 1
        if y == PASSAGE_ROWS:
            break
        places.append((x, y, width))
        x, y = (0, y + 1) if word == reader.EOS else (x + width, y)
    return places


def _curves(args):
    draw(args.runs, args.output)
    print(f"Learning curves in {args.output}", file=args.said)


def _averages(args):
    load_matplotlib()  # Where it is missing, nobody waits for TensorFlow to hear that.
    data_path = files.local_path(args.data_path)
    texts = {}
    for part, path in zip(reader.PARTS[1:], reader.corpus_files(data_path)[1:]):
        texts[part] = _read_text(path)
        reader.refuse_too_short_to_score(path, texts[part])
    models = read_models(args.runs, data_path, args.best)
    totals = dict.fromkeys(texts, -np.inf)  # {text: log of the sum of the models' probabilities}
    perplexities = {part: [] for part in texts}
    print("models", *texts, *(f"{part}_alone" for part in texts), "run", sep="\t", file=args.said)
    for number, trained in enumerate(models, start=1):
        with LanguageModel(trained) as model:
            if number == 1:
                say_unknown(model, [*itertools.chain.from_iterable(texts.values())])
            for part, words in texts.items():
                scores = model.score_words(words, stream=True)
                alone = np.concatenate([score.log_probs for score in scores])
                totals[part] = np.logaddexp(totals[part], alone)
                average = totals[part] - np.log(number)
                perplexities[part].append(
                    tuple(perplexity(-its.sum(), len(its)) for its in (average, alone))
                )
        averaged, alone = zip(*(pairs[-1] for pairs in perplexities.values()))
        shown = (f"{value:.3f}" for value in averaged + alone)
        print(number, *shown, trained.path, sep="\t", file=args.said)
    draw_averages(perplexities, args.output, args.beside)
    print(f"Perplexities of averages in {args.output}", file=args.said)


def _read_text(file):
    """Returns the words of a text file, or of stdin where it is 0; see reader.read_lines."""
    return reader.split_words("".join(itertools.chain.from_iterable(reader.read_lines(file))))


def _gates(args):
    load_matplotlib()
    with model_of(args) as model:
        say_unknown(model, args.prompt)
        draw_gates(model, args.prompt, args.output, args.layer, args.units)
    print(f"Gates in {args.output}", file=args.said)


def _units(args):
    load_matplotlib()
    words = _read_text(0 if args.text == "-" else files.local_path(args.text))
    with model_of(args) as model:
        say_unknown(model, words)
        found = best_explained(model, words, args.by)
        rows = [(*unit[:3], f"{unit.correlation:.3f}") for unit in found]
        for row in ("layer", "unit", "explained_by", "correlation"), *rows:
            print(*row, sep="\t", file=args.said)
        words = as_read(model, words)
        words = words[: len(_places(words))]
        states = [*model.cell_states([[reader.EOS, *words]])][1:]
    best = found[0]
    name = f"layer {best.layer}, unit {best.number}"
    explanation = f"correlation with {best.explained_by}: {best.correlation:.2f}"
    draw_text(
        words, [state[0, best.layer - 1, best.number - 1] for state in states],
        f"Cell state of {name} ({explanation})", args.output,
    )
    print(f"Text coloured by {name} in {args.output}", file=args.said)


class _Beside(argparse.Action):
    """Adds a name and two perplexities to those given before."""

    def __call__(self, parser, namespace, values, option=None):
        name, *numbers = values
        name = name.encode(errors="replace").decode()  # what no font could draw
        try:
            numbers = [*map(float, numbers)]
        except ValueError:
            numbers = [math.nan]
        if not all(1 <= number < LARGEST for number in numbers):
            raise argparse.ArgumentError(self, f"{' '.join(values[1:])}: no two perplexities")
        namespace.beside = [*namespace.beside, (name, *numbers)]


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
        output = os.path.join(OUT, output)
        added.add_argument("--output", default=output,
                           help=f"the .png, .pdf or .svg to write; - is a PNG on stdout ({output})")
        return added

    curves = command(_curves, "Draws the perplexities of runs by epoch.", "learning_curves.png")
    curves.add_argument("runs", nargs="+", metavar="run", help="a run's folder")

    averages = command(_averages, "Draws the perplexity of the first model, of the average of the "
                       "first two, and so on.", "averages.png")
    averages.add_argument("runs", nargs="+", metavar="run",
                          help="a run's folder, or a checkpoint of the tutorial")
    averages.add_argument("--data_path", default="simple-examples/data",
                          help="the folder of the corpus (simple-examples/data)")
    averages.add_argument("--best", action="store_true",
                          help="take the epoch with the lowest valid perplexity, not the last")
    averages.add_argument("--beside", nargs=3, action=_Beside, default=[],
                          metavar=("NAME", "VALID", "TEST"),
                          help="draw these perplexities too; may be repeated")

    gates = command(_gates, "Draws what the units compute at each word of a sentence.", "gates.png")
    gates.add_model(of_one=True)
    gates.add_argument("--prompt", required=True, help=f"the sentence, of up to {MOST_WORDS} words")
    gates.add_argument("--layer", type=int, help="draw this layer only; 1 reads the words")
    gates.add_argument("--units", type=_unit_numbers, metavar="N,N,…",
                       help=f"draw these units, from 1 on (the {MOST_UNITS} that vary most)")

    units = command(_units, "Finds the ten units that follow the place in a line best, draws one.",
                    "units.png")
    units.add_model(of_one=True)
    units.add_argument("--text", required=True, help="a text file, or - for stdin")
    units.add_argument("--by", choices=EXPLANATIONS, help="compare with this one only (all three)")
    return parser


def main(argv=None):
    """Runs the command line of this module."""
    with command_line.errors_in_one_line("plot.py"):
        argv = sys.argv[1:] if argv is None else argv
        if argv[:1] not in ([name] for name in (*COMMANDS, "-h", "--help")):
            if argv and not os.path.exists(argv[0]):
                for meant in difflib.get_close_matches(argv[0], COMMANDS, n=1):
                    raise UserError(f"{argv[0]}: no such command; did you mean {meant}?")
            argv = ["curves", *argv]
        args = _parser().parse_args(argv)
        args.output = checked_output(args.output)
        args.said = files.said_beside(args.output)
        args.function(args)


if __name__ == "__main__":
    main()
