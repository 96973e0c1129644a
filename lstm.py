"""Trains an LSTM language model on the Penn Treebank, and reports its perplexity each epoch.

The model is that of Zaremba, Sutskever and Vinyals, "Recurrent Neural Network Regularization"
(arXiv 1409.2329), in the form of the PTB tutorial of TensorFlow 1.x. What it is known to reach:

    config   epochs    train    valid     test   perplexity
    small        13    40.55   120.70   115.52
    medium       39    45.68    86.97    83.47
    large        55    37.94    82.75    78.49

    python lstm.py --config small
"""

import os
import time

import numpy as np

# Before TensorFlow, to quiet it.
from ptb import checkpoint, command_line, dataset, monitor, reader, rnn
from ptb.config import get_config
from ptb.errors import UserError
from ptb.evaluate import TextInput, perplexity, text_perplexity
from ptb.session import make_deterministic, make_folder, make_supervisor, managed_session

import tensorflow.compat.v1 as tf

configs = command_line.import_edited("configs")
from configs import *  # noqa: E402, F403 (lstm.SmallConfig, and what else a user has there)

flags = tf.app.flags
FLAGS = flags.FLAGS

flags.DEFINE_string(
    "config", "small", "What to train: small, medium, large, tst, or a class you add to configs.py."
)
flags.DEFINE_string(
    "data_path", "simple-examples/data", "The corpus: a folder with ptb.train.txt and so on, or "
    "train.txt, valid.txt and test.txt."
)
flags.DEFINE_string("save_path", "./Out", "Where runs are saved, each in <save_path>/<config>.")
flags.DEFINE_bool("use_fp16", False, "Whether to compute in 16-bit floats instead of 32-bit ones.")
flags.DEFINE_enum(
    "rnn_mode", "fused", ["fused", "basic"],
    "How to compute: fused is fast; basic is the article's loop over time steps, the same numbers.",
)
flags.DEFINE_bool("restart", False, "Whether to train anew; an earlier run is moved aside.")
flags.DEFINE_float(
    "save_minutes", 5, "How often to save within an epoch; each epoch ends with a checkpoint too.",
    lower_bound=0,
)
flags.DEFINE_integer(
    "seed", 1, "What decides the initial weights and the dropout; the same seed, the same results.",
    lower_bound=0, upper_bound=2**31 - 1,
)
FLAGS.mark_as_parsed()  # the defaults hold where nobody parses: a notebook, a test


def data_type():
    """Returns the type of activations and products; variables, loss and update are float32."""
    return tf.float16 if FLAGS.use_fp16 else tf.float32


