"""A whole text at once, against one word at a time."""

import models
import numpy as np
import numpy_lstm
import pytest
from models import TinyConfig

from ptb import evaluate
from ptb.terminal.errors import UserError

IDS = np.random.default_rng(1).integers(0, 30, 400)


def one_by_one(params, ids):
    """Returns the reference's loss of every word but the first, its state carried through."""
    state = numpy_lstm.zero_state(params, 1)
    losses = []
    for x, y in zip(ids[:-1], ids[1:]):
        cost, state, _ = numpy_lstm.step(params, np.array([[x]]), np.array([[y]]), state)
        losses.append(cost)
    return np.array(losses)


def text_model(ids, **fields):
    """The models of a TinyConfig with other values; the text of the test model is `ids`."""
    config = type("SomeConfig", (TinyConfig,), fields)()
    return models.built(config, IDS, test_ids=ids)


class Counted:
    """A session that counts its runs."""

    def __init__(self, session):
        self.session = session
        self.runs = 0

    def run(self, *args):
        self.runs += 1
        return self.session.run(*args)


# Rows of 3 words a step: less than a step, rows left empty, whole steps, a word less, a word more.
@pytest.mark.parametrize("words", [2, 3, 12, 13, 14, 25, 169, 250])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_loss_is_that_of_one_word_at_a_time(words, batch_size):
    with text_model(IDS[:words], batch_size=batch_size) as (session, _, _, model):
        params = models.as_params(models.variables(session), 2)
        losses = evaluate.text_losses(session, model)
        perplexity = evaluate.text_perplexity(session, model)
    expected = one_by_one(params, IDS[:words])
    assert losses.shape == expected.shape == (words - 1,)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert perplexity == pytest.approx(np.exp(expected.mean()), rel=1e-6)


def test_right_where_nothing_is_forgotten():
    """Forget gates wide open: the state at the end of a row depends on all rows before it."""
    with text_model(IDS) as (session, _, _, model):
        values = models.variables(session)
        for name, value in values.items():
            if name.endswith("bias"):
                value[12:18] = 20.0  # f, the third of the four gates
        models.load(session, values)
        losses = evaluate.text_losses(session, model)
    params = models.as_params(values, 2)
    expected = one_by_one(params, IDS)
    last_row = one_by_one(params, IDS[-97:])  # 400 words are 4 rows of 102, the last one shorter
    assert np.abs(last_row / expected[-96:] - 1)[-48:].max() > 1e-2
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    assert losses.mean() == pytest.approx(expected.mean(), rel=1e-6)


def test_a_round_ends_where_the_states_are_those_of_the_last():
    """Forgetful weights: little more work than reading the text once."""
    with text_model(np.tile(IDS, 10), init_scale=0.1) as (session, _, _, model):
        counted = Counted(session)
        evaluate.text_losses(counted, model)
    steps = -(-3999 // 12)
    assert steps < counted.runs < 1.1 * steps


@pytest.mark.parametrize("kept", [1, 5])
def test_memory_for_states_is_bounded(kept, monkeypatch):
    monkeypatch.setattr(evaluate, "KEPT_STEPS", kept)
    with text_model(IDS) as (session, _, _, model):
        params = models.as_params(models.variables(session), 2)
        losses = evaluate.text_losses(session, model)
    np.testing.assert_allclose(losses, one_by_one(params, IDS), rtol=1e-4)


def test_text_without_a_word_to_predict():
    with pytest.raises(UserError, match="Tst: 1 word, too few to predict one"):
        evaluate.TextInput(TinyConfig(), IDS[:1], name="Tst")


def test_loss_that_is_not_finite_raises():
    with text_model(IDS) as (session, _, _, model):
        values = models.variables(session)
        values["Model/softmax_b"][:] = np.nan
        models.load(session, values)
        with pytest.raises(FloatingPointError, match="not finite at step 0 of 34"):
            evaluate.text_losses(session, model)
