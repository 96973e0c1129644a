"""Draws the learning curves of one or several runs as a PNG, where matplotlib is installed.

    python -m ptb.plot Out/small
    python -m ptb.plot Out/small Out/medium --output curves.png

A run is a folder of lstm.py with its history.csv. A star marks the epoch with the lowest valid
perplexity.
"""

import csv
import math
import os
import warnings

from ptb import command_line, files
from ptb.errors import UserError

# The names are those of ptb/history.py, which is not imported here because it loads TensorFlow.
HISTORY = "history.csv"
COLUMNS = "epoch", "train_perplexity", "valid_perplexity"
CHINESE_FONTS = "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Microsoft YaHei", "SimHei", "PingFang SC"


def read_history(folder):
    """Returns {column: [number of each epoch]} of history.csv in a run's folder.

    Raises:
      UserError: there is none, it has no epoch yet, or it is not what lstm.py wrote.
    """
    path = os.path.join(folder, HISTORY)
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


def draw(folders, output):
    """Writes a PNG with the train and valid perplexity of each run by epoch.

    Raises:
      UserError: a run has no history, matplotlib is missing, or `output` cannot be written.
    """
    output = files.local_path(str(output))
    folders = [files.local_path(str(folder)) for folder in folders]
    histories = [read_history(folder) for folder in folders]
    try:
        import matplotlib
    except ImportError as error:
        raise UserError("matplotlib is not installed: pip install matplotlib") from error
    matplotlib.use("Agg")  # This backend draws into files and needs no window.
    from matplotlib import font_manager, pyplot, ticker

    fonts = [name for name in CHINESE_FONTS if name in font_manager.get_font_names()]
    # For every sign matplotlib takes the first of these fonts that has it.
    pyplot.rcParams["font.family"] = ["DejaVu Sans", *fonts]
    warnings.filterwarnings("ignore", "Glyph .* missing from")

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    finite = []
    for number, (folder, history) in enumerate(zip(folders, histories)):
        # Matplotlib would read what stands between two dollar signs as mathematics.
        name = os.path.normpath(folder).replace("$", r"\$")
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
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    ticks = [base * 10**power for power in range(9) for base in (1, 1.5, 2, 3, 4, 5, 7)]
    low, high = min(finite, default=1), max(finite, default=10)
    axes.set_yticks([tick for tick in ticks if low / 1.3 <= tick <= high * 1.3], minor=False)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        with files.whole(output) as unfinished:
            figure.savefig(unfinished, format="png", dpi=150)
    except OSError as error:
        raise UserError(f"--output: cannot write {output} ({error.strerror})") from error
    finally:
        pyplot.close(figure)


def main(argv=None):
    """Runs the command line of this module."""
    command_line.print_whatever_it_is()
    with command_line.errors_in_one_line("plot.py"):
        parser = command_line.Parser(prog="python -m ptb.plot", description=__doc__)
        parser.add_argument("runs", nargs="+", metavar="run", help="a run's folder")
        parser.add_argument("--output", default="learning_curves.png",
                            help="the file to write (learning_curves.png)")
        args = parser.parse_args(argv)
        draw(args.runs, args.output)
        print(f"Learning curves in {args.output}")


if __name__ == "__main__":
    main()
