"""The benchmarks run, and print what they promise; their times say nothing here."""

import re
import runpy
import sys

import pytest
from conftest import ROOT

from ptb.terminal.quiet import tf


@pytest.fixture
def benchmark(corpus, monkeypatch, capsys):
    """To be called with a benchmark's name and words of its command: returns the lines it prints.

    It reads the small corpus with TstConfig. Contenders are processes of their own.
    """

    def call(name, *args):
        path = str(ROOT / "tests" / "benchmarks" / f"{name}.py")
        words = [path, "--config", "tst", "--data_path", str(corpus), *args]
        monkeypatch.setattr(sys, "argv", words)
        with tf.Graph().as_default():
            runpy.run_path(path)["main"]()
        printed = capsys.readouterr().out.replace("\033[K", "").splitlines()
        return [line.rstrip() for line in printed if "is not the PTB corpus" not in line]

    return call


def numbers(line):
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d.,e-]*", line)]


def test_evaluation_speed(benchmark):
    head, whole, single, ratio = benchmark("evaluation_speed", "--words", "50", "--rounds", "1")
    assert head == "tst, 49 targets, 1 rounds"
    perplexities = [numbers(line)[1] for line in (whole, single)]
    assert perplexities[0] == pytest.approx(perplexities[1], rel=1e-4)
    assert re.fullmatch(r"\S+ times faster, perplexity within \S+", ratio)


def test_bytes_that_workers_send_on_paper(benchmark):
    """Of 4 workers with 5 rows each: 3/4 of the gradients twice, and 3 times their own slices."""
    head, columns, first, *rest = benchmark("cluster_speed", "--paper")
    assert head.startswith("tst: what a worker sends in a step") and len(rest) == 4
    variables, slices = 5 * 8 + 3 * 10000 + 1, 5 * 2 * 3 + 2
    megabytes = 4 * 3 * (2 * variables / 4 + slices) / 1e6
    times = [8 * megabytes / gigabits for gigabits in (1, 10, 100)]
    assert numbers(first) == [4, 20, *(round(number, 1) for number in (megabytes, *times))]


def test_speed_of_the_matrix_products_alone(benchmark):
    head, columns, line = benchmark(
        "train_speed", "--only", "matrix products", "--rounds", "1", "--steps", "2"
    )
    assert head.startswith("tst, 1 rounds of 2 steps on ")
    assert columns.split()[:2] == ["ms/step", "min"]
    assert line.startswith("matrix products") and numbers(line)[-1] == 1.0  # the ratio to itself


@pytest.mark.slow
def test_train_speed(benchmark):
    names = "matrix products", "fused", "basic"
    _, columns, *lines = benchmark(
        "train_speed", *(word for name in names for word in ("--only", name)), "--rounds", "1",
        "--steps", "2",
    )
    assert " ".join(columns.split()).endswith("/ matrix products / fused")
    assert [line[:24].strip() for line in lines] == [*names]
    assert numbers(lines[1])[-1] == 1.0


@pytest.mark.slow
def test_cluster_speed(benchmark):
    head, _, *lines = benchmark("cluster_speed", "--rounds", "1", "--steps", "2")
    assert head == "tst, 2 workers, 1 rounds of 2 steps"
    assert [line.split()[0] for line in lines[:4]] == ["alone", "workers", "process", "larger"]
    assert lines[4].startswith("workers / alone: ")
    sent, formula = numbers(lines[5])
    assert sent > formula > 0  # The wire has headers, too.
