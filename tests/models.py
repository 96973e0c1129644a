"""Builds the three models of `lstm.main`, and moves parameters in and out of them."""

import contextlib
import pathlib

import numpy as np

import configs
import lstm
from lstm import PTBInput
from ptb import cluster, rnn
from ptb.evaluate import TextInput, text_perplexity
from ptb.terminal.quiet import tf


class TinyConfig(configs.TstConfig):
    """Two layers, and the state worth carrying: weights large enough for it to matter."""

    init_scale = 0.8
    max_grad_norm = 5
    num_layers = 2
    num_steps = 3
    hidden_size = 6
    batch_size = 4
    vocab_size = 30


TST_VARIABLES = {  # of TstConfig, with their shapes: what the tutorial's saver asks for
    "Model/embedding": [10000, 2],
    "Model/RNN/multi_rnn_cell/cell_0/basic_lstm_cell/kernel": [4, 8],
    "Model/RNN/multi_rnn_cell/cell_0/basic_lstm_cell/bias": [8],
    "Model/softmax_w": [2, 10000],
    "Model/softmax_b": [10000],
    "Model/global_step": [],
    "Train/Model/Variable": [],
}


@contextlib.contextmanager
def built(config, ids, test_ids=None, getter=None, count=3):
    """Yields (session, train, valid, test): the models on one list of ids, initialized.

    The test model may have a text of its own, and the variables another getter, as the
    `custom_getter` of `tf.variable_scope` is. With a `count` only the first so many are built.
    """
    texts = ids, ids, ids if test_ids is None else test_ids
    worker = cluster.this_worker()
    with tf.Graph().as_default():
        tf.set_random_seed(lstm.FLAGS.seed)
        initializer = rnn.random_uniform_initializer(-config.init_scale, config.init_scale)
        models = []
        inputs = ("Train", PTBInput), ("Valid", PTBInput), ("Tst", TextInput)
        for (name, Input), text in zip(inputs[:count], texts):
            with tf.name_scope(name):
                input_ = Input(config, text, name=f"{name}Input")
                with tf.variable_scope(
                    "Model", reuse=bool(models), initializer=initializer, custom_getter=getter
                ):
                    models.append(lstm.PTBModel(not models, config, input_))
        with tf.Session(worker.target, config=worker.options()) as session:
            session.run(tf.global_variables_initializer())
            yield session, *models


def last_model(run_folder):
    """Returns the path of the model in a run's last checkpoint, as a Saver wants it."""
    return str(sorted(pathlib.Path(run_folder).glob("checkpoint-*"))[-1] / "model.ckpt")


def saved(path):
    """Returns {name: array} of the variables at a path, as a `tf.train.Saver` takes it."""
    reader = tf.train.load_checkpoint(str(path))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def last_saved(out):
    """Returns {name: array} of the variables in the last checkpoint of the run in out/some."""
    return saved(last_model(out / "some"))


def assert_same(expected, got):
    """Fails unless two {name: array} are the same bit for bit."""
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(value, got[name], err_msg=name)


def save(path, values):
    """Writes a checkpoint as the tutorial leaves it: of the variables alone, {name: array}."""
    with tf.Graph().as_default(), tf.Session() as session:
        variables = {name: tf.Variable(value) for name, value in values.items()}
        session.run(tf.global_variables_initializer())
        tf.train.Saver(variables).save(session, str(path))


def perplexity(session, model):
    """Returns the perplexity of a valid or test model on its text."""
    if isinstance(model.input, TextInput):
        return text_perplexity(session, model)
    return lstm.run_epoch(session, model)


def names(num_layers):
    """Returns the variable names, arranged as numpy_lstm's parameters are."""
    cell = "Model/RNN/multi_rnn_cell/cell_{}/basic_lstm_cell/{}"
    return {
        "embedding": "Model/embedding",
        "kernels": [cell.format(k, "kernel") for k in range(num_layers)],
        "biases": [cell.format(k, "bias") for k in range(num_layers)],
        "softmax_w": "Model/softmax_w",
        "softmax_b": "Model/softmax_b",
    }


def as_params(values, num_layers):
    """Arranges arrays {variable name: array} as numpy_lstm's parameters, in float64."""

    def get(name):
        if isinstance(name, list):
            return [get(n) for n in name]
        return np.asarray(values[name], np.float64)

    return {key: get(name) for key, name in names(num_layers).items()}


def flat(params):
    """Returns {name: array} of what is arranged as numpy_lstm's parameters."""
    out = {}
    for key, value in params.items():
        if isinstance(value, list):
            out.update({f"{key}[{k}]": array for k, array in enumerate(value)})
        else:
            out[key] = value
    return out


def variables(session):
    """Returns the trainable variables' values, {name: array}."""
    return session.run({v.op.name: v for v in tf.trainable_variables()})


def load(session, values):
    """Sets variables to `values`, {name: array}."""
    for variable in tf.trainable_variables():
        initializer = variable.initializer
        session.run(initializer, {initializer.inputs[1]: values[variable.op.name]})


def randomize(session, scale, seed=0):
    """Sets every trainable variable, the zero biases too, to uniform values in ±scale."""
    rng = np.random.default_rng(seed)
    values = {v.op.name: rng.uniform(-scale, scale, v.shape) for v in tf.trainable_variables()}
    load(session, values)


def costs(config, ids, steps):
    """Trains a model on ids for so many steps, the state carried along; returns their costs."""
    found = []
    with built(config, ids, count=1) as (session, model):
        model.assign_lr(session, config.learning_rate)
        state = session.run(model.initial_state)
        for step in range(steps):
            feed = {model.input.step: step}
            for names, values in zip(model.initial_state, state):
                feed.update(zip(names, values))
            cost, state, _ = session.run([model.cost, model.final_state, model.train_op], feed)
            found.append(cost)
    return np.array(found)


def difference(a, b):
    """Returns ‖a − b‖ / ‖b‖."""
    return np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)
