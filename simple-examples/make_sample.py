"""Writes the sample corpus: sentences of a small grammar whose own perplexity is known.

    python simple-examples/make_sample.py

writes sample/ptb.{train,valid,test}.txt beside this file, the same bytes every time, and prints the
perplexity of the source itself and of an interpolated trigram model, on valid and on test.

A sentence begins with people and ends with what they carry: the first word decides the last, many
words later. It also makes some verbs likelier, and a verb decides what kind of thing may follow its
article and adjective. A trigram model sees two words back: most of this is out of its sight.

    sailors from the quiet harbour often repair the broken wheel with their ropes
"""

import argparse
import collections
import math
import os
import random

SEED = 1409
SIZES = {"train": 100_000, "valid": 10_000, "test": 10_000}  # words, line ends included

KINDS = {  # each kind of thing: verbs that take it, and its nouns
    "food": (
        "eat share cook taste carry sell praise steal".split(),
        "bread apple cake soup pear cheese fish pie onion plum carrot pudding melon cherry sausage "
        "egg lemon pancake turnip nut".split(),
    ),
    "texts": (
        "read write copy burn sign hide translate forget".split(),
        "letter poem story contract diary message song book report recipe prayer novel list speech "
        "riddle verse treaty note map essay".split(),
    ),
    "works": (
        "repair build break paint polish move need borrow".split(),
        "wheel door boat wagon table bridge clock chair ladder fence window bench roof gate barrel "
        "mill lamp tower oven cart".split(),
    ),
    "persons": (
        "meet greet follow help trust invite fear obey".split(),
        "stranger queen child neighbour mayor widow guest traveller lawyer nurse captain servant "
        "beggar prince uncle judge duke student guard monk".split(),
    ),
    "animals": (
        "feed catch ride chase train watch tame wash".split(),
        "horse goat dog mule goose camel donkey cat rabbit pony falcon bear fox pig hen swan ox "
        "lamb duck owl".split(),
    ),
    "clothes": (
        "wear sew mend fold lose buy dye lend".split(),
        "coat hat shirt cloak scarf glove dress belt sock robe apron blanket jacket veil ribbon "
        "boot cape sash hood shawl".split(),
    ),
}
PEOPLE = {  # the first word of a sentence: the kind of thing they do most, and the last word
    "bakers": ("food", "flour"), "poets": ("texts", "verses"),
    "sailors": ("works", "ropes"), "doctors": ("persons", "medicine"),
    "farmers": ("animals", "wheat"), "weavers": ("clothes", "wool"),
    "cooks": ("food", "spices"), "scholars": ("texts", "books"),
    "builders": ("works", "bricks"), "teachers": ("persons", "chalk"),
    "hunters": ("animals", "arrows"), "tailors": ("clothes", "needles"),
    "fishermen": ("food", "nets"), "clerks": ("texts", "ledgers"),
    "smiths": ("works", "iron"), "soldiers": ("persons", "swords"),
    "shepherds": ("animals", "sheep"), "dancers": ("clothes", "shoes"),
    "brewers": ("food", "barrels"), "priests": ("texts", "candles"),
    "carpenters": ("works", "planks"), "kings": ("persons", "crowns"),
    "riders": ("animals", "saddles"), "merchants": ("clothes", "coins"),
    "gardeners": ("food", "roses"), "pilots": ("texts", "charts"),
    "painters": ("works", "brushes"), "barbers": ("persons", "razors"),
    "miners": ("animals", "coal"), "thieves": ("clothes", "keys"),
    "potters": ("works", "clay"), "drummers": ("persons", "drums"),
}
INTRANSITIVE = (
    "sing dance sleep wait laugh work travel whisper dream argue rest celebrate".split()
)
DETERMINERS = "the this that another every one".split()
ADJECTIVES = (
    "old small red heavy strange new fine broken plain famous cheap lost golden little black ugly "
    "clean yellow pretty simple dark costly white round foreign narrow blue pale".split()
)
ADVERBS = (
    "often always never rarely gladly slowly secretly sometimes proudly usually quickly seldom "
    "quietly eagerly carefully".split()
)
PREPOSITIONS = "near behind from beyond under inside beside outside".split()
PLACES = (
    "harbour village market river castle forest church valley inn hill garden island road farm "
    "station school square palace desert lake cellar temple mountain beach border meadow port "
    "swamp orchard canyon".split()
)
PLACE_ADJECTIVES = (
    "quiet distant busy ancient green northern hidden windy sunny crowded lonely snowy misty holy "
    "empty ruined".split()
)
TIMES = (
    "today again together tonight alone daily yearly sunday monday tuesday wednesday thursday "
    "friday saturday".split()
)


