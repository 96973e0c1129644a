"""A run in its folder: opened, followed step by step, stopped, finished.

    <save_path>/<config>/
      checkpoint-000012/           the last two and that of the best epoch, see checkpoint.py
      history.csv, events.out.…    see history.py
      lock                         held by the process that trains here, free when that is gone

The same command goes on where the last one ended, with the numbers of a run that was never stopped.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import math
import os
import signal
import sys
import threading
import time

import numpy as np

from ptb import cluster, dataset, reader
from ptb.evaluate import perplexity, text_perplexity
from ptb.reader import PARTS, corpus_files, has_other_space, how_it_is_read
from ptb.rnn import LSTMStateTuple, number_type, state_type
from ptb.saving import checkpoint, files, history
from ptb.saving.checkpoint import Position
from ptb.terminal import monitor
from ptb.terminal.command_line import POSITIVE, WHOLE, command_of
from ptb.terminal.errors import READER_GONE, STOP_SIGNALS, Output, UserError, memory_needed, stopped
from ptb.terminal.progress import Line
from ptb.terminal.quiet import tf

FREE_TO_CHANGE = ("rnn_mode", "config.max_max_epoch", "tensorflow")  # between two starts of a run
LOSSES_AN_EPOCH = 100  # about how many points of the training loss an event file gets


def folder_of(flags, corpus):
    """Returns the folder of the run that the flags name, trained on a dataset.Corpus."""
    name = flags.config.lower() + ("-sample" if corpus.kind == "sample" else "")
    return os.path.join(files.local_path(flags.save_path), name)


def find_corpus(flags):
    """Returns the dataset.Corpus of the run that the flags name.

    Where it was trained on the sample before, for want of PTB, PTB is not looked for once more.
    """
    folder = folder_of(flags, dataset.Corpus(dataset.SAMPLE, "sample"))
    is_on_sample = cluster.this_worker().first_says(
        lambda: not flags.restart and checkpoint.is_run(folder)
    )
    explicit = not flags["data_path"].using_default_value
    return dataset.find_corpus(flags.data_path, explicit, is_on_sample)


def find_source(flags, config, corpus):
    """Returns the checkpoint.Source of the run that the flags name.

    With --init_from it is the model named there. A run that goes on needs that no more: its own
    checkpoint has the vocabulary and tells what the run came from, so that the model may be gone
    by then, and the flag may be left out.

    Args:
      flags: the script's flags.
      config: the configuration; a vocab_size of None becomes the number of words there are.
      corpus: the dataset.Corpus.

    Raises:
      UserError: no model is there, it is damaged, within the run's own folder, or of other sizes
        than the configuration; or the corpus cannot be read.
    """
    values = None

    def find():
        nonlocal values
        *told, values = _find_source(flags, config, corpus)
        return told

    # Worker 0 alone needs the values: the others get all variables later.
    source = checkpoint.Source(*cluster.this_worker().first_says(find), values)
    sizes = source.sizes or {"vocab_size": len(source.vocabulary)}
    config.vocab_size = config.vocab_size or sizes["vocab_size"]
    return source


def _find_source(flags, config, corpus):
    """Does what find_source does; the configuration stays as it is."""
    folder = folder_of(flags, corpus)
    path = flags.init_from and files.local_path(flags.init_from)
    if path and files.is_within(path, folder):
        raise UserError(
            f"--init_from {path}: it is in {folder}, where the new run would be saved; use "
            "another --save_path, or leave out --init_from"
        )
    source = None if flags.restart else _source_before(folder)
    if path:
        try:
            named = checkpoint.read_source(path, corpus.folder)
        except UserError as error:
            if not source:
                raise UserError(f"--init_from: {error}") from error
            print(f"--init_from: {error}; the run goes on without it.", file=sys.stderr)
        else:
            _refuse_other_sizes(named, config)
            source = named
    if not source:
        source = checkpoint.Source(reader.read_vocabulary(corpus.folder, config.vocab_size))
    return source


def _source_before(folder):
    """Returns the Source of the run in a folder; None where none is, or its weights were drawn."""
    found, _ = checkpoint.newest(folder) if os.path.isdir(folder) else (None, set())
    if not found or "init_from" not in found.facts:
        return None
    sizes = {name: found.facts["config"][name] for name in checkpoint.SIZES}
    return checkpoint.Source(
        found.vocabulary, found.variables_path, found.facts["init_from"], sizes
    )


def _refuse_other_sizes(source, config):
    """Raises UserError where the weights of a Source do not fit into a configuration's model."""
    different = [
        f"{name} is {size} there and {getattr(config, name)} in {type(config).__name__}"
        for name, size in source.sizes.items() if getattr(config, name) not in (size, None)
    ]
    if different:
        raise UserError(
            f"--init_from {source.path}: {'; '.join(different)}; make it the same in configs.py"
        )


