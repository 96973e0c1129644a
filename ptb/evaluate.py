"""The probability of a whole text: what one word at a time would give, many words at a time."""

import numpy as np

from ptb import reader
from ptb.terminal.progress import Progress
from ptb.terminal.quiet import tf

# Two states count as equal within this tolerance, relative and absolute. It is about 84 units in
# the last place of a float32, a little more than what rounding alone does to a state.
TOLERANCE = 1e-5
KEPT_STEPS = 256  # states are kept for comparison after so many steps only, to bound the memory


class TextInput:
    """The input of a model that evaluates a whole text; a PTBInput that drops no word.

    The text is cut into `config.batch_size` rows, each going on where the one above ends. Without
    `data` it is for whoever feeds the placeholders.

    Raises UserError (a ValueError) where the text has no word to predict.
    """

    def __init__(self, config, data=None, name="TextInput"):
        if data is not None:
            reader.refuse_too_short_to_score(name, data)
        self.batch_size = config.batch_size
        self.num_steps = config.num_steps
        self.data = data
        shape = [self.batch_size, self.num_steps]
        with tf.name_scope(name):
            self.input_data = tf.placeholder(tf.int32, shape, "x")
            self.targets = tf.placeholder(tf.int32, shape, "y")


def text_losses(session, model, after_step=lambda: None):
    """Returns the negative log probability (nats) of every word but the first: float32 [n - 1].

    The model reads the text in one go, from the zero state. To read its rows side by side, the
    state at the start of each has to be known, which is the one at the end of the row above. So all
    start from zero first, and then again from the states found at the ends. The first row is right
    from the start, the second in the second round, and so on: after as many rounds as rows all
    would be right, whatever the model. But an LSTM soon forgets where it started, so that less is
    enough. A round ends where its states are those of the round before, as its losses would be,
    too; and the last round is the one that leaves the states at the starts as they were. States
    count as the same within TOLERANCE, so the losses are not exact to the last digit.

    Args:
      session: the session.
      model: a PTBModel, not training, on a TextInput.
      after_step: a function that is called after each step.

    Raises:
      FloatingPointError: a loss is NaN or infinite.
    """
    rows, num_steps = model.input.batch_size, model.input.num_steps
    num_words = len(model.input.data) - 1
    steps = -(-num_words // (rows * num_steps))
    text = np.zeros(rows * steps * num_steps + 1, np.int32)
    text[: num_words + 1] = model.input.data
    x, y = text[:-1].reshape(rows, -1), text[1:].reshape(rows, -1)
    losses = np.zeros(x.shape, np.float32)
    fetches = {"loss": model.loss, "final_state": model.final_state}
    states = {}  # {step: the state after it} in the last round

    def read(state):
        """Reads the rows from a state on; returns the states at their ends."""
        for step in range(steps):
            progress.update(step)
            columns = slice(step * num_steps, (step + 1) * num_steps)
            feed_dict = {model.input.input_data: x[:, columns], model.input.targets: y[:, columns]}
            feed_dict.update(zip(tf.nest.flatten(model.initial_state), state))
            vals = session.run(fetches, feed_dict)
            state = tf.nest.flatten(vals["final_state"])
            losses[:, columns] = vals["loss"].reshape(rows, num_steps)
            if not np.isfinite(vals["loss"]).all():
                raise FloatingPointError(f"a loss is not finite at step {step} of {steps}")
            after_step()
            if step in states and _close(states[step], state):
                return states[steps - 1]
            if step < KEPT_STEPS or step == steps - 1:
                states[step] = state
        return state

    zero = start = tf.nest.flatten(session.run(model.initial_state))
    with Progress("Evaluating", steps) as progress:
        for _ in range(rows):
            end = read(start)
            next_start = [np.vstack([first[:1], last[:-1]]) for first, last in zip(zero, end)]
            if _close(start, next_start):
                break
            start = next_start

    return losses.reshape(-1)[:num_words]


def text_perplexity(session, model, after_step=lambda: None):
    """Returns the perplexity of the text of a model's TextInput; see text_losses."""
    losses = text_losses(session, model, after_step)
    return perplexity(losses.sum(dtype=np.float64), len(losses))


def perplexity(nats, num_words):
    """Returns exp(nats / num_words); infinity where that is too large for a float.

    Args:
      nats: the sum of the negative log probabilities of words; in training, of an average row.
      num_words: how many words these are; in training, those of one row.
    """
    with np.errstate(over="ignore"):
        return float(np.exp(nats / num_words))


def _close(states, others):
    """Returns whether two lists of arrays are equal within TOLERANCE."""
    return all(
        np.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE) for a, b in zip(states, others)
    )
