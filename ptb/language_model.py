"""A trained model at work: the next word, a sentence's probability, generated text, like words.

    python -m ptb.language_model generate Out/small --prompt "the company said" --words 50
    python -m ptb.language_model next Out/small --prompt "the company said"
    python -m ptb.language_model score Out/small sentences.txt
    python -m ptb.language_model similar Out/small --word company

A model is the folder of a run of lstm.py, finished or not; --best takes the epoch with the lowest
valid perplexity in place of the last checkpoint. It can also be a checkpoint that the PTB
tutorial wrote under TensorFlow 1.x, such as model.ckpt-23239; that has no vocabulary with it, so
--data_path names the corpus it was trained on.

Several models know more than each of them. --average_with takes further ones, of any size but with
the same vocabulary, and the answer is the mean of their probabilities of each next word:

    python -m ptb.language_model score Out/a/small sentences.txt --average_with Out/b/small
"""

import collections
import contextlib
import functools
import io
import itertools
import sys
import types
import typing

import numpy as np

from ptb import reader, rnn
from ptb.evaluate import TextInput, perplexity, text_losses
from ptb.saving import files
from ptb.terminal import command_line
from ptb.terminal.corpus_notes import unseparated_words
from ptb.terminal.errors import UserError, shortened
from ptb.terminal.progress import Progress, counted
from ptb.terminal.quiet import refuse_forked, session_config, tf
from ptb.trained_model import read_models

SENTENCES_AT_ONCE = 80  # number of sentences that are scored side by side
WORDS_A_STEP = 5  # number of words of each of them that are read in one step
LONG_SENTENCE = 1000  # a sentence of more words is read as a text of its own
MATRICES = ("softmax_w", "embedding")  # the matrices in which each word has a vector
NO_WORDS = "no words to score; put one sentence on a line"
NOT_FINITE = (
    "what the model computes is not finite; lower learning_rate or max_grad_norm in configs.py, "
    "and train anew"
)


class LineScore(typing.NamedTuple):
    """The words of a line that are scored, and what the model says of each."""

    words: list
    log_probs: np.ndarray  # nats, float64
    unknown: np.ndarray  # whether each is outside the vocabulary