@contextlib.contextmanager
def open_run(flags, config, corpus, raw_data, source):
    """Yields the Run that the flags name; no other process can train there meanwhile.

    Where several workers train together, the folder is worker 0's, and the others are told what is
    in it.

    Args:
      flags: the script's flags.
      config: the configuration.
      corpus: the dataset.Corpus.
      raw_data: what reader.ptb_raw_data returned for it.
      source: what find_source returned for it.

    Raises:
      UserError: two flags exclude each other; another process trains there; or there are
        checkpoints, and none is whole, or the last one is of another run, or it is within an epoch
        that would not be trained to its end; or the workers do not agree on what they train.
    """
    if math.isnan(flags.save_minutes):  # It would never be time to save.
        raise UserError("--save_minutes is nan; it must be a number")
    if flags.use_bf16 and flags.use_fp16:
        raise UserError("--use_bf16 and --use_fp16 exclude each other; leave one of them out")
    needed, there = 4 * _num_weights(config), files.memory_size()
    if needed > there:
        raise UserError(
            f"the weights of {type(config).__name__} need {_shown_bytes(needed)} of memory, and "
            f"this machine has {_shown_bytes(there)}; lower hidden_size, num_layers or vocab_size "
            "in configs.py"
        )
    worker = cluster.this_worker()
    facts = facts_of(config, corpus.folder, raw_data, flags, source)
    worker.compare(_flat({**facts, "corpus": {}}))  # The word ids decide.
    cluster.own_part(config)  # It fails, if at all, before anything is moved.
    this_run = None
    with contextlib.ExitStack() as locked, Line() as line:

        def find():
            nonlocal this_run
            files.make_folder(flags.save_path)
            folder = folder_of(flags, corpus)
            if flags.restart:
                files.set_aside(folder)
            files.make_folder(folder)
            locked.enter_context(files.lock(folder))
            files.remove_unfinished(folder)
            found, damaged = checkpoint.newest(folder)
            this_run = Run(folder, found, damaged, facts, flags, config, corpus, raw_data, source)
            return folder, found and found.path, found and _as_json(found.position)

        folder, path, position = worker.first_says(find)
        if this_run is None:  # Another worker than worker 0 has been told all that it needs.
            found = path and checkpoint.Checkpoint(
                path, facts, _from_json(position, flags), source.vocabulary
            )
            this_run = Run(folder, found, set(), facts, flags, config, corpus, raw_data, source)
        with line.below_output():
            line.show("Building the model", at_once=True)
            try:
                yield this_run
            except Exception as error:
                if memory_needed(error) is None:
                    raise
                raise this_run.out_of_memory(error) from error


def _as_json(position):
    """Returns a Position as a JSON value; JSON keeps the bits of a float."""
    state = position.state and [[part.tolist() for part in pair] for pair in position.state]
    return {**vars(position), "state": state}


def _from_json(fields, flags):
    """Returns the Position that _as_json wrote, for a run with these flags."""
    dtype = state_type(number_type(flags))
    history_ = tuple(history.EpochResult(*result) for result in fields["history"])
    state = fields["state"] and tuple(
        LSTMStateTuple(*np.asarray(pair, dtype)) for pair in fields["state"]
    )
    return Position(**{**fields, "history": history_, "state": state})


