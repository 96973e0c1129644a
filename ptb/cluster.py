"""Several workers train one model together: the rows are shared out, the gradients added up.

TF_CONFIG in the environment, in TensorFlow's standard form, says who the workers are and which one
this process is; without it a process is alone, and nothing here changes anything. TensorFlow's own
server and operations move the numbers.

    TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]},
                "task": {"type": "worker", "index": 0}}' python lstm.py --config small

Each worker computes some rows of every batch. The losses and states of all rows are then put
together on all workers, so that each knows what a single process would know, and comes to the same
decisions. Where that sends less, the softmax layer is shared out by words instead, see OwnWords.
Worker 0 alone reads and writes the run's folder, and tells the others what it found.

On one machine this module starts the workers, each on its share of the cores or its own GPU:

    python -m ptb.cluster --workers 4 lstm.py --config small
"""

import collections
import contextlib
import functools
import hashlib
import itertools
import json
import math
import os
import pathlib
import pickle
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np

from ptb import checkpoint, command_line, fused, rnn
from ptb.errors import STOP_SIGNALS, UserError
from ptb.progress import Line
from ptb.quiet import session_config, tf

FEW = 1 << 13  # how many numbers of a gradient need less time than a message of their own
GROUP = 1  # the key of the group of all workers, which every collective operation names
PIECE = 1 << 16  # bytes of a message that are sent at a time
TICK = 0.25  # seconds between two looks at who is there
LOOK = 2.0  # seconds of waiting after which a worker looks whether the others are still there
LINGER = 1.5  # seconds for which the server of a worker that ends still answers
ANSWER_TIME = 5  # seconds within which a worker that is alive answers
GRACE = 30  # seconds that the launcher gives the others to end when one worker has failed
REFUSED, SILENT = "Connection refused", "no answer"  # why a worker cannot be reached
# What an HTTP/2 client says first: a fixed text, and settings, of which there are none.
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
AGAIN = "start the same commands again on all workers"

_here = threading.local()  # Like TensorFlow's default graph, the workers are those of a thread.


def workers():
    """Returns what stands for all workers in this process: a Worker, or Alone."""
    return getattr(_here, "workers", None) or ALONE


class Alone:
    """The only worker: it has all rows and words, and what several would agree on, it decides."""

    is_first = True
    device = ""  # where the operations of a model belong, as `tf.device` takes it
    target = ""  # what a session connects to, as `tf.Session` takes it

    def opened(self, session):
        """Returns a session, a context, which needs all workers to open and to run a step."""
        return session

    def compare(self, facts, config):
        """Raises UserError where the workers' facts differ, or the model cannot be shared out."""

    def own_rows(self, tensors, axis=0):
        """Returns this worker's rows of tensors, nested or not, that have a batch's along axis."""
        return tensors

    def sequence_loss(self, output, softmax_w, softmax_b, targets, fast, factor_type, state):
        """Returns (rnn.sequence_loss, state) of all rows.

        Args:
          output: [n, size], the softmax layer's input for the worker's own rows.
          softmax_w, softmax_b: the variables.
          targets: [batch_size, num_steps] word ids, of all rows.
          fast, factor_type: see rnn.sequence_loss.
          state: that of the worker's own rows.
        """
        return rnn.sequence_loss(output, softmax_w, softmax_b, targets, fast, factor_type), state

    def own_variables(self, variables):
        """Returns what this worker trains: of a variable that is shared out by words, its part."""
        return variables

    def add(self, gradients, variables):
        """Returns (the gradients of the batch's cost, their global norm).

        Args:
          gradients: what this worker's rows add to the gradients by the variables.
          variables: what own_variables returned.
        """
        return gradients, tf.global_norm(gradients)

    def on_first(self, function):
        """Calls a function on worker 0 only; its result, or its UserError, is that of all."""
        return function()

    def spread(self, session, variables):
        """Sets the variables of all workers, and the parts they train, to worker 0's values.

        Its variables have to be current: just initialized, loaded, or collected.
        """

    def collect(self, session, variables):
        """Sets the variables that are shared out by words to what all workers have learned."""

    def agree(self, signum, save_is_due):
        """Returns (signal, whether to save) as all have agreed in the last step.

        Args:
          signum: the signal that asks this worker to stop, or None.
          save_is_due: whether it is time to save; worker 0 is asked.
        """
        return signum, save_is_due


ALONE = Alone()


