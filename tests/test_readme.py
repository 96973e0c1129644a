"""The tables and the list of files in the READMEs say what the code says."""

import itertools
import re

import pytest
from conftest import ROOT

import configs
import lstm
from ptb import plot

ENGLISH = ROOT / "README.md"
CHINESE = ROOT / "ptb" / "README.zh-CN.md"


def table(path, first):
    """Returns the rows of the table whose header begins with a word: lists of plain cells."""
    lines = path.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    body = itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    return [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in body]


@pytest.mark.parametrize("path, first, on, off", [
    (ENGLISH, "flag", "on", "off"), (CHINESE, "参数", "开", "关"),
])
def test_flags_and_their_defaults(path, first, on, off):
    def shown(value):
        if isinstance(value, bool):
            return on if value else off
        return f"{value:g}" if isinstance(value, float) else str(value)

    flags = lstm.FLAGS.flags_by_module_dict()["lstm"]
    expected = {f"--{flag.name}": shown(flag.default) for flag in flags}
    assert {name: default for name, default, _ in table(path, first)} == expected


@pytest.mark.parametrize("path, first", [(ENGLISH, "field"), (CHINESE, "字段")])
def test_fields_and_their_values(path, first):
    classes = configs.SmallConfig, configs.MediumConfig, configs.LargeConfig
    fields = [name for name in vars(configs.SmallConfig) if not name.startswith("_")]
    expected = {name: [getattr(config, name) for config in classes] for name in fields}
    rows = table(path, first)
    assert {name: [eval(value) for value in values] for name, *values, _ in rows} == expected


def test_every_file_is_listed():
    listed = re.findall(r"^\d+\. \[`(.+)`\]\(", ENGLISH.read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name in listed if not (ROOT / name).exists()] == []
    ours = [*ROOT.glob("*.py"), *ROOT.glob("ptb/[!_]*.py")]
    assert {path.relative_to(ROOT).as_posix() for path in ours} <= {*listed}
    assert len({*listed}) == len(listed)


def test_chinese_results_are_the_english_ones():
    """Both tables have the same numbers in the same rows."""
    def numbers(path, header):
        lines = path.read_text(encoding="utf-8").split(header, 1)[1].split("\n\n", 1)[0]
        return [re.findall(r"\d+\.\d+(?= \|)", line) for line in lines.splitlines()]

    assert numbers(CHINESE, "| | 种子 |") == numbers(ENGLISH, "| | seed |")


@pytest.mark.parametrize("path", [ENGLISH, CHINESE])
def test_pictures_are_there_and_small(path):
    pictures = re.findall(r"!\[.+\]\((.+\.png)\)", path.read_text(encoding="utf-8"))
    assert [name.split("/")[-1] for name in pictures] == ["learning_curves.png", "gates.png"]
    for name in pictures:
        assert 10_000 < (path.parent / name).stat().st_size < 200_000


def test_curve_of_the_original_is_that_of_the_table():
    history = plot.read_history(ROOT / "ptb" / "pictures" / "original")
    rows = {row[0]: [*map(float, row[1:])] for row in table(ENGLISH, "epoch")}
    assert history["train_perplexity"] == rows["train, original"]
    assert history["valid_perplexity"] == rows["valid, original"]