class Run:
    """A run's folder, which this process alone may change, and how far the run is.

    Attributes:
      folder: its path.
      position: the checkpoint.Position in its newest whole checkpoint; of several workers each has
        the state of its own rows.
      is_on_sample: whether it trains on the corpus that comes along.
      max_max_epoch: epochs of the whole run.
      save_seconds: time between two checkpoints within an epoch.
      checkpoint_path: the path of its newest whole checkpoint; None where there is none yet.
    """

    def __init__(
        self, folder, found, damaged, facts, flags, config, corpus, raw_data, source
    ):
        self.folder = folder
        self.is_on_sample = corpus.kind == "sample"
        self.max_max_epoch = config.max_max_epoch
        self.save_seconds = 60 * flags.save_minutes
        self._flags = flags
        self._config = config
        self._corpus = corpus
        self._raw_data = raw_data
        self._source = source
        self._facts = facts
        self._same_command = "the same command" + (" without --restart" if flags.restart else "")
        self._worker = cluster.this_worker()
        self._history = history.Nowhere if self._worker.index else history
        self._found, self._damaged = found, damaged
        position = self._found.position if self._found else Position()
        own_state = self._worker.own_rows(position.state)
        self.position = dataclasses.replace(position, state=own_state)
        self.checkpoint_path = self._found.path if self._found else None
        self._refuse_what_cannot_go_on()

    def _refuse_what_cannot_go_on(self):
        if self._damaged and not self._found:
            raise UserError(
                f"{self.folder}: no checkpoint there is whole; train anew: --restart moves the "
                "folder aside first"
            )
        if self._found and "ids" not in self._found.facts:
            texts = [path for path in corpus_files(self._corpus.folder) if has_other_space(path)]
            if texts:
                raise UserError(
                    f"{self.folder} is of the first release, which split the words of {texts[0]} "
                    "at no-break or wide spaces as well. Use another --save_path, or --restart, "
                    "which moves that run aside"
                )
        if self._found:
            refuse_another_run(self.folder, self._found, self._facts, self._source)
        if self.position.step and self.position.epoch >= self.max_max_epoch:
            raise UserError(
                f"max_max_epoch is {self.max_max_epoch}, and {self.folder} is within epoch "
                f"{self.position.epoch + 1}; raise it to that or more"
            )

    @property
    def is_finished(self):
        """Whether no epoch is left, and the test is done."""
        epochs_done = self.position.epoch >= self.max_max_epoch
        return epochs_done and self.position.test is not None

    def show_results(self):
        """Prints the results of a finished run; history.csv is there afterwards if it was lost."""
        self.save_history(self.position.history)
        best_path = self._worker.first_says(lambda: self.best_path(self.position.history))
        monitor.print_results(self.folder, self.position, self.max_max_epoch, best_path)

    def best_path(self, results):
        """Returns the checkpoint of the best of the epochs done, or None; see of_best_epoch."""
        best = checkpoint.of_best_epoch(self.folder, results, self._damaged)
        return best and best.path

    @contextlib.contextmanager
    def going_on(self, session, model, valid_model):
        """Yields the Training: the run goes on in a session, from its newest checkpoint.

        Within the block a signal, such as Ctrl-C, stops the run at the end of a step, and a cost
        that is not finite is a UserError that says where.

        Args:
          session: a session in which all variables are initialized.
          model: the PTBModel that is trained.
          valid_model: the PTBModel that is validated.

        Raises:
          UserError: the variables cannot be loaded, or a file cannot be written.
        """
        if self._found:
            self.load(session, self._found.variables_path)
        else:
            if self._source.values:
                for variable in tf.trainable_variables():
                    checkpoint.assign(session, variable, self._source.values[variable.op.name])
                self._source = self._source._replace(values=None)  # It may be large.
            self._worker.spread(session, tf.global_variables())
        epochs, train_size = self.position.epoch, model.input.epoch_size
        self.save_history(self.position.history)
        with self.saving():
            events = self._history.EventFile(self.folder, {
                "Training Loss": epochs * train_size + self.position.step,
                "Learning Rate": epochs * train_size,
                "Validation Loss": epochs * train_size,
                "Train Perplexity": epochs,
                "Valid Perplexity": epochs,
            })
        display = monitor.Monitor(self._config, train_size)
        with StopRequest() as stop_request, events, display:
            monitor.print_start(
                self._flags, self._config, self._corpus, self._raw_data, session, self.folder,
                self.position, self._source,
                how_it_is_read(
                    self._corpus.folder, self._raw_data, self._source.vocabulary,
                    self._config.vocab_size, self._source.path,
                ),
            )
            training = Training(
                self, session, model, valid_model, events, display, stop_request
            )
            try:
                yield training
            except FloatingPointError as error:
                epoch = min(training.position.epoch + 1, self.max_max_epoch)
                raise UserError(
                    f"epoch {epoch}, learning rate {session.run(model.lr):.3f}: {error}; "
                    + self._worker.first_says(self._way_on)
                ) from error
            if stop_request.failure:
                message = f"the run in {self.folder} is finished"
                raise stopped(stop_request.signum, stop_request.failure, message)
            if training.position.test is not None:
                monitor.print_next(self.folder)

    def _way_on(self):
        """Returns what a person can do when the training has diverged."""
        found = checkpoint.newest_finite(self.folder)
        if not found:  # The same command begins again, from the same first weights.
            fields = "learning_rate or max_grad_norm" if self._source.path else (
                "learning_rate, init_scale or max_grad_norm"
            )
            return f"lower {fields} in configs.py"
        others = (f"{self.folder}-{number}" for number in itertools.count(2))
        save_path = next(path for path in others if not os.path.lexists(path))
        command = command_of(
            self._flags, restart=None, init_from=found.path, save_path=save_path
        )
        best_path = self.best_path(found.position.history)  # The last may be bad, though finite.
        is_another = best_path and best_path != found.path
        return (
            f"the last checkpoint with finite weights is {found.path}, after "
            f"{monitor.done(found.position)}"
            + (f" (that of the best epoch is {best_path})" if is_another else "")
            + "; lower learning_rate or max_grad_norm in configs.py, and start anew from it: "
            + command
        )

    def save(self, position, save_variables):
        """Writes a checkpoint, removes those that are no longer needed, and returns its path.

        Args:
          position: the checkpoint.Position.
          save_variables: a function that writes the variables at the path that it is given.

        Raises:
          UserError: it cannot be written; the checkpoints on disk stay.
        """

        def write():
            with self.saving():
                self.checkpoint_path = checkpoint.save(
                    self.folder, self._facts, position, self._source.vocabulary, save_variables
                )
                checkpoint.prune(self.folder, self._damaged)
            return self.checkpoint_path

        self.checkpoint_path = self._worker.first_says(write)
        return self.checkpoint_path

    def load(self, session, path):
        """Loads the variables at a path, as a saver takes it, into the sessions of all workers."""
        variables = tf.global_variables()
        self._worker.first_says(lambda: checkpoint.restore(session, path, variables))
        self._worker.spread(session, variables)

    def save_history(self, results):
        """Writes history.csv for the EpochResult of every epoch that is done."""
        with self.saving():
            self._history.write_csv(self.folder, results)

    @contextlib.contextmanager
    def saving(self):
        """Within it, what cannot be written in the run's folder is a UserError."""
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            reason = files.reason_of(error)
            what_stays = "no checkpoint is there yet"
            if self.checkpoint_path:
                what_stays = (
                    f"the last whole checkpoint stays, and {self._same_command} continues from it"
                )
            raise UserError(f"cannot save in {self.folder}: {reason}; {what_stays}") from error

    def stopped(self, signum, path, failure):
        """Returns what to raise for a request to stop, when the run is saved in a checkpoint.

        Args:
          signum, failure: see errors.stopped.
          path: that of the checkpoint.
        """
        return stopped(signum, failure, f"stopped; {self._same_command} goes on from {path}")

    def out_of_memory(self, error):
        """Returns the UserError for an error that memory_needed knows."""
        config = self._config
        if self.checkpoint_path:
            way_on = (
                f"end other programs; {self._same_command} goes on from {self.checkpoint_path}"
            )
        else:
            way_on = (
                f"the weights of {type(config).__name__} need "
                f"{_shown_bytes(4 * _num_weights(config))}, and as much again for their gradients: "
                "lower hidden_size, num_layers or vocab_size in configs.py; or batch_size or "
                "num_steps, which decide what a step needs besides"
            )
        return UserError(f"out of memory ({memory_needed(error)}); {way_on}")