class Worker:
    """This process as one of several workers; it has the same methods as Alone.

    Args:
      addresses: "host:port" of each worker.
      index: which of them this process is.
      patience: seconds for which it waits for the others, at the start or within a step.

    Raises:
      UserError: its port cannot be opened, or another worker has not come in time.
    """

    def __init__(self, addresses, index, patience):
        self.is_first = index == 0
        self.device = f"/job:worker/task:{index}"
        self._addresses = addresses
        self._index = index
        self._patience = patience
        self._keys = itertools.count(1)  # one for whatever needs all workers, in the same order
        self._sent = []  # operations that send, on which nothing depends yet
        self._own_words = None  # once there is a model: its OwnWords, or False if shared by rows
        self._has_told = False  # whether nobody listens any more to why this worker fails
        self._wishes = (0, 0)  # what this worker asks for in the next step: signal, save
        self._heard = (0, 0)  # what was asked for in the last step, by all workers together
        self._wait = None  # an object for each wait for the others; None where there is none
        self._server = self._start_server()
        self.target = self._server.target
        # While this thread runs, nobody deletes the server, which might take forever.
        threading.Thread(target=self._watch, args=[self._server], daemon=True).start()
        self._wait_for_all()
        with tf.Graph().as_default():
            self._own_piece = tf.placeholder(tf.int32, [1, 3 + PIECE // 4])
            self._all_pieces = tf.raw_ops.CollectiveGather(
                input=self._own_piece, shape=[len(addresses), 3 + PIECE // 4],
                communication_hint="ring", **self._collective(),
            )
            self._session = tf.Session(self.target, config=self._message_options())

    def _message_options(self):
        """Returns the ConfigProto of the server, and of sessions that send messages.

        Between two steps collective operations carry what the workers tell one another, because
        they say so if the workers disagree on how many they are. Their sessions have the devices of
        this worker alone, and open without the others.
        """
        options = session_config()
        options.experimental.collective_group_leader = "/job:worker/replica:0/task:0"
        options.device_filters.append(self.device)
        return options

    def _collective(self):
        """Returns the arguments that make an operation the next collective one of all workers."""
        return {
            "group_size": len(self._addresses), "group_key": GROUP,
            "instance_key": next(self._keys),
        }

    @contextlib.contextmanager
    def opened(self, session):
        with contextlib.ExitStack() as stack:
            with self._waiting():
                opened = stack.enter_context(session)
            # Even what runs before the first operation of a step may wait for the others.
            opened.run = self._waiting()(opened.run)
            yield opened

    def compare(self, facts, config):
        facts = {**facts, **{f"code.{name}": value for name, value in _checksums_of_code().items()}}
        all_facts = [json.loads(told) for told in self._tell(json.dumps(facts).encode())]
        different = [
            f"{self._name(i)} has {_difference(name, theirs.get(name), all_facts[0].get(name))}"
            for i, theirs in enumerate(all_facts)
            for name in sorted({*all_facts[0], *theirs})
            if theirs.get(name) != all_facts[0].get(name)
        ]
        if different:
            raise UserError(
                f"{'; '.join(different)}. All workers need the same flags, files and versions"
            )
        number = len(self._addresses)
        rows, left = divmod(config.batch_size, number)
        if left:
            raise UserError(
                f"batch_size is {config.batch_size}, which cannot be shared out evenly among "
                f"{number} workers; change one of them"
            )
        if config.vocab_size < number:
            raise UserError(
                f"vocab_size is {config.vocab_size}, which is not enough for {number} workers; "
                "each needs a word"
            )
        print(
            f"Worker {self._index} of {number} ({self._addresses[self._index]}): "
            f"rows {self._index * rows + 1} to {(self._index + 1) * rows} of {config.batch_size}"
        )

    def own_rows(self, tensors, axis=0):
        def own(tensor):
            return tf.split(tensor, len(self._addresses), axis)[self._index]

        return tf.nest.map_structure(own, tensors)

    def sequence_loss(self, output, softmax_w, softmax_b, targets, fast, factor_type, state):
        # The models of a run have the same weights, so all have to share the layer in one way.
        if self._own_words is None:
            number, (size, vocab_size) = len(self._addresses), map(int, softmax_w.shape)
            self._own_words = False
            if by_words(math.prod(targets.shape), size, vocab_size, number):
                self._own_words = OwnWords(self, vocab_size, number, self._index)
        if self._own_words:
            if output.dtype == tf.float16:  # Sums of exponentials need the range of float32.
                output, factor_type = tf.cast(output, tf.float32), None
            output, state = self._all_rows(output, state, self._sum_of_own_rows)
            parts = map(self._own_words.part_of, (softmax_w, softmax_b))
            loss = rnn.sequence_loss(output, *parts, targets, fast, factor_type, self._own_words)
        else:
            targets = self.own_rows(targets)
            loss = rnn.sequence_loss(output, softmax_w, softmax_b, targets, fast, factor_type)
            loss, state = self._all_rows(loss, state, self.own_rows)
        with tf.control_dependencies([self._all_sent()]):
            return tf.identity(loss), state

    def _all_rows(self, tensor, state, gradient):
        """Returns (tensor, state) of all rows, given those of the own rows.

        The workers' wishes (see agree) travel with them.

        Args:
          tensor: [n] or [n, size], num_steps values or lines for each row.
          gradient: a function of the gradient of the whole, which returns that of the own rows.
        """
        with tf.name_scope("all_rows"):
            wishes = tf.numpy_function(self._ask, [], tf.float32)
            wishes.set_shape([2])
            own = [tensor, *tf.nest.flatten(state)]
            *received, wishes = self.together([*(tf.cast(t, tf.float32) for t in own), wishes])
            whole, *states = [
                tf.cast(tf.concat(tf.unstack(of_all), axis=0), t.dtype)
                for of_all, t in zip(received, own)
            ]
            with tf.control_dependencies([tf.numpy_function(self._hear, [wishes], [])]):
                whole = tf.identity(whole)
            of_all = tf.custom_gradient(lambda _: (whole, gradient))
            return of_all(tensor), tf.nest.pack_sequence_as(state, states)

    def own_variables(self, variables):
        return [self._parts.get(variable.name, variable) for variable in variables]

    @property
    def _parts(self):
        """The parts of variables that this worker has for its own words: {variable's name: it}."""
        return self._own_words.parts if self._own_words else {}

    def add(self, gradients, variables):
        """See Alone. The sum of a large gradient starts as soon as the gradient is there.

        All others travel in one message. Of IndexedSlices the slices of all workers are put
        together, one for each occurrence of a word, as a single process has them. What is shared
        out by words needs no sum.
        """
        with tf.name_scope("add"):
            added, small = list(gradients), {}
            for k, (gradient, variable) in enumerate(zip(gradients, variables)):
                if isinstance(gradient, tf.IndexedSlices):
                    # The bits of the indices travel as if they were those of floats.
                    small[k] = [gradient.values, tf.bitcast(gradient.indices, tf.float32)]
                elif not self._is_part(variable):
                    if gradient.shape.num_elements() > FEW:
                        added[k] = self._sum(gradient)
                    else:
                        small[k] = [gradient]
            received = self.together(tf.nest.flatten(small))
            for k, of_all in tf.nest.pack_sequence_as(small, received).items():
                gradient = gradients[k]
                if isinstance(gradient, tf.IndexedSlices):
                    values, indices = (tf.concat(tf.unstack(each), axis=0) for each in of_all)
                    indices = tf.bitcast(indices, gradient.indices.dtype)
                    added[k] = tf.IndexedSlices(values, indices, gradient.dense_shape)
                else:
                    added[k] = tf.add_n(tf.unstack(of_all[0]))
            return added, self._global_norm(added, variables)

    def _global_norm(self, gradients, variables):
        """Returns the global norm of gradients; worker 0 counts those that all workers have alike.

        A sum of many squares depends on the number of threads, and the workers need the same bits.
        """
        counted = [
            gradient for gradient, variable in zip(gradients, variables)
            if self.is_first or self._is_part(variable)
        ]
        norm = tf.global_norm(counted) if counted else tf.zeros([])
        squares, = self.together([norm ** 2])
        with tf.control_dependencies([self._all_sent()]):
            return tf.sqrt(tf.add_n(tf.unstack(squares)))

    def on_first(self, function):
        if not self.is_first:
            return pickle.loads(self._tell(b"")[0])
        try:
            outcome = function()
        except UserError as error:
            self._tell_failure(error)
            raise
        self._tell(pickle.dumps(outcome))
        return outcome

    def spread(self, session, variables):
        with tf.Graph().as_default():  # The session's own graph may be finalized.
            values, sent = [], []
            for variable in variables:
                description = {**self._collective(), "shape": variable.shape}
                if self.is_first:
                    values.append(tf.placeholder(variable.dtype.base_dtype, variable.shape))
                    sent.append(tf.raw_ops.CollectiveBcastSend(input=values[-1], **description))
                else:
                    sent.append(tf.raw_ops.CollectiveBcastRecv(
                        T=variable.dtype.base_dtype, **description
                    ))
            with tf.Session(self.target, config=self._message_options()) as wire, self._waiting():
                feed_dict = dict(zip(values, session.run(variables))) if self.is_first else {}
                received = wire.run(sent, feed_dict)
        for variable, value in zip(variables, received):
            checkpoint.assign(session, variable, value)
            if variable.name in self._parts:
                own = value[..., self._own_words.words]
                checkpoint.assign(session, self._parts[variable.name], own)
        self._has_told = True  # From here on the others are within a step.

    def collect(self, session, variables):
        shared = [variable for variable in variables if variable.name in self._parts]
        if not shared:
            return
        values = session.run(self.own_variables(shared))
        all_values = [pickle.loads(told) for told in self._tell(pickle.dumps(values))]
        for variable, columns in zip(shared, zip(*all_values)):
            checkpoint.assign(session, variable, np.concatenate(columns, axis=-1))

    def _is_part(self, variable):
        return any(variable is part for part in self._parts.values())

    def agree(self, signum, save_is_due):
        asked, saves = self._heard
        # A save that is agreed on now is not asked for once more.
        self._wishes = (signum or 0, int(save_is_due and self.is_first and not saves))
        return asked or None, bool(saves)

    def say_why(self, error):
        """Tells the others, before the training begins, of the UserError that ends this worker."""
        if not self._has_told:
            self._tell_failure(error)

    def missing(self, error):
        """Returns the UserError for an OpError, where it comes from another worker; else None."""
        self._wait = None
        if "joining a group with size" in str(error):
            return UserError("TF_CONFIG: the workers do not agree on how many they are")
        for _ in range(int(ANSWER_TIME / TICK)):
            problems = self._problems(ANSWER_TIME)
            if problems:
                fates = [f"{self._name(i)} {_fate(why)}" for i, why in problems.items()]
                return UserError(f"{'; '.join(fates)}; {AGAIN}")
            time.sleep(TICK)
        if not self._has_told:
            return UserError(f"the workers cannot talk to each other: {_reason_of(error)}")
        return None

    def linger(self):
        """Waits for a moment in which the server still answers, so that nobody misses it first."""
        self._wait = None
        time.sleep(LINGER)

    def _start_server(self):
        cluster = tf.train.ClusterSpec({"worker": self._addresses})
        try:
            return tf.train.Server(
                cluster, job_name="worker", task_index=self._index, config=self._message_options()
            )
        except tf.errors.OpError as error:
            port = _host_and_port(self._addresses[self._index])[1]
            reason = _reason_of(error)
            with contextlib.suppress(OverflowError), socket.socket() as probe:
                try:
                    probe.bind(("", port))
                except OSError as refused:
                    reason = refused.strerror
            raise UserError(
                f"{self._name(self._index)}: port {port} cannot be opened here ({reason}); name "
                "another one in the TF_CONFIG of all workers"
            ) from error

    def _wait_for_all(self):
        """Returns when every other worker can be reached; UserError after self._patience."""
        start = time.monotonic()
        with Line() as line:
            while problems := self._problems(ANSWER_TIME):
                i, problem = next(iter(problems.items()))
                if time.monotonic() - start >= self._patience:
                    raise UserError(
                        f"{self._name(i)} has not come within {self._patience:g} seconds "
                        f"({problem}); {AGAIN}, or raise --wait_minutes"
                    )
                line.show(f"Waiting for {self._name(i)}: {problem}")
                time.sleep(TICK)

    def _name(self, i):
        return f"worker {i} ({self._addresses[i]})"

    def _problems(self, seconds):
        """Returns {i: why worker i does not answer} of those that do not within so many seconds."""
        others = [i for i in range(len(self._addresses)) if i != self._index]
        problems = dict.fromkeys(others, SILENT)

        def ask(i):
            problems[i] = _problem_of(self._addresses[i], seconds)

        threads = [threading.Thread(target=ask, args=[i], daemon=True) for i in others]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(end - time.monotonic(), 0))  # A name may take long to be resolved.
        return {i: problem for i, problem in problems.items() if problem}

    @contextlib.contextmanager
    def _waiting(self):
        """Within it this worker waits for the others."""
        before, self._wait = self._wait, object()
        yield
        self._wait = before

    def _watch(self, _):
        """Ends the process, with one line, when it has waited too long for the others.

        TensorFlow would wait forever in places, and the main thread with it. Only seconds in which
        this process itself runs are counted, so that a machine may sleep.
        """
        waited, last = 0.0, None
        while True:
            time.sleep(TICK)
            waited = waited + TICK if self._wait is last else 0.0
            last = self._wait
            if last is None:
                continue
            problem = None
            if waited >= self._patience:
                silent = map(self._name, self._problems(ANSWER_TIME))
                problem = (
                    f"{' and '.join(silent) or 'another worker'} did not answer within "
                    f"{self._patience:g} seconds; {AGAIN}, or raise --wait_minutes"
                )
            elif waited and waited % LOOK == 0:
                gone = [i for i, why in self._problems(TICK).items() if why == REFUSED]
                if gone:
                    names = " and ".join(map(self._name, gone))
                    problem = f"{names} {_fate(REFUSED)}; {AGAIN}"
            if problem and self._wait is last:
                self._give_up(problem)

    def _give_up(self, message):
        clear = "\r\033[K" if sys.stderr.isatty() else ""
        print(f"{clear}{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr, flush=True)
        time.sleep(LINGER)
        os._exit(2)

    def _ask(self):
        return np.asarray(self._wishes, np.float32)

    def _hear(self, wishes):
        self._heard = tuple(int(wish) for wish in wishes.max(axis=0))

    def _tell_failure(self, error):
        """Tells the others, who wait for a message, why there is none."""
        with contextlib.suppress(UserError):  # Others may fail as well.
            self._tell(str(error).encode(), failed=1)

    def _tell(self, message, failed=0):
        """Returns the messages (bytes) of all workers, each of which gives its own.

        Raises:
          UserError: another worker has failed and given its reason as a message.
        """
        received = [bytearray() for _ in self._addresses]
        failures = np.zeros(len(self._addresses))
        for start in itertools.count(0, PIECE):
            piece = message[start : start + PIECE]
            left = max(len(message) - start - PIECE, 0)
            numbers = np.frombuffer(piece.ljust(PIECE, b"\0"), np.int32)
            with self._waiting():
                numbers = np.concatenate([[len(piece), left, failed], numbers])
                pieces = self._session.run(self._all_pieces, {self._own_piece: numbers[None]})
            sizes, lefts, failures = pieces[:, :3].T
            for i, size in enumerate(sizes):
                received[i] += pieces[i, 3:].tobytes()[:size]
            if not lefts.any():
                break
        if failed or failures.any():
            self._has_told = True
            raise UserError("; ".join(
                f"{self._name(i)}: {received[i].decode()}" for i in np.flatnonzero(failures)
            ))
        return received

    def together(self, tensors):
        """Returns of each tensor those of all workers, [number, *shape], sent in one message."""
        flat = [tf.reshape(tensor, [-1]) for tensor in tensors]
        received = tf.stack(self._exchanged([tf.concat(flat, axis=0)] * len(self._addresses)))
        sizes = [each.shape[0] for each in flat]
        received.set_shape([len(self._addresses), sum(sizes)])
        parts = tf.split(received, sizes, axis=1)
        return [tf.reshape(part, [-1, *tensor.shape]) for part, tensor in zip(parts, tensors)]

    def _sum(self, tensor):
        """Returns the sum of the tensors of all workers, with the same bits on each of them.

        Each worker adds up one piece of them, and sends that to all. Between two workers, whole
        tensors are no more to send than their pieces and sums.
        """
        number, size = len(self._addresses), tensor.shape.num_elements()
        if number == 2:
            return self._added([tensor, tensor])
        ends = [size * i // number for i in range(number + 1)]
        pieces = tf.split(tf.reshape(tensor, [-1]), np.diff(ends))
        sums = self._exchanged([self._added(pieces)] * number)
        return tf.reshape(tf.concat(sums, axis=0), tensor.shape)

    def _sum_of_own_rows(self, tensor):
        """Returns this worker's rows of the sum of the tensors of all workers."""
        return self._added(tf.split(tensor, len(self._addresses)))

    def _added(self, tensors):
        """Returns the sum of what all workers have for this one; see _exchanged."""
        received = self._exchanged(tensors)
        for tensor in received:
            tensor.set_shape(tensors[self._index].shape)
        return tf.add_n(received)

    def _exchanged(self, tensors):
        """Returns what each worker has for this one, given what this one has for each worker.

        A worker puts a tensor for each other one into a queue of that one, and takes those for it
        out of its own. TensorFlow copies a tensor less often in this than in a collective
        operation, which takes 1.5 times the processor time. No gradient goes through.

        The queues are the receiver's: if it took the tensor out of the sender's, it would have to
        wait whenever a long operation keeps the sender busy. For the same reason a worker takes
        nothing out before it has something to send. Something has to depend on _all_sent in the
        end, or nothing is sent.
        """
        key, own = next(self._keys), self._index
        dtype = tensors[own].dtype

        def queue(sender, receiver):
            name = f"{key} from {sender} to {receiver}"
            return tf.queue.FIFOQueue(1, [dtype], shared_name=name)

        received, others = list(tensors), [i for i in range(len(tensors)) if i != own]
        for i in others:
            with tf.device(f"/job:worker/task:{i}/cpu:0"):
                self._sent.append(queue(own, i).enqueue(tensors[i]))
            with tf.device(f"{self.device}/cpu:0"), tf.control_dependencies([tensors[i]]):
                received[i] = queue(i, own).dequeue()
        return [tf.stop_gradient(tensor) for tensor in received]

    def _all_sent(self):
        """Returns an operation that waits until the others have what is sent to them so far."""
        sent, self._sent = self._sent, []
        return tf.group(*sent)


class OwnWords(fused.AllWords):
    """One worker's part of the vocabulary; it computes the softmax layer for these words only.

    That is for the outputs of all rows, which the workers put together. Then the gradients of
    softmax_w and softmax_b need not be added up, and each worker trains the columns of its own
    words, which are variables of their own that no checkpoint has. What travels instead is the
    output of every word in the batch, and its gradient, which is less where a batch has fewer words
    than the vocabulary.

    Args:
      worker: the Worker.
      vocab_size: how many words there are in all.
      number, index: how many workers share them, and which of them this one is.

    Attributes:
      words: a slice of the word ids.
      parts: {name of a variable: the own words' columns of it, a variable}.
    """

    def __init__(self, worker, vocab_size, number, index):
        self._worker = worker
        self.words = slice(vocab_size * index // number, vocab_size * (index + 1) // number)
        self.parts = {}

    def part_of(self, variable):
        """Returns the own words' columns of a variable; Worker.spread gives them their values."""
        if variable.name not in self.parts:
            *rows, _ = variable.shape
            # Whoever forgets Worker.spread gets a cost that is not finite.
            value = tf.fill([*rows, self.words.stop - self.words.start], np.float32(np.nan))
            self.parts[variable.name] = tf.Variable(
                value, trainable=False,
                collections=[tf.GraphKeys.LOCAL_VARIABLES], name=f"{variable.op.name}/part",
            )
        return self.parts[variable.name]

    def own_targets(self, targets):
        own = tf.clip_by_value(targets, self.words.start, self.words.stop - 1)
        return own - self.words.start, tf.cast(tf.equal(own, targets), tf.float32)

    def losses(self, highest, sums, target_logits, is_own):
        all_highest, all_sums, all_target_logits, all_is_own = self._worker.together(
            [highest, sums, target_logits, is_own]
        )
        top = tf.reduce_max(all_highest, axis=0)
        total = tf.reduce_sum(all_sums * tf.exp(all_highest - top), axis=0)
        target_logits = all_is_own * (all_target_logits + (all_highest - top))
        losses = tf.log(total) - tf.reduce_sum(target_logits, axis=0)
        # softmax_loss divides exp(x - highest) by these sums, so that they have to be relative to
        # the own words' highest logit, too. Where that is more than 60 below the top, the own
        # words' probabilities are below 1e-26 and need not be exact; float32 overflows from 88 on.
        return total * tf.exp(tf.minimum(top - highest, 60.0)), losses


def by_words(batch_words, size, vocab_size, number):
    """Returns whether workers send less when they share the softmax layer by words, not by rows.

    By rows, its gradients are summed, of which a worker sends nearly everything twice. By words,
    the outputs and their gradients are sent once, and four numbers for each of the batch's words
    once by every worker.

    Args:
      batch_words: how many words all rows of a batch have.
      size: the number of units.
      vocab_size: how many words the vocabulary has.
      number: how many workers there are.
    """
    return (2 * size + 4 * number) * batch_words < 2 * (size + 1) * vocab_size


def member(flags):
    """Returns a decorator of a script's main: while it runs, this process is one of the workers.

    Args:
      flags: the script's flags; `wait_minutes` is used.
    """

    def decorate(main):
        @functools.wraps(main)
        def joined(argv):
            with join(os.environ.get("TF_CONFIG", ""), 60 * flags.wait_minutes):
                return main(argv)

        return joined

    return decorate


@contextlib.contextmanager
def join(tf_config, patience):
    """Within it this process is one of the workers that TF_CONFIG names, where it names several.

    Args:
      tf_config: the value of the environment variable.
      patience: seconds for which a worker waits for the others.

    Raises:
      UserError: TF_CONFIG makes no sense; or a worker is missing, has ended, or does not answer.
    """
    addresses, index = read_tf_config(tf_config)
    if len(addresses) < 2:
        yield
        return
    if not patience < math.inf:
        raise UserError(f"--wait_minutes is {patience / 60}; it must be a finite number")
    try:
        worker = _here.workers = Worker(addresses, index, patience)
        try:
            yield
        except UserError as error:
            worker.say_why(error)
            raise
        except tf.errors.OpError as error:
            cause = worker.missing(error)
            if cause is None:
                raise
            raise cause from error
        finally:
            worker.linger()
    finally:
        _here.workers = None


def read_tf_config(text):
    """Returns (addresses of the workers, this process's place among them); ([], 0) without any.

    A chief is worker 0, and the others follow it.

    Raises:
      UserError: the text is not what TensorFlow means by TF_CONFIG, or this is no worker.
    """

    def fail(problem):
        raise UserError(
            f"TF_CONFIG {problem}; it looks like this: "
            '{"cluster": {"worker": ["host:port", "host:port"]}, '
            '"task": {"type": "worker", "index": 0}}'
        )

    try:
        value = json.loads(text.strip() or "{}")
    except ValueError as error:
        fail(f"is not JSON ({error})")
    if not isinstance(value, dict):
        fail("is not a JSON object")
    cluster, task = value.get("cluster") or {}, value.get("task") or {}
    if not cluster:
        return [], 0
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        fail("has a cluster or a task that is not a JSON object")
    for job, addresses in cluster.items():
        if not isinstance(addresses, list):
            fail(f"has no list of addresses for {job}")
        if addresses and job not in ("chief", "worker"):
            fail(f"names a {job}, which this program does not have")
    chiefs, others = cluster.get("chief", []), cluster.get("worker", [])
    if len(chiefs) > 1:
        fail("names more than one chief")
    addresses = [*chiefs, *others]
    for address in addresses:
        if not isinstance(address, str) or not re.fullmatch(r"(\[[^]]+\]|[^:\s]+):\d+", address):
            fail(f"has the address {address!r}, which is not host:port")
        if not 0 < _host_and_port(address)[1] < 1 << 16:
            fail(f"has the address {address!r}, whose port is not between 1 and 65535")
    for address, times in collections.Counter(addresses).items():
        if times > 1:
            fail(f"names {address} more than once")
    job, index = task.get("type"), task.get("index", 0)
    if job not in ("chief", "worker") or not cluster.get(job):
        fail(f"has a task of type {job!r}, and the cluster has no such job")
    if isinstance(index, str) and index.isdecimal():
        index = int(index)
    if type(index) is not int or not 0 <= index < len(cluster[job]):
        fail(f"has task index {index!r}; the cluster has {len(cluster[job])} of type {job}")
    return addresses, index + (len(chiefs) if job == "worker" else 0)


def _problem_of(address, seconds):
    """Returns why the server at an address does not answer within so many seconds, or "".

    A connection alone says little, because the system opens it even where the process is halted.
    But a gRPC server answers the greeting with which HTTP/2 begins.
    """
    try:
        with socket.create_connection(_host_and_port(address), seconds) as connection:
            connection.sendall(GREETING)
            return "" if connection.recv(1) else "it does not speak TensorFlow's protocol"
    except ConnectionRefusedError:
        return REFUSED
    except TimeoutError:
        return SILENT
    except OSError as error:
        return error.strerror or str(error)
    except UnicodeError:
        return "not a name of a host"


def _fate(problem):
    """Returns what has become of a worker, given why no connection to it can be made."""
    return "is gone" if problem == REFUSED else f"cannot be reached ({problem})"


def _host_and_port(address):
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


def _reason_of(error):
    """Returns the line of an OpError that says most, without the graph's."""
    lines = [line for line in error.message.splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _checksums_of_code():
    """Returns {file: checksum} of the code that all workers must share.

    configs.py is not among it, since the values of the configuration are compared themselves.
    """
    root = pathlib.Path(__file__).resolve().parent.parent
    paths = [root / "lstm.py", *sorted(root.glob("ptb/*.py"))]
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def _difference(name, theirs, firsts):
    """Returns how a worker differs from worker 0 in a fact, for a sentence."""
    kind, _, rest = name.partition(".")
    if kind in ("code", "ids"):
        return f"another {rest}" + (" text" if kind == "ids" else "")
    return f"{name} {theirs!r}, and worker 0 has {firsts!r}"


def launch(command, number):
    """Starts a command as so many workers on this machine, and returns the worst exit status.

    What worker 0 prints is shown as it is, and of the others what they write to stderr. Signals are
    passed on to all workers. When one has failed, the others have GRACE seconds to end as well.

    Args:
      command: the words after the name of Python.
      number: how many workers there are.

    Raises:
      UserError: there are GPUs, but not enough of them.
    """
    addresses = free_addresses(number)
    processes, shown, threads = [], set(), []
    for index, resources in enumerate(_shares(number)):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        process = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **resources, "TF_CONFIG": json.dumps(task)},
            stdout=subprocess.DEVNULL if index else None,
            stderr=subprocess.PIPE if index else None,
            stdin=subprocess.DEVNULL if index else None,
            start_new_session=True,  # A terminal's Ctrl-C then comes to this process alone.
        )
        processes.append(process)
        if index:
            threads.append(threading.Thread(target=_show, args=[index, process.stderr, shown]))
            threads[-1].start()
    for signum in STOP_SIGNALS:
        if signal.getsignal(signum) not in (signal.SIG_IGN, None):
            signal.signal(signum, lambda signum, _: _send(processes, signum))
    failed_at = None
    while any(process.poll() is None for process in processes):
        time.sleep(TICK / 5)
        if failed_at is None and any(process.returncode for process in processes):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > GRACE:
            for process in processes:
                process.kill()
    for thread in threads:
        thread.join()
    # A process that a signal ended has the status -signum in Python, and 128 + signum in a shell.
    return max(128 - p.returncode if p.returncode < 0 else p.returncode for p in processes)


def _send(processes, signum):
    """Passes a signal on to the processes that still run."""
    for process in processes:
        # Windows sends Ctrl-C to every process of a terminal by itself, and has no other signals.
        with contextlib.suppress(ValueError):
            process.send_signal(signum)


def _show(index, stream, shown):
    """Prints on stderr what a worker writes there, without what another one has written before."""
    for line in stream:
        if line not in shown:
            shown.add(line)
            text = line.decode("utf-8", "backslashreplace")
            print(f"worker {index}: {text}", end="", file=sys.stderr)


def free_addresses(number):
    """Returns so many addresses of this machine alone, with ports that are free now.

    Their numbers are below those that systems give to outgoing connections, so that none of these
    takes a port before its worker opens it.
    """
    ports = iter(random.SystemRandom().sample(range(1 << 14, 1 << 15), 1 << 14))
    addresses = []
    while len(addresses) < number:
        host, port = "127.0.0.1", next(ports)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((host, port))
            addresses.append(f"{host}:{port}")
    return addresses


def _shares(number):
    """Returns for each of so many workers the environment that gives it its share of the machine.

    That is a GPU of its own, where there are GPUs, and an equal number of cores.
    """
    gpus = [str(k) for k in range(len(tf.config.list_physical_devices("GPU")))]
    if gpus and len(gpus) < number:
        raise UserError(
            f"--workers {number}: there are {len(gpus)} GPUs; start no more workers than that, or "
            "set CUDA_VISIBLE_DEVICES= to use none"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if gpus and visible else gpus
    threads = str(max(_num_cores() // number, 1))
    return [
        {
            "TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads,
            **({"CUDA_VISIBLE_DEVICES": gpus[index]} if gpus else {}),
        }
        for index in range(number)
    ]


def _num_cores():
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def main(argv=None):
    """Starts the workers that the command line asks for; returns the exit status."""
    parser = command_line.Parser(
        prog="python -m ptb.cluster", description=__doc__.split("\n\n")[-2], add_help=True
    )
    parser.add_argument("--workers", type=int, required=True, help="how many workers to start")
    parser.add_argument("command", nargs="...", help="what each of them runs: a script, its flags")
    args = parser.parse_args(argv)
    if args.workers < 1:
        raise UserError(f"--workers is {args.workers}; the smallest possible is 1")
    if not args.command:
        raise UserError("what are the workers to run? Such as lstm.py --config small")
    if not os.path.isfile(args.command[0]):
        raise UserError(f"{args.command[0]}: no such file")
    return launch(args.command, args.workers)


if __name__ == "__main__":
    command_line.print_whatever_it_is()
    with command_line.errors_in_one_line("ptb.cluster"):
        sys.exit(main())
