"""The sample corpus: what is in the project is what the generator writes, and what it claims."""

import importlib.util
import itertools
import math

import pytest
from conftest import ROOT

FOLDER = ROOT / "simple-examples"


@pytest.fixture(scope="module")
def make_sample():
    spec = importlib.util.spec_from_file_location("make_sample", FOLDER / "make_sample.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sample_is_regenerated_byte_for_byte(make_sample, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["make_sample.py", "--folder", str(tmp_path)])
    make_sample.main()
    for part in "train", "valid", "test":
        name = f"ptb.{part}.txt"
        assert (tmp_path / name).read_bytes() == (FOLDER / "sample" / name).read_bytes()
    readme = (FOLDER / "README.md").read_text()
    for line in capsys.readouterr().out.splitlines():
        assert line in readme


def test_first_word_decides_the_last(make_sample):
    for line in (FOLDER / "sample" / "ptb.train.txt").read_text().splitlines():
        first, *_, last = line.split()
        assert make_sample.PEOPLE[first][1] == last
    assert len({last for _, last in make_sample.PEOPLE.values()}) == len(make_sample.PEOPLE)


def test_no_sentence_is_drawn_in_two_ways(make_sample):
    """Words that may follow the same place are in one list only, so the choices can be read off."""
    m = make_sample
    verbs = [verb for verbs, _ in m.KINDS.values() for verb in verbs]
    for words in (
        [*m.PREPOSITIONS, *m.ADVERBS, *m.INTRANSITIVE, *verbs],
        *([*m.ADJECTIVES, *nouns] for _, nouns in m.KINDS.values()),
        [*m.PLACE_ADJECTIVES, *m.PLACES],
        [*m.TIMES, "and", "with"],
    ):
        assert len(set(words)) == len(words)


def test_probability_of_a_sentence(make_sample, monkeypatch):
    """The nats counted are those of the sentence, worked out from the grammar by hand."""
    m = make_sample

    def weight(words, word):
        ranks = list(words)
        return (1 / (ranks.index(word) + 4)) / sum(1 / (i + 4) for i in range(len(ranks)))

    writer = m.Writer(0)
    for _ in range(10_000):
        writer.nats = 0.0
        sentence = writer.sentence()
        if len(sentence) == 6 and sentence[1] in m.ADVERBS:
            break
    people, adverb, verb, *_ = sentence
    probability = (
        weight(m.PEOPLE, people) * 0.5 * 0.4 * weight(m.ADVERBS, adverb)
        * 0.3 * weight(m.INTRANSITIVE, verb) * 0.7 * 0.7
    )
    assert writer.nats == pytest.approx(-math.log(probability))


def test_trigram_model(make_sample):
    """Certain where every word follows from the one before, and not where little does."""
    text = "a b c\n" * 500
    (valid,) = make_sample.trigram_perplexities(text, text)
    assert valid == pytest.approx(1, abs=0.01)
    letters = "abcd"
    every = "".join(" ".join(p) + "\n" for p in itertools.product(letters, repeat=3))
    uniform = make_sample.trigram_perplexities(every, every)[0]
    assert 4**0.75 < uniform < 5  # three of four words are free; nothing better than five types
