"""The model's numbers, against the NumPy reference."""

import math

import models
import numpy as np
import numpy_lstm
import pytest
from models import TinyConfig

import lstm
from ptb import evaluate, rnn
from ptb.terminal.quiet import tf

IDS = np.random.default_rng(1).integers(0, 30, 400)


def tiny(**fields):
    """An instance of a TinyConfig with other values."""
    return type("SomeConfig", (TinyConfig,), fields)()


@pytest.mark.parametrize("rnn_mode", ["basic", "fused"])
@pytest.mark.parametrize("max_grad_norm", [0.05, 1e6], ids=["clipped", "unclipped"])
@pytest.mark.parametrize("keep_prob", [1.0, 0.6])
def test_training_step(keep_prob, max_grad_norm, rnn_mode, flags):
    """Cost, final state, every gradient, clipping and update, from a state that is not zero."""
    flags.rnn_mode = rnn_mode
    config = tiny(keep_prob=keep_prob, max_grad_norm=max_grad_norm)
    layers, lr = config.num_layers, 0.5
    rng = np.random.default_rng(2)
    with models.built(config, IDS, count=1) as (session, model):
        models.randomize(session, 0.8)
        model.assign_lr(session, lr)
        before = models.as_params(models.variables(session), layers)
        state = [tuple(rng.normal(size=(2, 4, 6))) for _ in range(layers)]
        feed = {model.input.step: 2}
        for (c, h), (c_value, h_value) in zip(model.initial_state, state):
            feed.update({c: c_value, h: h_value})
        tvars = tf.trainable_variables()
        fetches = {
            "x": model.input.input_data,
            "y": model.input.targets,
            "cost": model.cost,
            "state": model.final_state,
            "grads": {v.op.name: g for v, g in zip(tvars, tf.gradients(model.cost, tvars))},
            "masks": [
                rnn.dropout_mask(
                    [config.num_steps, config.batch_size, config.hidden_size], layer, keep_prob,
                    tf.float32,
                )
                for layer in range(layers + 1)
            ],
        }
        vals = session.run(fetches, feed)
        session.run(model.train_op, feed)
        after = models.as_params(models.variables(session), layers)
        assert session.run(tf.train.get_global_step()) == 1

    x = vals["x"]
    assert len(np.unique(x)) < x.size  # a repeated word, so that its rows count one by one
    cost, new_state, grads = numpy_lstm.step(before, x, vals["y"], state, np.array(vals["masks"]))
    assert vals["cost"] == pytest.approx(cost, rel=1e-6)
    for ours, theirs in zip(vals["state"], new_state):
        assert models.difference(ours.c, theirs[0]) < 1e-6
        assert models.difference(ours.h, theirs[1]) < 1e-6
    embedding = vals["grads"]["Model/embedding"]
    np.testing.assert_array_equal(embedding.indices, x.reshape(-1))
    vals["grads"]["Model/embedding"] = embedding.values
    ours = models.flat(models.as_params(vals["grads"], layers))
    for name, theirs in models.flat(grads).items():
        assert models.difference(ours[name], theirs) < 1e-5, name

    assert (numpy_lstm.global_norm(grads) > max_grad_norm) == (max_grad_norm == 0.05)
    updated = models.flat(numpy_lstm.update(before, x, grads, max_grad_norm, lr))
    before, after = models.flat(before), models.flat(after)
    for name in updated:
        change = updated[name] - before[name]
        assert models.difference(after[name] - before[name], change) < 1e-3, name
        assert models.difference(after[name], updated[name]) < 1e-7, name


def test_masks_are_fresh_and_kept_units_make_up_for_dropped_ones():
    def drawn(layer=0, seed=1, step=0):
        with tf.Graph().as_default(), tf.Session() as session:
            tf.set_random_seed(seed)
            global_step = tf.train.get_or_create_global_step()
            mask = rnn.dropout_mask([5, 20, 100], layer, 0.3, tf.float32)
            session.run(tf.assign(global_step, step))
            return session.run(mask)

    first, again = drawn(), drawn()
    others = drawn(seed=2), drawn(step=1), drawn(layer=1)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(np.unique(first), [0, 1 / 0.3], rtol=1e-6)
    assert first.mean() == pytest.approx(1.0, abs=0.05)
    for other in (*others, np.roll(first, 1, axis=0)):  # also fresh at every time step
        assert (other != first).mean() == pytest.approx(2 * 0.3 * 0.7, abs=0.03)


def test_dropout_is_in_training_only_and_never_on_the_state():
    """Evaluation is the reference's without masks; no unit of the carried h is zero."""
    with models.built(tiny(keep_prob=0.5), IDS) as (session, train, valid, test):
        params = models.as_params(models.variables(session), 2)
        state = session.run(train.final_state)
        perplexities = [models.perplexity(session, model) for model in (train, valid, test)]
    assert all(np.all(array != 0) for layer in state for array in layer)
    batched, _ = numpy_lstm.epoch(params, IDS, 4, 3)
    one_by_one, _ = numpy_lstm.epoch(params, IDS, 1, 1)
    assert perplexities[0] != pytest.approx(batched, rel=1e-4)
    assert perplexities[1:] == pytest.approx([batched, one_by_one], rel=1e-6)