class Training:
    """A run in a session, which is told of each step; see Run.going_on.

    Attributes:
      position: the checkpoint.Position. It moves here only: after a training step, after an epoch
        and at the end.
    """

    def __init__(
        self, run, session, model, valid_model, events, display, stop_request
    ):
        self.position = run.position
        self._run = run
        self._session = session
        self._input = model.input
        self._valid_input = valid_model.input
        self._events = events
        self._display = display
        self._stop_request = stop_request
        self._saved_at = time.perf_counter()
        self._valid_seconds = 0.0  # duration of the last validation

    def epochs_left(self):
        """Returns the numbers, from 0, of the epochs that are not trained to their end."""
        return range(self.position.epoch, self._run.max_max_epoch)

    def train_pass(self):
        """Returns the Follower of a training epoch, from the step at which the run is."""
        return Follower(self._trained, self.position)

    def valid_pass(self):
        """Returns the Follower of a validation."""
        return Follower(self._validated)

    def after_test_step(self):
        """To be called after every step of the test; stops or saves as after any other step."""
        self._save_when_due()

    def _trained(self, cost, now):
        self.position = dataclasses.replace(
            now, epoch=self.position.epoch, history=self.position.history
        )
        self._check_perplexity("train", now)
        if now.step % max(self._input.epoch_size // LOSSES_AN_EPOCH, 1) == 0:
            with self._run.saving():
                self._events.add(self._steps_done(), {"Training Loss": cost})
        self._display.train_step(self.position)
        self._save_when_due()

    def _validated(self, _, now):
        self._check_perplexity("valid", now)
        self._valid_seconds = now.seconds
        self._display.valid_step(self.position, now.step / self._valid_input.epoch_size)
        self._save_when_due()

    def _check_perplexity(self, what, now):
        """Raises FloatingPointError where the perplexity so far is too large for a float."""
        if perplexity(now.costs, now.step * self._input.num_steps) == math.inf:
            raise FloatingPointError(f"the {what} perplexity is infinite at step {now.step}")

    def after_best_test_step(self):
        """To be called after every step of the best epoch's test; stops, but does not save."""
        # The session has the variables of the best epoch, and not those of the last one.
        signum, _ = cluster.this_worker().agree(self._stop_request.signum, is_due=False)
        if signum:
            raise self._run.stopped(
                signum, self._run.checkpoint_path, self._stop_request.failure
            )

    def end_epoch(self, learning_rate, train_perplexity, valid_perplexity):
        """Remembers an epoch, moves on to the start of the next one, and saves."""
        rows = self._input.batch_size * cluster.this_worker().number
        words = rows * self._input.num_steps * self._input.epoch_size
        result = history.EpochResult(
            learning_rate, train_perplexity, valid_perplexity, words / self.position.seconds,
            self.position.seconds + self._valid_seconds,
        )
        results = (*self.position.history, result)
        loss = math.log(valid_perplexity) * self._input.num_steps  # mean cost of a step
        with self._run.saving():
            if not self._events.graph_is_there:  # It would take too long at the start of a run.
                self._events.add_graph(tf.get_default_graph())
            self._events.add(
                self._steps_done(), {"Learning Rate": learning_rate, "Validation Loss": loss}
            )
            self._events.add(len(results), {
                "Train Perplexity": train_perplexity, "Valid Perplexity": valid_perplexity,
            })
        self._save(Position(epoch=len(results), history=results))
        self._run.save_history(results)

    def finish(self, test_perplexity, test_model):
        """Remembers the test perplexity, saves, and returns the path of the model.

        Where the best epoch is not the last one, it is tested as well, with the PTBModel that was
        tested.
        """
        if self._run.is_on_sample:
            print("(on the sample corpus: compares with nothing published)")
        best_path, best_test = None, None
        if history.best_epoch(self.position.history) < self.position.epoch:
            best_path = cluster.this_worker().first_says(
                lambda: self._run.best_path(self.position.history)
            )
            best_test = best_path and self._test(test_model, best_path)
        path = self._save(dataclasses.replace(
            self.position, test=test_perplexity, best_test=best_test
        ))
        monitor.print_best(self.position, best_path)
        return os.path.join(path, checkpoint.VARIABLES)

    def _test(self, model, best_path):
        """Returns the test perplexity of the best epoch's checkpoint.

        The variables in the session are those of the run's last checkpoint before and afterwards.
        """
        self._run.load(self._session, os.path.join(best_path, checkpoint.VARIABLES))
        test_perplexity = text_perplexity(self._session, model, self.after_best_test_step)
        last = os.path.join(self._run.checkpoint_path, checkpoint.VARIABLES)
        self._run.load(self._session, last)
        return test_perplexity

    def _steps_done(self):
        """Returns the number of training steps of the run so far."""
        return self.position.epoch * self._input.epoch_size + self.position.step

    def _save_when_due(self):
        """Saves when it is time to; saves and raises errors.stopped when that was asked for."""
        is_due = time.perf_counter() - self._saved_at >= self._run.save_seconds
        signum, is_due = cluster.this_worker().agree(self._stop_request.signum, is_due)
        if signum:
            path = self._save(self.position)
            raise self._run.stopped(signum, path, self._stop_request.failure)
        if is_due:
            self._save(self.position)

    def _save(self, position):
        """Writes a checkpoint with a Position, which is the run's from then on; returns its path.

        Raises FloatingPointError where a weight is NaN or infinite; nothing is written then.
        """
        values = self._session.run({v.op.name: v for v in tf.global_variables()})
        worker = cluster.this_worker()
        worker.check(values.values())
        for name, value in values.items():
            if not np.isfinite(value).all():
                raise FloatingPointError(f"{name} is not finite any more")
        state = worker.all_rows(position.state)
        path = self._run.save(
            dataclasses.replace(position, state=state),
            lambda path: checkpoint.write_variables(path, values),
        )
        self.position = position
        self._saved_at = time.perf_counter()
        return path


class Follower:
    """Follows a pass over a text: says where it starts, and is told of each step.

    Alone it starts at the first step, and tells nobody.

    Args:
      tell: a function to call after each step, with the step's cost and a Position: that of the
        pass alone, without the epochs before it.
      start: a Position, how much of the pass is done; None is nothing.

    Attributes:
      step, costs, seconds, state: the number of steps that are done at the start, the sum of their
        costs, their duration, and the state after them; None is the zero state.
    """

    def __init__(self, tell=lambda cost, now: None, start=None):
        start = start or Position()
        self.step = start.step
        self.costs = start.costs
        self.seconds = start.seconds
        self.state = start.state
        self._tell = tell
        self._start_time = time.perf_counter() - start.seconds

    def after_step(self, step, cost, costs, state):
        """To be told of every step: how many are done, its cost, the sum of all, the state.

        Raises:
          UserError: a checkpoint is due and cannot be written.
          Stopped: somebody asked to stop, and the run is saved; see errors.stopped.
        """
        seconds = time.perf_counter() - self._start_time
        self._tell(cost, Position(step=step, costs=costs, seconds=seconds, state=state))


class StopRequest:
    """While it is entered, a signal that asks to stop is kept in `signum`.

    These are Ctrl-C, the end of a terminal, and what batch systems send before they end a job. A
    signal that is ignored stays ignored, as under `nohup`. After the first request a second Ctrl-C
    ends the process at once. Outside the main thread Python has no signals, and none is kept.

    What is printed meanwhile raises nothing. Where stdout cannot be written to, that asks to stop
    as well: `signum` is READER_GONE, unless a signal comes, and `failure` the OSError. Nobody needs
    what goes to stderr.
    """

    def __init__(self):
        self.signum = None
        self.failure = None
        self._before = {}
        self._streams = contextlib.ExitStack()

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for signum in STOP_SIGNALS:
                handler = signal.getsignal(signum)
                if handler not in (signal.SIG_IGN, None):
                    self._before[signum] = handler
                    signal.signal(signum, self._keep)
        stdout, stderr = Output(sys.stdout, self._lose_output), Output(sys.stderr)
        self._streams.enter_context(contextlib.redirect_stdout(stdout))
        self._streams.enter_context(contextlib.redirect_stderr(stderr))
        return self

    def __exit__(self, *_):
        self._streams.close()
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _keep(self, signum, _):
        self.signum = signum
        if signal.SIGINT in self._before:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _lose_output(self, error):
        self.failure = error
        self.signum = self.signum or READER_GONE


class Supervisor(tf.train.Supervisor):
    """A `tf.train.Supervisor` that initializes the variables and owns the saver, no more.

    Without a log directory it neither restores nor saves on its own clock, and no thread evaluates
    summaries of the model, which would take batches away from the loop.
    """

    def __init__(self):
        tf.logging.set_verbosity(tf.logging.ERROR)  # It warns that the class is deprecated.
        super().__init__(logdir=None, summary_op=None, save_model_secs=0)

    @contextlib.contextmanager
    def managed_session(self):
        """Yields a session in which the variables are initialized, and closes it.

        TensorFlow's own takes an OutOfRangeError, also that of a damaged file, for the normal end
        of the data and drops it; here it is raised as a RuntimeError.
        """
        worker = cluster.this_worker()
        with super().managed_session(worker.target, worker.options()) as session:
            worker.watch(session)
            try:
                yield session
            except tf.errors.OutOfRangeError as error:
                raise RuntimeError(f"out of range inside the session: {error.message}") from error


def make_deterministic(seed):
    """From here on the same operations of the default graph give the same bits.

    What that changes on a CPU is the update of the embedding: the rows of a word that occurs twice
    are added in order, where else threads might race (20,000 rows in a step did, 700 did not). It
    holds for the whole process, where TensorFlow then asks every graph for a seed.

    On a GPU cuDNN's LSTM is deterministic, as NVIDIA says, where its matrix products have working
    memory of one size.
    """
    import tensorflow  # Its compat.v1 does not have the function.

    tf.set_random_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:2")
    tensorflow.config.experimental.enable_op_determinism()


def facts_of(config, corpus_folder, raw_data, flags, source):
    """Returns what decides a run's numbers, as JSON values by name.

    Of the corpus it is the word ids that decide. The checksums of the files are beside them for
    who looks into run.json, and for runs of the first release, which have no others. `init_from` is
    the checksum of the first weights, where they were not drawn.
    """
    return {
        **({"init_from": source.checksum} if source.checksum else {}),
        "config": {
            **{name: int(getattr(config, name)) for name in WHOLE},
            **{name: float(getattr(config, name)) for name in POSITIVE},
        },
        "corpus": {
            os.path.basename(path): files.sha256_of(path) for path in corpus_files(corpus_folder)
        },
        "ids": {
            part: hashlib.sha256(np.asarray(ids, np.int32)).hexdigest()
            for part, ids in zip(PARTS, raw_data)
        },
        "number_type": number_type(flags),
        "rnn_mode": flags.rnn_mode,
        "seed": flags.seed,
        "tensorflow": tf.__version__,
    }


def refuse_another_run(folder, found, facts, source):
    """Raises UserError, with every difference, where a Checkpoint is not of the run to be trained.

    Args:
      folder: the run's folder.
      found: the Checkpoint in it.
      facts: what facts_of returns for the run to be trained.
      source: its checkpoint.Source.
    """
    before, now = dict(found.facts), dict(facts)
    source_before, source_now = before.pop("init_from", None), now.pop("init_from", None)
    corpus_before, corpus_now = before.pop("corpus", {}), now.pop("corpus", {})
    ids_before, ids_now = before.pop("ids", None), now.pop("ids", None)
    before, now = _flat(before), _flat(now)
    different = [
        f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in sorted({*before, *now})
        if name not in FREE_TO_CHANGE and before.get(name) != now.get(name)
    ]
    if ids_before and found.vocabulary == source.vocabulary:  # Other words have other ids.
        different += [
            f"the {part} text was another one" for part in ids_now
            if ids_before.get(part) != ids_now[part]
        ]
    elif sorted(corpus_before.values()) != sorted(corpus_now.values()):
        different.append("the texts were others")
    if source_before != source_now:
        different.append(
            f"it did not start from {source.path} (leave out --init_from to go on with it)"
        )
    if not different and found.vocabulary != source.vocabulary:
        pairs = itertools.zip_longest(found.vocabulary, source.vocabulary)
        number, (was, is_) = next((i, p) for i, p in enumerate(pairs) if p[0] != p[1])
        different = [f"word {number} of the vocabulary was {was!r} and is {is_!r}"]
    if different:
        message = (
            f"{folder} has another run: {'; '.join(different)}. Use another --save_path, or "
            "--restart, which moves that run aside"
        )
        if all(before.get(f"config.{name}") == now.get(f"config.{name}")
               for name in checkpoint.SIZES):
            start = files.as_typed(["--init_from", folder])
            message += f"; with another --save_path, {start} starts from its weights"
        raise UserError(message)


def _num_weights(config):
    """Returns how many numbers the variables of a configuration's model have."""
    size, vocab_size = config.hidden_size, config.vocab_size
    cell = (2 * size + 1) * 4 * size
    return (2 * size + 1) * vocab_size + config.num_layers * cell


def _shown_bytes(number):
    """Returns a number of bytes as a person reads it, such as "1.5 GiB"."""
    return f"{number / 2**30:,.1f} GiB"


def _flat(facts, prefix=""):
    """Returns {"a.b": value} of {"a": {"b": value}}."""
    flat = {}
    for name, value in facts.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
