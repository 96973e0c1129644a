"""The tables in the README and the guides say what the code says, in Chinese too."""

import itertools
import pathlib
import re
import subprocess

import pytest
from conftest import ROOT

import configs
import lstm
from ptb import language_model, plot

README = ROOT / "README.md"
CHINESE = ROOT / "ptb" / "docs" / "README.zh-CN.md"
MEASUREMENTS = ROOT / "ptb" / "docs" / "measurements.md"
ASKING = ROOT / "ptb" / "docs" / "asking.md"
AVERAGES = ROOT / "ptb" / "docs" / "averages.md"


def table(path, header):
    """Returns the rows of the table whose header begins so: lists of cells."""
    lines = path.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(header))
    body = itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in body]


def plain_table(path, header):
    return [[cell.strip("`") for cell in row] for row in table(path, header)]


def test_flags_and_their_defaults():
    def shown(value):
        if isinstance(value, bool):
            return "on" if value else "off"
        return f"{value:g}" if isinstance(value, float) else str(value or "")

    flags = lstm.FLAGS.flags_by_module_dict()["lstm"]
    expected = {f"--{flag.name}": shown(flag.default) for flag in flags}
    assert {name: default for name, default, _ in plain_table(README, "| flag |")} == expected


def test_fields_and_their_values():
    classes = configs.SmallConfig, configs.MediumConfig, configs.LargeConfig
    fields = [name for name in vars(configs.SmallConfig) if not name.startswith("_")]
    expected = {name: [getattr(config, name) for config in classes] for name in fields}
    rows = plain_table(README, "| field |")
    assert {name: [eval(value) for value in values] for name, *values, _ in rows} == expected


def test_options_of_questions(capsys):
    for command in "generate", "next", "score", "similar":
        with pytest.raises(SystemExit):
            language_model.main([command, "--help"])
    options = {*re.findall(r"--\w+", capsys.readouterr().out)}
    required = {"--help", "--prompt", "--word"}
    assert {name for name, *_ in plain_table(ASKING, "| option |")} == options - required


@pytest.mark.parametrize("path, header", [
    (README, "| what you see |"), (ROOT / "ptb" / "docs" / "corpora.md", "| the line says |"),
])
def test_messages_are_those_of_the_code(path, header):
    """Those of pip and Python are left out; numbers and … stand for anything."""
    sources = [file.read_text(encoding="utf-8") for file in ROOT.glob("ptb/**/*.py")]
    code = re.sub(r'"\s*\n\s*f?"', "", "\n".join(sources))  # Parts of a string are joined.
    code = re.sub(r"{(?:reader\.)?(UNK|EOS)}", lambda name: f"<{name[1].lower()}>", code)
    for row in table(path, header):
        for message in re.findall(r"`([^`]+)`(?! from)", row[0]):
            for part in re.split(r"[\d.,]+%|…", message):
                assert part.strip(" ,") in code, message


def test_every_file_is_listed():
    text = README.read_text(encoding="utf-8").split("\n## Files\n")[1].split("\n## ")[0]
    listed = re.findall(r"`([^`]+)`", text)
    assert [name for name in listed if not (ROOT / name).exists()] == []
    ours = [*ROOT.glob("*.py"), *ROOT.glob("ptb/[!_]*.py"), *ROOT.glob("*/"), *ROOT.glob("ptb/*/")]
    if (ROOT / ".git").exists():  # A user's own folders, such as those of models, are not ours.
        git = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, stdout=subprocess.PIPE)
        tracked = {ROOT / parent for name in git.stdout.split("\n")
                   for parent in pathlib.PurePath(name).parents}
        ours = [path for path in ours if path.is_file() or path in tracked or git.returncode]
    ours = {path.relative_to(ROOT).as_posix() + "/" * path.is_dir() for path in ours}
    ours = {name for name in ours if not re.search(r"(^|/)[._]|^Out/|^ptb/$|^venv/", name)}
    assert ours <= {*listed}
    assert len({*listed}) == len(listed)


def test_chinese_results_are_the_english_ones():
    """Each row there that has three perplexities has the numbers of a row here, with its time."""
    def numbers(path, header):
        rows = (re.findall(r"[\d.]+", " ".join(cells)) for _, *cells in table(path, header))
        return [row for row in rows if sum("." in number for number in row) >= 3]

    chinese = numbers(CHINESE, "| | 种子 |")
    english = numbers(README, "| | seed |")
    assert len(chinese) > 5
    assert [row for row in chinese if row not in english] == []


def test_averages_are_those_of_the_guide():
    header = "| `python -m ptb.plot averages "
    english, chinese = ([cells for _, *cells in table(page, header)] for page in (README, CHINESE))
    assert english == chinese
    guide = {row[0]: f"{row[1]} / {row[2]}" for row in table(AVERAGES, "| models |")}
    assert english[0] == [guide[number] for number in ("1", "2", "5", "10")]
    paper = [row[1:] for row in table(AVERAGES, "| the paper's averages")][0]
    assert english[1][1:] == paper[:3]


def test_curve_of_the_original_is_that_of_the_table():
    history = plot.read_history(ROOT / "ptb" / "pictures" / "original")
    rows = {row[0]: [*map(float, row[1:])] for row in table(MEASUREMENTS, "| epoch |")}
    assert history["train_perplexity"] == rows["train, original"]
    assert history["valid_perplexity"] == rows["valid, original"]