@pytest.mark.parametrize("which", ["train", "valid", "test"])
def test_state_is_carried(which):
    """An epoch is the reference's with the state carried, and far from it with a reset state."""
    config = TinyConfig()
    with models.built(config, IDS) as (session, *three):
        model = dict(zip(("train", "valid", "test"), three))[which]
        params = models.as_params(models.variables(session), config.num_layers)
        perplexity = models.perplexity(session, model)
    size = (1, 1) if which == "test" else (config.batch_size, config.num_steps)
    carried, _ = numpy_lstm.epoch(params, IDS, *size)
    reset, _ = numpy_lstm.epoch(params, IDS, *size, carry=False)
    assert perplexity == pytest.approx(carried, rel=1e-6)
    assert abs(reset / carried - 1) > 1e-4


def test_epoch_of_training():
    """Updates and carried state together: the variables after an epoch are the reference's."""
    config = TinyConfig()
    with models.built(config, IDS, count=1) as (session, model):
        before = models.as_params(models.variables(session), config.num_layers)
        model.assign_lr(session, 0.5)
        perplexity = lstm.run_epoch(session, model, eval_op=model.train_op)
        after = models.as_params(models.variables(session), config.num_layers)
    theirs, updated = numpy_lstm.epoch(before, IDS, 4, 3, max_grad_norm=5, lr=0.5)
    assert perplexity == pytest.approx(theirs, rel=1e-5)
    for name, value in models.flat(updated).items():
        assert models.difference(models.flat(after)[name], value) < 1e-4, name


def test_epoch_starts_at_step_0_and_from_the_zero_state():
    with models.built(TinyConfig(), IDS) as (session, train, valid, _):
        first = lstm.run_epoch(session, valid)
        session.run(valid.input.input_data)  # someone takes a batch in between
        session.run(train.input.targets)
        assert lstm.run_epoch(session, valid) == first


@pytest.mark.parametrize("words", range(16, 16 + 12 * 14, 12))
def test_epochs_of_few_steps(words, capsys):
    """From one step up: a perplexity, and at least one and about ten progress lines."""
    with models.built(TinyConfig(), IDS[:words], count=1) as (session, model):
        steps = model.input.epoch_size
        assert steps == (words // 4 - 1) // 3
        perplexity = lstm.run_epoch(session, model, verbose=True)
    assert math.isfinite(perplexity)
    lines = capsys.readouterr().out.splitlines()
    assert min(steps, 10) <= len(lines) <= 19
    assert all("perplexity: " in line and line.endswith(" wps") for line in lines)


def test_progress_lines_of_a_long_epoch_are_the_articles(capsys):
    ids = np.tile(IDS, 5)
    with models.built(TinyConfig(), ids, count=1) as (session, model):
        steps = model.input.epoch_size
        lstm.run_epoch(session, model, verbose=True)
    lines = capsys.readouterr().out.splitlines()
    expected = [step / steps for step in range(steps) if step % (steps // 10) == 10]
    assert [line.split()[0] for line in lines] == [f"{position:.3f}" for position in expected]


def test_costs_add_up_in_double_precision():
    """A sum of float32 scalars would stay float32 under NumPy 2 and lose what is added last."""

    class Costs:
        """A session whose steps cost 2**24, then 1, 1 …"""

        def __init__(self):
            self.steps = 0

        def run(self, fetches, feed_dict=None):
            if feed_dict is None:
                return ()
            self.steps += 1
            return {"cost": np.float32(2**24 if self.steps == 1 else 1), "final_state": ()}

    class Model:
        class input:
            epoch_size, num_steps, batch_size, step = 1001, 2**20, 1, "step"

        initial_state, cost, final_state = (), None, ()

    assert lstm.run_epoch(Costs(), Model) == math.exp((2**24 + 1000) / (1001 * 2**20))


def test_cost_that_is_not_finite_raises():
    with models.built(TinyConfig(), IDS, count=1) as (session, model):
        values = models.variables(session)
        values["Model/softmax_b"][:] = np.nan
        models.load(session, values)
        with pytest.raises(FloatingPointError, match="nan at step 0 of"):
            lstm.run_epoch(session, model)


def test_perplexity_too_large_for_a_float_is_infinite():
    with np.errstate(all="raise"):
        assert evaluate.perplexity(1e6, 1) == math.inf


def test_no_two_weights_start_equal_and_the_seed_decides(flags):
    def start(seed):
        flags.seed = seed
        with models.built(TinyConfig(), IDS, count=1) as (session, _):
            return models.variables(session)

    first, again, other = start(1), start(1), start(2)
    kernels = [name for name in first if name.endswith("kernel")]
    assert len(kernels) == 2
    assert not np.any(first[kernels[0]] == first[kernels[1]])
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
        if name.endswith("bias"):
            assert not value.any()
        else:
            assert 0.7 < abs(value).max() < 0.8
            assert not np.any(value == other[name])


def test_embedding_is_looked_up_on_the_cpu():
    with models.built(TinyConfig(), IDS):
        lookups = [
            op for op in tf.get_default_graph().get_operations()
            if op.type in ("ResourceGather", "GatherV2") and op.name.startswith("Train/Model/emb")
        ]
    assert lookups
    assert all(op.device.endswith("CPU:0") for op in lookups)