class PTBInput:
    """The input data: x and y of each step, and how many steps an epoch has.

    Raises UserError (a ValueError) where the data is too short for one step.
    """

    def __init__(self, config, data, name=None):
        self.batch_size = batch_size = config.batch_size
        self.num_steps = num_steps = config.num_steps
        # The last word of each row is only ever a target: hence the -1.
        self.epoch_size = ((len(data) // batch_size) - 1) // num_steps
        self.step = reader.epoch_steps(self.epoch_size)  # run_epoch feeds it
        self.input_data, self.targets = reader.ptb_producer(
            data, batch_size, num_steps, name=name, step=self.step
        )


class PTBModel:
    """The PTB model: embedding, LSTM layers, softmax; and, in training, its update."""

    def __init__(self, is_training, config, input_):
        self._input = input_
        batch_size = input_.batch_size
        num_steps = input_.num_steps
        size = config.hidden_size
        vocab_size = config.vocab_size
        global_step = tf.train.get_or_create_global_step()

        def dropout_masks(layer):
            shape = [num_steps, batch_size, size]
            return rnn.dropout_masks(
                shape, config.keep_prob, FLAGS.seed, global_step, layer, data_type()
            )

        def lstm_cell(layer):
            cell = rnn.BasicLSTMCell(size, forget_bias=0.0)
            if is_training and config.keep_prob < 1:
                cell = rnn.DropoutWrapper(cell, dropout_masks(layer))
            return cell

        cell = rnn.MultiRNNCell([lstm_cell(k + 1) for k in range(config.num_layers)])
        self._initial_state = cell.zero_state(batch_size, data_type())

        with tf.device("/cpu:0"):
            inputs = rnn.embedding_lookup(vocab_size, size, input_.input_data, data_type())
        if is_training and config.keep_prob < 1:
            inputs = inputs * tf.transpose(dropout_masks(0), [1, 0, 2])

        # The LSTM is unrolled over num_steps words: as far back as gradients reach.
        with tf.variable_scope("RNN"):
            if FLAGS.rnn_mode == "fused":  # what the loop does, in one call
                outputs, state = cell.unroll(inputs, self._initial_state)
            else:
                outputs = []
                state = self._initial_state
                for time_step in range(num_steps):
                    if time_step > 0:
                        tf.get_variable_scope().reuse_variables()
                    (cell_output, state) = cell(inputs[:, time_step, :], state)
                    outputs.append(cell_output)
                outputs = tf.stack(outputs, 1)
        output = tf.reshape(outputs, [-1, size])

        targets = tf.reshape(input_.targets, [-1])
        if FLAGS.rnn_mode == "fused":  # the cross-entropy below, with less traffic in memory
            loss = rnn.softmax_loss(output, vocab_size, targets)
        else:
            logits = rnn.softmax_logits(output, vocab_size)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)
        self._loss = loss
        self._cost = cost = tf.reduce_sum(loss) / batch_size
        self._final_state = state

        if not is_training:
            return

        self._lr = tf.Variable(0.0, trainable=False)
        tvars = tf.trainable_variables()
        grads = tf.gradients(cost, tvars)
        # Clipping multiplies every gradient by one factor. To multiply the learning rate by it
        # instead saves a pass over all of them: 2% of a step, medium and large.
        (clipped_lr,), _ = tf.clip_by_global_norm(
            [self._lr], config.max_grad_norm, use_norm=tf.global_norm(grads)
        )
        optimizer = tf.train.GradientDescentOptimizer(clipped_lr)
        self._train_op = optimizer.apply_gradients(zip(grads, tvars), global_step=global_step)

        self._new_lr = tf.placeholder(tf.float32, shape=[], name="new_learning_rate")
        self._lr_update = tf.assign(self._lr, self._new_lr)

    def assign_lr(self, session, lr_value):
        """Sets the learning rate of the training model."""
        session.run(self._lr_update, feed_dict={self._new_lr: lr_value})

    @property
    def input(self):
        """The PTBInput."""
        return self._input

    @property
    def initial_state(self):
        """One (c, h) for each layer, each [batch_size, hidden_size]; zero unless fed."""
        return self._initial_state

    @property
    def loss(self):
        """The negative log probability (nats) of each target, [batch_size * num_steps]."""
        return self._loss

    @property
    def cost(self):
        """The sum over the batch's words of the negative log probability (nats), / batch_size."""
        return self._cost

    @property
    def final_state(self):
        """The state after the last of the num_steps words, like initial_state."""
        return self._final_state

    @property
    def lr(self):
        """The learning rate, a variable; of a training model only."""
        return self._lr

    @property
    def train_op(self):
        """Updates the variables and counts the global step; of a training model only."""
        return self._train_op


def run_epoch(session, model, eval_op=None, verbose=False, position=None, after_step=None):
    """Runs the model over its whole data, from the zero state; returns the perplexity.

    Args:
      session: the session.
      model: a PTBModel.
      eval_op: an operation to run with each step, such as model.train_op.
      verbose: print about ten lines: position, perplexity so far and speed (words/s).
      position: a checkpoint.Position, to go on from its step and to keep up to date.
      after_step: a function to call after each step, with its cost.

    Returns:
      exp(sum of costs / sum of num_steps): the exponential of the mean nats per word.

    Raises:
      FloatingPointError: the cost became NaN or infinite.
    """
    position = position or checkpoint.Position()
    start_time = time.time() - position.seconds
    costs = position.costs
    epoch_size = model.input.epoch_size
    interval = max(epoch_size // 10, 1)
    state = position.state or session.run(model.initial_state)

    fetches = {"cost": model.cost, "final_state": model.final_state}
    if eval_op is not None:
        fetches["eval_op"] = eval_op

    for step in range(position.step, epoch_size):
        feed_dict = {model.input.step: step}
        for i, (c, h) in enumerate(model.initial_state):
            feed_dict[c] = state[i].c
            feed_dict[h] = state[i].h

        vals = session.run(fetches, feed_dict)
        cost = float(vals["cost"])  # NumPy would go on adding in float32
        state = vals["final_state"]
        if not np.isfinite(cost):
            raise FloatingPointError(f"the cost is {cost} at step {step} of {epoch_size}")

        costs += cost
        iters = (step + 1) * model.input.num_steps

        if verbose and step % interval == min(10, interval - 1):
            print("%.3f perplexity: %.3f speed: %.0f wps" %
                  (step * 1.0 / epoch_size, perplexity(costs, iters),
                   iters * model.input.batch_size / (time.time() - start_time)))
        position.step, position.costs, position.state = step + 1, costs, state
        position.seconds = time.time() - start_time
        if after_step is not None:
            after_step(cost)

    return perplexity(costs, epoch_size * model.input.num_steps)


def main(_):
    """Trains the configuration for all its epochs, tests it and saves it."""
    tf.disable_eager_execution()
    config = get_config(FLAGS.config, configs)

    make_folder(FLAGS.save_path)
    corpus = dataset.find_corpus(FLAGS.data_path, explicit=FLAGS["data_path"].present)
    train_data, valid_data, test_data, words = reader.read_corpus(corpus.folder, config.vocab_size)
    config.vocab_size = config.vocab_size or len(words)
    run_name = FLAGS.config.lower() + ("-sample" if corpus.kind == "sample" else "")
    run_folder = os.path.join(FLAGS.save_path, run_name)
    if FLAGS.restart:
        checkpoint.set_aside(run_folder)
    make_folder(run_folder)
    facts = checkpoint.facts(config, corpus.folder, FLAGS)
    run = checkpoint.Run(run_folder, facts, words, FLAGS.save_minutes)
    if run.is_finished(config.max_max_epoch):
        monitor.print_results(run)
        return

    with tf.Graph().as_default():
        make_deterministic(FLAGS.seed)
        initializer = rnn.uniform_initializer(config.init_scale, FLAGS.seed)

        with tf.name_scope("Train"):
            train_input = PTBInput(config=config, data=train_data, name="TrainInput")
            with tf.variable_scope("Model", reuse=None, initializer=initializer):
                m = PTBModel(is_training=True, config=config, input_=train_input)

        with tf.name_scope("Valid"):
            valid_input = PTBInput(config=config, data=valid_data, name="ValidInput")
            with tf.variable_scope("Model", reuse=True, initializer=initializer):
                mvalid = PTBModel(is_training=False, config=config, input_=valid_input)

        with tf.name_scope("Tst"):
            test_input = TextInput(config=config, data=test_data, name="TstInput")
            with tf.variable_scope("Model", reuse=True, initializer=initializer):
                mtst = PTBModel(is_training=False, config=config, input_=test_input)

        run.saver = tf.train.Saver()
        sv = make_supervisor(saver=run.saver, init_fn=run.restore)
        watch = monitor.Monitor(run, config, train_input.epoch_size, valid_input.epoch_size)
        with managed_session(sv) as session, run.in_session(session), watch:
            data = train_data, valid_data, test_data
            monitor.print_start(FLAGS, config, corpus, data, words, session, run)
            try:
                for i in range(run.position.epoch, config.max_max_epoch):
                    lr_decay = config.lr_decay ** max(i + 1 - config.max_epoch, 0)
                    learning_rate = config.learning_rate * lr_decay
                    m.assign_lr(session, learning_rate)

                    print("Epoch: %d Learning rate: %.3f" % (i + 1, session.run(m.lr)))
                    train_perplexity = run_epoch(
                        session, m, eval_op=m.train_op, verbose=True, position=run.position,
                        after_step=watch.after_train_step,
                    )
                    print("Epoch: %d Train Perplexity: %.3f" % (i + 1, train_perplexity))
                    valid_perplexity = run_epoch(session, mvalid, after_step=watch.after_valid_step)
                    print("Epoch: %d Valid Perplexity: %.3f" % (i + 1, valid_perplexity))
                    watch.after_epoch(learning_rate, train_perplexity, valid_perplexity)

                test_perplexity = text_perplexity(session, mtst, after_step=run.after_step)
                print("Test Perplexity: %.3f" % test_perplexity)
            except FloatingPointError as error:
                epoch = min(run.position.epoch + 1, config.max_max_epoch)
                raise UserError(
                    f"epoch {epoch}, learning rate {session.run(m.lr):.3f}: {error}; "
                    "lower learning_rate, init_scale or max_grad_norm in configs.py"
                ) from error
            if corpus.kind == "sample":
                print("(on the sample corpus: compares with nothing published)")
            print("Saving model to %s." % run.finish(test_perplexity))


if __name__ == "__main__":
    command_line.run(main)
