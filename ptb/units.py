"""Looks for units of a trained model that follow something which people have a word for.

Karpathy, Johnson and Fei-Fei found such units in models of characters: one counted how long the
line was, one was on between quotation marks ("Visualizing and Understanding Recurrent Networks",
arXiv 1506.02078). Here the cell state of every unit is compared with three things that a line of
text has at each of its words:

    position  log(1 + n), where the word is the n-th of its line; the logarithm, because the fifth
              word differs more from the first than the thirtieth from the twenty-sixth
    length    the number of characters of the line so far, the spaces between its words included
    unk       1 within `<unk>`, else 0

A line begins with the `<eos>` that ends the line before it: there all three are 0.
"""

import typing

import numpy as np

from ptb.reader import EOS, UNK
from ptb.terminal.errors import UserError
from ptb.terminal.progress import Progress, counted

EXPLANATIONS = "position", "length", "unk"
ROWS = 100  # at most so many parts of a text are read side by side
LINES_A_ROW = 20  # each part has at least so many lines, if the text has
FEWEST_WORDS = 100  # fewer would make some unit of many follow anything by chance
SPELLED_UNK = [*UNK]  # as a text of characters has it


class Unit(typing.NamedTuple):
    """A unit and what explains its cell state best."""

    layer: int  # counted from 1; the first layer is the one that reads the words
    number: int  # counted from 1 in its layer
    explained_by: str  # one of EXPLANATIONS
    correlation: float  # Pearson's, from -1 to 1


def as_read(model, words):
    """Returns the words of a text with `<unk>` for those that a model does not know."""
    known = {*model.vocabulary, EOS}
    return [word if word in known else UNK for word in words]


def explained(words):
    """Returns the three EXPLANATIONS at each word, float64 [len(words), 3]."""
    numbers = np.zeros([len(words), len(EXPLANATIONS)])
    position = length = 0
    for i, word in enumerate(words):
        if word == EOS:
            position = length = 0
        else:
            length += len(word) + (position > 0)
            position += 1
        numbers[i, :2] = np.log1p(position), length
        if word == UNK:
            numbers[i, 2] = 1
        elif words[i : i + len(SPELLED_UNK)] == SPELLED_UNK:
            numbers[i : i + len(SPELLED_UNK), 2] = 1
    return numbers


def best_explained(model, words, by=None, count=10):
    """Returns the units whose cell state is best explained along a text, the best first.

    The text is read in up to ROWS parts side by side. Each part starts as a prompt does, from the
    zero state and with `<eos>`, and its state is carried from line to line.

    Args:
      model: a LanguageModel.
      words: the text as reader.split_words returns it.
      by: the one of EXPLANATIONS to compare with; None is all three.
      count: how many units to return, at most.

    Returns:
      A list of Unit, each unit once, by falling magnitude of its correlation. Units whose cell
      state never changes are left out.

    Raises:
      UserError: the text has fewer than FEWEST_WORDS words, or there is nothing to compare.
    """
    if len(words) < FEWEST_WORDS:
        raise UserError(
            f"the text has {counted(len(words), 'word')}; to find units takes {FEWEST_WORDS} or "
            "more"
        )
    correlations = _correlations(model, parts_of(as_read(model, words)))
    magnitudes = np.nan_to_num(np.abs(correlations))
    if by is not None:
        magnitudes[[name != by for name in EXPLANATIONS]] = 0
    strongest = magnitudes.max(axis=0)
    order = np.argsort(-strongest, axis=None, kind="stable")[:count]
    units = []
    for layer, number in np.transpose(np.unravel_index(order, strongest.shape)):
        if strongest[layer, number] > 0:
            best = magnitudes[:, layer, number].argmax()
            correlation = float(correlations[best, layer, number])
            units.append(Unit(int(layer) + 1, int(number) + 1, EXPLANATIONS[best], correlation))
    if not units:
        raise UserError(
            "there is nothing to compare: along the text no cell state changes, or no "
            + (by or " and no ".join(EXPLANATIONS))
        )
    return units


def parts_of(words):
    """Returns a text as parts of about as many lines, each a list of words that begins anew."""
    starts = [0, *(i for i, word in enumerate(words, start=1) if word == EOS and i < len(words))]
    num_parts = min(ROWS, max(1, len(starts) // LINES_A_ROW))
    starts = [starts[part * len(starts) // num_parts] for part in range(num_parts)]
    return [[EOS, *words[start:end]] for start, end in zip(starts, [*starts[1:], len(words)])]


def _correlations(model, parts):
    """Returns Pearson's correlation of each explanation with each unit's cell state over all words.

    The sums that it takes are added up while the text is read, and no cell state is kept. What is
    added up are differences from the first word's numbers: those of a unit that never changes are
    exactly 0, and its correlations are NaN.

    Returns:
      float64 [len(EXPLANATIONS), num_layers, hidden_size].
    """
    lengths = np.array([len(part) for part in parts])
    longest = max(map(len, parts))
    rows = [part + [EOS] * (longest - len(part)) for part in parts]
    numbers = np.array([explained(row) for row in rows])
    sums = [0.0] * 5
    with Progress("Reading", longest) as progress:
        for i, states in enumerate(model.cell_states(rows)):
            progress.update(i)
            is_text = lengths > i  # What fills the shorter rows up is not counted.
            y, c = numbers[is_text, i], np.float64(states[is_text]).reshape(is_text.sum(), -1)
            if i == 0:
                first = c[0]
            c = c - first
            terms = y.sum(axis=0), c.sum(axis=0), (y * y).sum(axis=0), (c * c).sum(axis=0), y.T @ c
            sums = [total + term for total, term in zip(sums, terms)]
    mean_y, mean_c, mean_yy, mean_cc, mean_yc = (total / lengths.sum() for total in sums)
    variances = np.outer(mean_yy - mean_y**2, mean_cc - mean_c**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        correlations = (mean_yc - np.outer(mean_y, mean_c)) / np.sqrt(variances)
    return correlations.reshape(-1, *states.shape[1:])