class LanguageModel(contextlib.AbstractContextManager):
    """Answers questions to a trained model; words are joined by spaces, a line end is `<eos>`.

        model = LanguageModel.load("Out/small")
        model.next_words("the company said")
        model.log_prob("the company said it will sell the unit")
        print(model.generate("the company said", words=50, seed=3))
        model.similar_words("company")
        LanguageModel.load(["Out/a/small", "Out/b/small"]).log_prob("the company said")

    A prompt or sentence starts from the zero state after `<eos>`, as a line of the corpus does.
    Words outside the vocabulary are read as `<unk>`; `unknown_words` tells which they are. In a
    vocabulary without `<unk>`, which a checkpoint of the tutorial may have, they are a UserError.

    Of several models it answers with the mean of their probabilities of each next word; one that is
    named twice counts twice. What only one model has, such as the words' vectors, is a UserError.

    TensorFlow cannot be forked: another process needs a model of its own, and has to be started
    with multiprocessing's method "spawn"; in a forked one every question is a UserError.

    Attributes:
      vocabulary: the words, by id.
      description: what was loaded, in one line; of several models there is one for each besides.
      configs: the sizes of the network (num_layers, hidden_size, vocab_size and others), by the
        scope of its variables: {"Model": sizes}; the others of several are "Model_1", "Model_2" …
    """

    @classmethod
    def load(cls, folder, data_path=None, best=False):
        """Returns the LanguageModel of a run's folder, or of a checkpoint of the tutorial.

        Args:
          folder: a run's folder, or a checkpoint in it; or the tutorial's checkpoint, as a path
            without .index, or a folder with such, of which the one of most steps is taken. Or a
            list of several of these, for their average.
          data_path: the corpus folder of the tutorial's checkpoints, for their vocabulary.
          best: whether to take, of a run's folder, the epoch with the lowest valid perplexity
            instead of the last checkpoint.

        Raises:
          UserError: there is no trained model, or not the corpus that goes with it; or several have
            different vocabularies.
        """
        models = read_models(folder, data_path, best)
        if data_path is not None and not any(model.is_tutorials for model in models):
            raise UserError(f"{models[0].path} has its own vocabulary; leave out --data_path")
        return cls(*models)

    def __init__(self, *models):
        """Makes it of one TrainedModel or several, whose vocabulary is the same."""
        first = models[0]
        self.vocabulary = first.vocabulary
        self.description = _description(models)
        self._ids = {word: i for i, word in enumerate(self.vocabulary)}
        self._unk = self._ids.get(reader.UNK)
        scopes = ["Model", *(f"Model_{number}" for number in range(1, len(models)))]
        a_step = {"batch_size": SENTENCES_AT_ONCE, "num_steps": WORDS_A_STEP}  # if not a run's
        self.configs = {
            scope: types.SimpleNamespace(**{**a_step, **model.config})
            for scope, model in zip(scopes, models)
        }
        self._networks = [
            rnn.Network(self.configs[scope], model.number_type, scope)
            for scope, model in zip(scopes, models)
        ]
        self._network = network = rnn.average(self._networks)
        self._graph = tf.Graph()
        with self._graph.as_default():
            self._one_word = _on_input(network, batch_size=1, num_steps=1)
            self._one_line = _on_input(network, batch_size=1, num_steps=WORDS_A_STEP)
            self._lines = _on_input(network, SENTENCES_AT_ONCE, WORDS_A_STEP)
            variables = tf.trainable_variables()
            self._variables = {variable.op.name: variable for variable in variables}
            self._opened = tf.Session(config=session_config())
            # One step sets all: each kind of step has TensorFlow go through the whole graph.
            self._session.run([variable.initializer for variable in variables], {
                self._variables[name.replace("Model", scope, 1)].initial_value: value
                for scope, model in zip(scopes, models) for name, value in model.values.items()
            })

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Frees the memory of the model, which cannot be asked any more."""
        self._opened.close()

    @property
    def config(self):
        """The sizes of the network of one model; see configs."""
        self._refuse_average("the sizes of a network")
        return self.configs["Model"]

    @property
    def _session(self):
        """The session, which a forked process cannot ask; UserError there."""
        refuse_forked()
        return self._opened

    def _refuse_average(self, what):
        """Raises UserError where several models are asked for what only one has."""
        if len(self.configs) > 1:
            raise UserError(f"{what} are of one model, not of an average; load one model alone")

    @functools.cached_property
    def _texts(self):
        """The models on the rows and steps of their runs; only a text that is scored needs them.

        Each model reads a text by itself and so gives the very numbers that it gives alone: they
        depend a little on how many words are read side by side.
        """
        with self._graph.as_default():
            return [
                _on_input(network, config.batch_size, config.num_steps)
                for network, config in zip(self._networks, self.configs.values())
            ]

    @functools.cached_property
    def _one_step(self):
        """The LSTM at one time step, for any number of rows; only who looks inside needs it."""
        self._refuse_average("gates and cell states")
        with self._graph.as_default():
            ids = tf.placeholder(tf.int32, [None], "ids")
            initial_state = self._network.zero_state(tf.shape(ids)[0])
            gates = self._network.gates(ids, initial_state)
        return types.SimpleNamespace(ids=ids, initial_state=initial_state, gates=gates)

    def next_words(self, prompt, top_k=10):
        """Returns the top_k likeliest next words as [(word, probability)], the likeliest first.

        Raises UserError for a prompt without words, or a top_k below 1.
        """
        _check(top_k >= 1, "top_k", top_k, "at least 1")
        logits, _ = self._read(self._prompt_ids(prompt))
        probabilities = np.exp(logits - np.logaddexp.reduce(logits))[: len(self.vocabulary)]
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        return [(self.vocabulary[i], float(probabilities[i])) for i in order]

    def log_prob(self, sentences):
        """Returns the log probability (nats) of a sentence, its closing `<eos>` included.

        Args:
          sentences: a sentence; or a list of them, for an array of as many.
        """
        if isinstance(sentences, str):
            return self.log_prob([sentences])[0]
        scores = self._sentence_scores([reader.split_words(sentence) for sentence in sentences])
        return np.array([score.log_probs.sum() for score in scores])

    def word_log_probs(self, sentence):
        """Returns [(word, log probability in nats)] of a sentence and its closing `<eos>`.

        The words are as written; they add up to log_prob of the sentence.
        """
        score, = self._sentence_scores([reader.split_words(sentence)])
        return [*zip(score.words, score.log_probs.tolist())]

    def generate(self, prompt, words=50, temperature=1.0, top_k=None, no_unk=False, seed=1):
        """Returns the prompt and that many words after it, one drawn after the other.

        Args:
          prompt: the words to go on from; `<eos>` alone starts at the beginning of a line.
          words: how many to draw.
          temperature: a word's probability is raised to 1 / temperature; 0 always takes the
            likeliest word.
          top_k: draw among the likeliest words only, this many.
          no_unk: never draw `<unk>`.
          seed: decides the draw; the same seed, the same text.

        Raises UserError for a prompt without words, or a number out of its range.
        """
        _check(words >= 1, "words", words, "at least 1")
        _check(seed >= 0, "seed", seed, "at least 0")
        _check(0 <= temperature < np.inf, "temperature", temperature, "a finite number from 0 on")
        _check(top_k is None or top_k >= 1, "top_k", top_k, "at least 1")
        rng = np.random.default_rng(seed)
        text, num_read, state = self._prompt_ids(prompt), 0, None
        for _ in range(words):
            logits, state = self._read(text[num_read:], state)
            num_read = len(text)
            text.append(self._draw(logits, temperature, top_k, no_unk, rng))
        lines = [[]]
        for i in text[1:]:
            if self.vocabulary[i] == reader.EOS:
                lines.append([])
            else:
                lines[-1].append(self.vocabulary[i])
        return "\n".join(map(" ".join, lines))

    def score(self, text, stream=False):
        """Scores a text line by line.

        Args:
          text: the text, or a list of its words with `<eos>` at the end of every line.
          stream: carry the state through the text, whose first word is then not scored; otherwise
            each line is scored on its own.

        Returns:
          For each line (log probability in nats, words scored, unknown words among these).

        Raises UserError for a text without words to score.
        """
        return [
            (float(score.log_probs.sum()), len(score.words), int(score.unknown.sum()))
            for score in self.score_words(text, stream)
        ]

    def score_words(self, text, stream=False, first_line=1):
        """Scores a text line by line and word by word.

        Args:
          text, stream: see score.
          first_line: the number that a message gives the first line.

        Returns:
          The LineScore of each line. A line on its own is closed with an `<eos>`, unless it ends in
          one that is written out; with `stream` the words are what training reads, to the last.

        Raises UserError for a text without words to score.
        """
        if isinstance(text, str):
            lines = [reader.split_words(line) for line in io.StringIO(text, newline="\n")]
        else:
            lines = _lines(text)
        if not (any(lines) if stream else lines):
            raise UserError(NO_WORDS)
        if not stream:
            lines = [line[:-1] if line[-2:] == [reader.EOS] * 2 else line for line in lines]
            return self._sentence_scores(lines, first_line)
        words = [*itertools.chain.from_iterable(lines)]
        ids, unknown = self._to_ids(words, first_line)
        log_probs = -self._text_losses(ids).astype(np.float64)
        scores, start = [], 1
        for end in itertools.accumulate(map(len, lines)):
            scores.append(LineScore(
                words[start:end], log_probs[start - 1 : end - 1], unknown[start:end]
            ))
            start = max(start, end)
        return scores

    def _sentence_scores(self, sentences, first_line=1):
        """Returns the LineScore of each sentence, a list of words, closed with an `<eos>`."""
        end = [reader.EOS]
        sentences = [words if words[-1:] == end else [*words, *end] for words in sentences]
        ids, unknown = [], []
        for line, words in enumerate(sentences, start=first_line):
            line_ids, line_unknown = self._to_ids(words, line)
            ids.append(line_ids)
            unknown.append(line_unknown)
        return [
            LineScore(words, -losses.astype(np.float64), its_unknown)
            for words, losses, its_unknown in zip(sentences, self._line_losses(ids), unknown)
        ]

    def surprises(self, prompt):
        """Returns how much each word of a prompt surprises the model, given those before it.

        Returns:
          [(word as it is read, its surprise -log2 p in bits, the likeliest word in its place, the
          probability of that)] for each word after the `<eos>` that a prompt begins with.

        Raises UserError for a prompt without words.
        """
        ids = self._prompt_ids(prompt)
        found, state = [], None
        for i, following in zip(ids, ids[1:]):
            logits, state = self._read([i], state)
            log_probs = logits - np.logaddexp.reduce(logits)
            likeliest = int(log_probs[: len(self.vocabulary)].argmax())
            found.append((
                self.vocabulary[following], float(-log_probs[following] / np.log(2)),
                self.vocabulary[likeliest], float(np.exp(log_probs[likeliest])),
            ))
        return found

    def gates(self, prompt):
        """Returns what every unit computes at every word of a prompt, as an rnn.Gates of arrays.

        All are float32 [num_layers, num_words, hidden_size]. The first word is the `<eos>` that a
        prompt begins with, and the first layer is the one that reads the words.

            forget_gate   from 0 (the unit's cell state is dropped) to 1 (it is kept)
            input_gate    from 0 (nothing of the candidate is added to it) to 1 (all of it)
            candidate     from -1 to 1: what may be added
            cell_state    forget_gate * cell_state of the word before + input_gate * candidate
            output_gate   from 0 (the unit says nothing) to 1
            output        output_gate * tanh(cell_state), from -1 to 1

        Raises UserError for a prompt without words.
        """
        words = [*self._look_inside(np.array([self._prompt_ids(prompt)]))]
        return rnn.Gates(*np.array(words, np.float32)[..., 0, :].transpose(2, 1, 0, 3))

    def cell_states(self, rows):
        """Yields the cell states, float32 [num_rows, num_layers, hidden_size], word by word.

        Args:
          rows: lists of words, all of one length, that are read side by side from the zero state.
        """
        for gates in self._look_inside(np.array([self._to_ids(row)[0] for row in rows])):
            yield np.stack([layer.cell_state for layer in gates], axis=1).astype(np.float32)

    def _look_inside(self, rows):
        """Yields each layer's rnn.Gates of arrays [num_rows, hidden_size], word by word.

        Args:
          rows: ids [num_rows, num_words], read from the zero state.
        """
        step, feed_dict = self._one_step, {}
        for ids in rows.T:
            gates = self._session.run(step.gates, {step.ids: ids, **feed_dict})
            for (c, h), layer in zip(step.initial_state, gates):
                feed_dict.update({c: layer.cell_state, h: layer.output})
                _check_finite(layer.cell_state)
            yield gates

    def unknown_words(self, text):
        """Returns which words of a text, or list of words, are not in the vocabulary, each once."""
        words = reader.split_words(text) if isinstance(text, str) else text
        return [*dict.fromkeys(word for word in words if word not in self._ids)]

    def weights(self):
        """Returns the variables, {name: float32 array}; a name begins with its scope in configs."""
        return self._session.run(self._variables)

    def vectors(self, matrix="softmax_w"):
        """Returns the vector of each word of the vocabulary: float32 [words, hidden_size].

        Args:
          matrix: "softmax_w" for the vectors by which the words are predicted, the columns of that
            matrix; or "embedding" for those by which they are read.

        Raises UserError for another matrix, or for several models.
        """
        self._refuse_average("the words' vectors")
        _check(matrix in MATRICES, "matrix", matrix, " or ".join(MATRICES))
        value = self._session.run(self._variables[f"Model/{matrix}"])
        return (value.T if matrix == "softmax_w" else value)[: len(self.vocabulary)]

    def similar_words(self, word, top_k=10, matrix="softmax_w"):
        """Returns the top_k words whose vectors are nearest to a word's, the nearest first.

        Args:
          word: a word of the vocabulary; it is not among the words found.
          top_k: how many words.
          matrix: whose vectors; see the method vectors.

        Returns:
          [(word, cosine of the angle between the two vectors)].

        Raises UserError for a word outside the vocabulary, a top_k below 1 or another matrix.
        """
        _check(top_k >= 1, "top_k", top_k, "at least 1")
        if word not in self._ids:
            raise UserError(f"'{word}' is not in the vocabulary; write it as the corpus does")
        vectors = self.vectors(matrix)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.maximum(norms, np.finfo(np.float32).tiny)  # A norm may be 0.
        cosines = vectors @ vectors[self._ids[word]]
        order = np.argsort(-cosines, kind="stable")
        order = order[order != self._ids[word]][:top_k]
        return [(self.vocabulary[i], float(cosines[i])) for i in order]

    def _to_ids(self, words, line=1, name="the text"):
        """Returns (ids, whether each is of an unknown word): arrays.

        `<eos>` is such a word where the corpus had no line end. Where there is no `<unk>` to stand
        for a word, the UserError has the name of the text, and counts from the number of its line.
        """
        ids = np.fromiter(reader.word_ids(words, self._ids, name, line), np.int32)
        unknown = np.fromiter((word not in self._ids for word in words), bool)
        return ids, unknown

    def _prompt_ids(self, prompt):
        words = reader.split_words(prompt)
        if not words:
            raise UserError("the prompt has no words; '<eos>' starts a new line")
        ids = [*self._to_ids(words, name="the prompt")[0]]
        return ids if words[0] == reader.EOS else [*self._to_ids([reader.EOS])[0], *ids]

    def _read(self, ids, state=None):
        """Reads ids on from a state; returns the logits after the last, and the state there."""
        model = self._one_word
        for i in ids:
            feed_dict = {model.input.input_data: [[i]]}
            if state is not None:
                feed_dict.update(zip(tf.nest.flatten(model.initial_state), state))
            logits, state = self._session.run([model.logits, model.final_state], feed_dict)
            state = tf.nest.flatten(state)
        _check_finite(logits)
        return logits[0].astype(np.float64), state

    def _draw(self, logits, temperature, top_k, no_unk, rng):
        """Returns the id of the next word, drawn from the softmax of logits / temperature."""
        logits = logits[: len(self.vocabulary)]
        if no_unk and self._unk is not None:
            if len(logits) == 1:
                raise UserError(f"the vocabulary has no word but {reader.UNK}; allow it")
            logits[self._unk] = -np.inf
        if temperature == 0:
            return int(logits.argmax())
        if top_k is not None:
            logits[np.argsort(-logits, kind="stable")[top_k:]] = -np.inf
        with np.errstate(over="ignore"):  # A temperature near 0 makes all but the largest -inf.
            weights = np.exp((logits - logits.max()) / temperature)
        return int(rng.choice(len(weights), p=weights / weights.sum()))

    def _text_losses(self, ids):
        """Returns the loss (nats) of every word of a text but the first, its state carried."""
        if len(ids) < 2:
            raise UserError("a single word: the first of a text is not scored; give more")
        losses = []
        for model in self._texts:
            model.input.data = ids
            try:
                losses.append(text_losses(self._session, model).astype(np.float64))
            except FloatingPointError as error:
                raise UserError(NOT_FINITE) from error
        # The loss of the mean probability; see rnn.log_of_mean.
        least = np.min(losses, axis=0)
        return least - np.log(np.mean(np.exp(least - losses), axis=0))

    def _line_losses(self, lines):
        """Returns the loss (nats) of every word of each line, read from `<eos>` on: arrays."""
        eos = self._to_ids([reader.EOS])[0]
        order = sorted(range(len(lines)), key=lambda number: len(lines[number]))
        losses = [None] * len(lines)
        with Progress("Scoring", len(lines)) as progress:
            while order and len(lines[order[-1]]) > LONG_SENTENCE:
                number = order.pop()
                losses[number] = self._text_losses(np.concatenate([eos, lines[number]]))
            # The answer to a line that comes alone would take many times as long among empty rows.
            model = self._one_line if len(lines) == 1 else self._lines
            rows = model.input.batch_size
            for start in range(0, len(order), rows):
                progress.update(start)
                numbers = order[start : start + rows]
                found = self._side_by_side(model, [lines[number] for number in numbers], eos)
                for number, loss in zip(numbers, found):
                    losses[number] = loss
        return losses

    def _side_by_side(self, model, lines, eos):
        """Returns the losses of lines, at most as many as a model's input has rows.

        Where a line ends before the others, what its row reads after that counts for nothing.
        """
        rows, num_steps = model.input.batch_size, model.input.num_steps
        steps = -(-max(map(len, lines)) // num_steps)
        text = np.full((rows, steps * num_steps + 1), eos, np.int32)
        for row, line in zip(text, lines):
            row[1 : len(line) + 1] = line
        found, state = [], ()
        for step in range(steps):
            part = text[:, step * num_steps : (step + 1) * num_steps + 1]
            feed_dict = {model.input.input_data: part[:, :-1], model.input.targets: part[:, 1:]}
            feed_dict.update(zip(tf.nest.flatten(model.initial_state), state))
            loss, state = self._session.run([model.loss, model.final_state], feed_dict)
            state = tf.nest.flatten(state)
            found.append(loss.reshape(rows, num_steps))
        found = _check_finite(np.hstack(found))
        return [row[: len(line)] for row, line in zip(found, lines)]


def _on_input(network, batch_size, num_steps):
    """Returns a network as text_losses wants a model, and its logits [n, vocab_size]."""
    input_ = TextInput(types.SimpleNamespace(batch_size=batch_size, num_steps=num_steps))
    initial_state = network.zero_state(batch_size)
    output, final_state = network.unroll(input_.input_data, initial_state)
    return types.SimpleNamespace(
        input=input_, initial_state=initial_state, final_state=final_state,
        logits=network.logits(output), loss=network.loss(output, input_.targets, fast=True),
    )


def _description(models):
    """Returns what is said of the TrainedModels of which a LanguageModel is made."""
    if len(models) == 1:
        return models[0].description
    counts = collections.Counter(model.description for model in models)
    lines = [f"The average of {len(models)} models:"]
    for description, count in counts.items():
        lines.append(description if count == 1 else f"{description}, counted {count} times")
    return "\n".join(lines)


def _lines(words):
    """Returns the lines of a list of words, each with the `<eos>` at its end."""
    ends = [i for i, word in enumerate(words, start=1) if word == reader.EOS]
    lines = [words[start:end] for start, end in zip([0, *ends], [*ends, len(words)])]
    return lines if lines[-1] else lines[:-1]


def _check_finite(numbers):
    """Returns the numbers.

    Raises UserError where they are not all finite.
    """
    if not np.isfinite(numbers).all():
        raise UserError(NOT_FINITE)
    return numbers


def _check(right, name, value, allowed):
    if not right:
        raise UserError(f"{name} is {value}; it must be {allowed}")


@contextlib.contextmanager
def model_of(args):
    """Yields the LanguageModel that the arguments of Parser.add_model name, and says what it is."""
    folders = [args.model, *args.average_with]
    with LanguageModel.load(folders, args.data_path, args.best) as model:
        print(model.description, file=sys.stderr)
        yield model


def say_unknown(model, text):
    """Prints on stderr which words of a text, or list of words, the model reads as `<unk>`.

    Where one of them seems to be several words without spaces, that is said, too.
    """
    unknown = model.unknown_words(text)
    if unknown and reader.UNK in model.vocabulary:
        shown = ", ".join(map(shortened, unknown[:10])) + (", …" if len(unknown) > 10 else "")
        print(f"Not in the vocabulary, read as {reader.UNK}: {shown}", file=sys.stderr)
        lines = map(reader.split_words, text.split("\n")) if isinstance(text, str) else [[*text]]
        joined = itertools.chain.from_iterable(map(unseparated_words, lines))
        example = next((word for word in joined if word in unknown), None)
        if example:
            print(f"{shortened(example)} is read as one word; put plain spaces between words, as "
                  "the corpus has them", file=sys.stderr)


def _generate(model, args):
    say_unknown(model, args.prompt)
    print(model.generate(
        args.prompt, args.words, args.temperature, args.top_k, args.no_unk, args.seed
    ))


def _next(model, args):
    say_unknown(model, args.prompt)
    for word, probability in model.next_words(args.prompt, args.top_k):
        # Among very many words even the likeliest may have less than the last of four decimals.
        shown = f"{probability:8.4f}" if probability >= 0.001 else f"{probability:8.2e}"
        print(f"{shown}  {word}")


def _similar(model, args):
    for word, cosine in model.similar_words(args.word, args.top_k, args.matrix):
        print(f"{cosine:8.4f}  {word}")


def _score(model, args):
    header = "line log_prob words perplexity unknown"
    if args.per_word:
        header = "line position word log_prob unknown"
    header = header.replace(" ", "\t")
    if args.file == "-":
        print(header)  # Another program may wait for it before it writes its first line.
    totals, unknown_words, line = np.zeros(4), {}, 0
    for line, score in _line_scores(model, args):
        if line == 1 and args.file != "-":
            print(header)
        counts = _counts(score)
        totals += counts
        unknown_words.update(dict.fromkeys(itertools.compress(score.words, score.unknown)))
        if args.per_word:
            first = 2 if args.stream and line == 1 else 1
            for position, (word, log_prob, unknown) in enumerate(zip(*score), start=first):
                print(line, position, word, f"{log_prob:.4f}", int(unknown), sep="\t")
        else:
            _print_row(line, counts)
    if not line:
        raise UserError(NO_WORDS)
    if not args.per_word:
        _print_row("total", totals)
    say_unknown(model, unknown_words)
    log_prob, words, known_log_prob, unknown = totals
    known = words - unknown
    print(
        f"Perplexity of all {counted(int(words), 'word')}: {_shown_perplexity(log_prob, words)}; "
        f"of the {int(known):,} known: {_shown_perplexity(known_log_prob, known)}; "
        f"{int(unknown):,} unknown",
        file=sys.stderr,
    )


def _line_scores(model, args):
    """Yields (number, LineScore) of each line, as soon as it has come; with --stream at the end."""
    pieces = reader.read_lines(0 if args.file == "-" else files.local_path(args.file))
    if args.stream:
        pieces = [[*itertools.chain.from_iterable(pieces)]]
    first_line = 1
    for lines in pieces:
        scores = model.score_words("".join(lines), args.stream, first_line)
        yield from enumerate(scores, start=first_line)
        first_line += len(scores)


def _counts(score):
    """Returns (log probability, words, log probability of those known, unknown words): an array."""
    log_probs, unknown = score.log_probs, score.unknown
    return np.array([log_probs.sum(), len(unknown), log_probs[~unknown].sum(), unknown.sum()])


def _print_row(name, counts):
    """Prints a row of the table of score."""
    log_prob, words, _, unknown = counts
    shown = _shown_perplexity(log_prob, words)
    print(name, f"{log_prob:.4f}", int(words), shown, int(unknown), sep="\t")


def _shown_perplexity(log_prob, words):
    """Returns the perplexity of so many words as score prints it."""
    return f"{perplexity(-log_prob, words):.3f}" if words else "nan"


def _parser():
    parser = command_line.Parser(prog="python -m ptb.language_model", description=__doc__)

    def command(function, help_, of_one=False):
        added = parser.command(function, help_)
        added.add_model(of_one)
        return added

    generate = command(_generate, "Goes on from a prompt, word by word.")
    generate.add_argument("--prompt", required=True, help="the words to go on from")
    generate.add_argument("--words", type=int, default=50, help="how many words to add (50)")
    generate.add_argument("--temperature", type=float, default=1.0,
                          help="below 1 likelier words, 0 always the likeliest (1.0)")
    generate.add_argument("--top_k", type=int, help="draw among so many likeliest words only")
    generate.add_argument("--no_unk", action="store_true", help="never draw <unk>")
    generate.add_argument("--seed", type=int, default=1, help="the same seed, the same text (1)")

    next_ = command(_next, "Prints the likeliest next words with their probabilities.")
    next_.add_argument("--prompt", required=True, help="the words before")
    next_.add_argument("--top_k", type=int, default=10, help="how many words (10)")

    score = command(_score, "Prints the log probability (nats) of each line of a text.")
    score.add_argument("file", help="a text file, or - for stdin")
    score.add_argument("--stream", action="store_true",
                       help="carry the state through the text, as the test of a run does")
    score.add_argument("--per_word", action="store_true", help="print a row for each word")

    similar = command(_similar, "Prints the words with the vectors nearest to a word's, by cosine.",
                      of_one=True)
    similar.add_argument("--word", required=True, help="the word")
    similar.add_argument("--top_k", type=int, default=10, help="how many words (10)")
    similar.add_argument("--matrix", choices=MATRICES, default="softmax_w",
                         help="whose vectors to compare (softmax_w)")
    return parser


def main(argv=None):
    """Runs the command line of this module."""
    with command_line.errors_in_one_line("language_model.py"):
        args = _parser().parse_args(argv)
        with model_of(args) as model:
            args.function(model, args)


if __name__ == "__main__":
    main()