class Writer:
    """Draws words, and keeps count of how probable what it drew was.

    Only `Random.random` is used: its numbers are the same in every version of Python.
    """

    def __init__(self, seed):
        self._random = random.Random(seed).random
        self.nats = 0.0  # -log probability of all choices so far

    def pick(self, words):
        """Returns one of the words; the first is the likeliest: weights 1/4, 1/5, 1/6 …"""
        words = list(words)
        weights = [1 / (rank + 4) for rank in range(len(words))]
        total = math.fsum(weights)
        mark = self._random() * total
        i = 0
        while i < len(words) - 1 and mark >= weights[i]:
            mark -= weights[i]
            i += 1
        self.nats -= math.log(weights[i] / total)
        return words[i]

    def maybe(self, probability):
        """Returns True with this probability."""
        yes = self._random() < probability
        self.nats -= math.log(probability if yes else 1 - probability)
        return yes

    def sentence(self):
        """Returns a sentence, a list of words.

        Every choice shows in the words, so no sentence can be drawn in two ways, and the
        probability of the choices is the probability of the sentence.
        """
        people = self.pick(PEOPLE)
        kind, belongings = PEOPLE[people]
        words = [people]
        if self.maybe(0.5):
            words += self.place()
        words += self.action(kind)
        if self.maybe(0.3):
            words += ["and", *self.action(kind)]
        if self.maybe(0.3):
            words += [self.pick(TIMES)]
        return [*words, "with", "their", belongings]

    def action(self, kind):
        """Returns what people do, most often to a thing of their kind."""
        words = [self.pick(ADVERBS)] if self.maybe(0.4) else []
        if self.maybe(0.3):
            return [*words, self.pick(INTRANSITIVE)]
        if not self.maybe(0.7):
            kind = self.pick(other for other in KINDS if other != kind)
        verbs, nouns = KINDS[kind]
        words += [self.pick(verbs), self.pick(DETERMINERS)]
        if self.maybe(0.6):
            words += [self.pick(ADJECTIVES)]
        return [*words, self.pick(nouns)]

    def place(self):
        """Returns where: a preposition, an article, an adjective or none, a place."""
        words = [self.pick(PREPOSITIONS), "the"]
        if self.maybe(0.5):
            words += [self.pick(PLACE_ADJECTIVES)]
        return [*words, self.pick(PLACES)]


def make(seed, sizes):
    """Returns {part: (text, perplexity of the source on it)}, parts cut at a sentence's end."""
    writer = Writer(seed)
    parts = {}
    for part, size in sizes.items():
        lines, words, writer.nats = [], 0, 0.0
        while words < size:
            sentence = writer.sentence()
            lines.append(" ".join(sentence) + "\n")
            words += len(sentence) + 1  # the line end, which the last word makes certain
        parts[part] = "".join(lines), math.exp(writer.nats / words)
    return parts


def trigram_perplexities(train, valid, *texts):
    """Returns the perplexity of an interpolated trigram model on each text, valid first.

    p(w | u, v) = a3 p3(w | u, v) + a2 p2(w | v) + a1 p1(w) + a0 / types, relative frequencies in
    train; the weights a are those that suit valid best (expectation maximization; Jelinek and
    Mercer 1980). Where u v or v was not seen in train, the other weights share its part.
    """
    train, valid, *texts = (
        text.replace("\n", " <eos> ").split() for text in (train, valid, *texts)
    )
    counts = collections.Counter()
    contexts = collections.Counter()
    for n in (1, 2, 3):
        grams = list(zip(*(train[i:] for i in range(n))))
        counts.update(grams)
        contexts.update(gram[:-1] for gram in grams)
    types = len(set(train)) + 1  # and <unk>

    def estimates(text):
        """Yields, for each word but the first two, its four estimates; None: context not seen."""
        for gram in zip(text, text[1:], text[2:]):
            yield [
                1 / types,
                *(
                    counts[gram[-n:]] / contexts[gram[-n:-1]] if contexts[gram[-n:-1]] else None
                    for n in (1, 2, 3)
                ),
            ]

    def shares(weights, estimate):
        """Returns each estimate's part in the word's probability."""
        total = sum(w for w, p in zip(weights, estimate) if p is not None)
        return [w / total * p if p is not None else 0.0 for w, p in zip(weights, estimate)]

    weights = [0.25] * 4
    tuning = list(estimates(valid))
    for _ in range(30):
        sums = [0.0] * 4
        for estimate in tuning:
            parts = shares(weights, estimate)
            total = sum(parts)
            sums = [s + part / total for s, part in zip(sums, parts)]
        weights = [s / len(tuning) for s in sums]

    def perplexity(text):
        nats = [-math.log(sum(shares(weights, estimate))) for estimate in estimates(text)]
        return math.exp(math.fsum(nats) / len(nats))

    return [perplexity(text) for text in (valid, *texts)]


def main():
    """Writes the corpus and prints the two perplexities."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sample")
    parser.add_argument("--folder", default=folder, help="where to write the three files")
    folder = parser.parse_args().folder
    os.makedirs(folder, exist_ok=True)
    parts = make(SEED, SIZES)
    for part, (text, _) in parts.items():
        with open(os.path.join(folder, f"ptb.{part}.txt"), "w", encoding="utf-8", newline="") as f:
            f.write(text)
    texts = {part: text for part, (text, _) in parts.items()}
    trigrams = trigram_perplexities(texts["train"], texts["valid"], texts["test"])
    for part, trigram in zip(("valid", "test"), trigrams):
        print(f"{part}: source {parts[part][1]:.3f}, trigram {trigram:.3f}")


if __name__ == "__main__":
    main()
