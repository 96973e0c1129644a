"""A run in its folder: opened, followed step by step, stopped, finished.

    <save_path>/<config>/
      checkpoint-000012/           the last two and that of the best epoch, see checkpoint.py
      history.csv, events.out.…    see history.py
      lock                         held by the process that trains here, free when that is gone

The same command goes on where the last one ended, with the numbers of a run that was never stopped.
"""

import contextlib
import dataclasses
import itertools
import math
import os
import time

import numpy as np

from ptb import cluster, machine
from ptb.evaluate import perplexity, text_perplexity
from ptb.reader import corpus_files, has_other_space, how_it_is_read
from ptb.rnn import LSTMStateTuple, data_type
from ptb.saving import checkpoint, files, history, identity
from ptb.saving.checkpoint import Position
from ptb.terminal import monitor
from ptb.terminal.command_line import command_of
from ptb.terminal.errors import UserError, memory_needed, stopped
from ptb.terminal.progress import Line
from ptb.terminal.quiet import tf
from ptb.terminal.stop_request import StopRequest

LOSSES_AN_EPOCH = 100  # about how many points of the training loss an event file gets


@contextlib.contextmanager
def open_run(plan, raw_data):
    """Yields the Run that was planned; no other process can train there meanwhile.

    Where several workers train together, the folder is worker 0's, and the others are told what is
    in it.

    Args:
      plan: the plan.Plan.
      raw_data: what reader.ptb_raw_data returned for its corpus.

    Raises:
      UserError: two flags exclude each other; another process trains there; or there are
        checkpoints, and none is whole, or the last one is of another run, or it is within an epoch
        that would not be trained to its end; or the workers do not agree on what they train.
    """
    plan.refuse_impossible()
    flags, worker = plan.flags, cluster.this_worker()
    facts = plan.facts(raw_data)
    worker.compare(identity.flat({**facts, "corpus": {}}))  # The word ids decide.
    cluster.own_part(plan.config)  # It fails, if at all, before anything is moved.
    this_run = None
    with contextlib.ExitStack() as locked, Line() as line:

        def find():
            nonlocal this_run
            folder = plan.folder
            _refuse_to_save_within_a_run(folder)
            files.make_folder(flags.save_path)
            if flags.restart:
                files.set_aside(folder)
            files.make_folder(folder)
            locked.enter_context(files.lock(folder))
            files.remove_unfinished(folder)
            found, damaged = checkpoint.newest(folder, plan.before)
            this_run = Run(folder, plan, raw_data, facts, (found, damaged), line)
            return folder, found and found.path, found and _as_json(found.position)

        folder, path, position = worker.first_says(find)
        if this_run is None:  # Another worker than worker 0 has been told all that it needs.
            found = path and checkpoint.Checkpoint(
                path, facts, _from_json(position, plan), plan.source.vocabulary
            )
            this_run = Run(folder, plan, raw_data, facts, (found, set()), line)
        with line.below_output():
            line.show("Building the model", at_once=True)
            try:
                yield this_run
            except Exception as error:
                if memory_needed(error) is None:
                    raise
                raise this_run.out_of_memory(error) from error


def _refuse_to_save_within_a_run(folder):
    """Raises UserError where a new run's folder would be in another run, which may remove it."""
    save_path = os.path.dirname(folder)
    if checkpoint.is_run(save_path) and not checkpoint.is_run(folder):
        raise UserError(
            f"--save_path: {save_path} is the folder of a run itself; name the one that it is in"
        )
    if checkpoint.is_within_one(save_path):
        raise UserError(
            f"--save_path: {save_path} is in a checkpoint, which its run will remove; name another"
        )


def _as_json(position):
    """Returns a Position as a JSON value; JSON keeps the bits of a float."""
    state = position.state and [[part.tolist() for part in pair] for pair in position.state]
    return {**vars(position), "state": state}


def _from_json(fields, plan):
    """Returns the Position that _as_json wrote, for a planned run."""
    dtype = data_type(plan.number_type)
    results = tuple(history.EpochResult(*result) for result in fields["history"])
    state = fields["state"] and tuple((*np.asarray(pair, dtype),) for pair in fields["state"])
    return Position(**{**fields, "history": results, "state": state})


class Run:
    """A run's folder, which this process alone may change, and how far the run is.

    Attributes:
      folder: its path.
      plan: the plan.Plan.
      line: the progress.Line below what is printed.
      position: the checkpoint.Position in its newest whole checkpoint; of several workers each has
        the state of its own rows.
      max_max_epoch: epochs of the whole run.
      checkpoint_path: the path of its newest whole checkpoint; None where there is none yet.
    """

    def __init__(self, folder, plan, raw_data, facts, newest, line):
        self.folder = folder
        self.plan = plan
        self.line = line
        self.max_max_epoch = plan.config.max_max_epoch
        self._raw_data = raw_data
        self._facts = facts
        self._found, self._damaged = newest  # what checkpoint.newest returned
        self._same_command = "the same command" + (
            " without --restart" if plan.flags.restart else ""
        )
        self._worker = cluster.this_worker()
        self._stat = None if self._worker.index else os.stat(folder)
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
            paths = corpus_files(self.plan.corpus.folder)
            texts = [path for path in paths if has_other_space(path)]
            if texts:
                raise UserError(
                    f"{self.folder} is of the first release, which split the words of {texts[0]} "
                    "at no-break or wide spaces as well. Use another --save_path, or --restart, "
                    "which moves that run aside"
                )
        if self._found:
            identity.refuse_another_run(self.folder, self._found, self._facts, self.plan.source)
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
        best_path = self._worker.first_says(
            lambda: self.best_path(self.position.history, self._found)
        )
        monitor.print_results(self.folder, self.position, self.max_max_epoch, best_path)

    def best_path(self, results, known=None):
        """Returns the checkpoint of the best of the epochs done, or None; see of_best_epoch."""
        best = checkpoint.of_best_epoch(self.folder, results, self._damaged, known)
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
        self._set_variables(session)
        self.save_history(self.position.history)
        training = Training(self, session, model, valid_model)
        with training.stop_request, training.events, self.line:
            self._print_start(session)
            try:
                yield training
            except FloatingPointError as error:
                epoch = min(training.position.epoch + 1, self.max_max_epoch)
                raise UserError(
                    f"epoch {epoch}, learning rate {session.run(model.lr):.3f}: {error}; "
                    + self._worker.first_says(self._way_on)
                ) from error
            training.refuse_lost_output()
            if training.position.test is not None:
                monitor.print_next(self.folder)

    def _set_variables(self, session):
        """Gives the variables in a session the values with which the run begins or goes on."""
        values = self.plan.source.values or {}
        if self._found:
            self.load(session, self._found.variables_path)
        else:
            if values:
                for variable in tf.trainable_variables():
                    checkpoint.assign(session, variable, values[variable.op.name])
            self._worker.spread(session, tf.global_variables())
        values.clear()  # They may be large, and are not needed any more.

    def _print_start(self, session):
        """Prints what is about to run, on what, and where it begins or goes on."""
        plan = self.plan
        monitor.print_start(plan, self._raw_data, machine.description(session), self.folder)
        notes = machine.notes(plan.number_type, plan.flags.rnn_mode)
        notes += how_it_is_read(
            plan.corpus.folder, self._raw_data, plan.source.vocabulary, plan.config.vocab_size,
            plan.source.path,
        )
        for note in notes:
            print(note)
        monitor.print_beginning(self.position, self.max_max_epoch, plan.source.path)

    def _way_on(self):
        """Returns what a person can do when the training has diverged."""
        found = checkpoint.newest_finite(self.folder)
        if not found:  # The same command begins again, from the same first weights.
            fields = "learning_rate or max_grad_norm" if self.plan.source.path else (
                "learning_rate, init_scale or max_grad_norm"
            )
            return f"lower {fields} in configs.py"
        others = (f"{self.folder}-{number}" for number in itertools.count(2))
        save_path = next(path for path in others if not os.path.lexists(path))
        changes = {"init_from": found.path, "save_path": save_path}
        if self.plan.corpus.kind == "sample":  # It may be that of a start without a network.
            changes["data_path"] = self.plan.corpus.folder
        command = command_of(self.plan.flags, restart=None, **changes)
        best_path = self.best_path(found.position.history)  # The last may be bad, though finite.
        is_another = best_path and best_path != found.path
        return (
            f"the last checkpoint with finite weights is {found.path}, after "
            f"{monitor.done(found.position)}"
            + (f" (that of the best epoch is {best_path})" if is_another else "")
            + "; lower learning_rate or max_grad_norm in configs.py, and start anew from it: "
            + command
        )

    def save(self, position, values):
        """Writes a checkpoint, and removes those that are no longer needed.

        Args:
          position: the checkpoint.Position.
          values: {name of a variable: array}.

        Raises:
          UserError: it cannot be written; the checkpoints on disk stay.
        """

        def write():
            with self.saving():
                self.checkpoint_path = checkpoint.save(
                    self.folder, self._facts, position, self.plan.source.vocabulary, values
                )
                checkpoint.prune(self.folder, self._damaged)
            return self.checkpoint_path

        self.checkpoint_path = self._worker.first_says(write)

    def load(self, session, path):
        """Loads the variables at a path, as a saver takes it, into the sessions of all workers."""
        variables = tf.global_variables()
        self._worker.first_says(lambda: checkpoint.restore(session, path, variables))
        self._worker.spread(session, variables)

    def save_history(self, results):
        """Writes history.csv for the EpochResult of every epoch that is done."""
        if self._worker.index == 0:
            with self.saving():
                history.write_csv(self.folder, results)

    def event_file(self, epoch_size):
        """Returns the history.EventFile of the run, which goes on from its position.

        Args:
          epoch_size: training steps of an epoch.
        """
        epochs, steps = self.position.epoch, self.position.epoch * epoch_size
        with self.saving():
            return history.EventFile(None if self._worker.index else self.folder, {
                "Training Loss": steps + self.position.step,
                "Learning Rate": steps,
                "Validation Loss": steps,
                "Train Perplexity": epochs,
                "Valid Perplexity": epochs,
            })

    @contextlib.contextmanager
    def saving(self):
        """Within it, what cannot be written in the run's folder is a UserError."""
        try:
            if self._stat and not files.is_still(self.folder, self._stat):
                raise UserError(
                    f"{self.folder} was moved or deleted while the run trained; once it is back "
                    f"there, {self._same_command} continues from its last checkpoint"
                )
            yield
        except (OSError, tf.errors.OpError) as error:
            reason = files.reason_of(error)
            what_stays = "no checkpoint is there yet"
            if self.checkpoint_path:
                what_stays = (
                    f"the last whole checkpoint stays, and {self._same_command} continues from it"
                )
            raise UserError(f"cannot save in {self.folder}: {reason}; {what_stays}") from error

    def stopped(self, signum, failure):
        """Returns what to raise for a request to stop when the run is saved; see errors.stopped."""
        way_on = f"{self._same_command} goes on from {self.checkpoint_path}"
        return stopped(signum, failure, f"stopped; {way_on}")

    def out_of_memory(self, error):
        """Returns the UserError for an error that memory_needed knows."""
        if self.checkpoint_path:
            way_on = (
                f"end other programs; {self._same_command} goes on from {self.checkpoint_path}"
            )
        else:
            way_on = (
                f"{self.plan.memory_of_weights()}, and as much again for their gradients: lower "
                "hidden_size, num_layers or vocab_size in configs.py; or batch_size or num_steps, "
                "which decide what a step needs besides"
            )
        return UserError(f"out of memory ({memory_needed(error)}); {way_on}")


class Training:
    """A run in a session, which is told of each step; see Run.going_on.

    Attributes:
      position: the checkpoint.Position. It moves here only: after a training step, after an epoch
        and at the end.
    """

    def __init__(self, this_run, session, model, valid_model):
        self.position = this_run.position
        self._run = this_run
        self._session = session
        self._input = model.input
        self._valid_input = valid_model.input
        self.events = this_run.event_file(model.input.epoch_size)
        self._display = monitor.Monitor(
            this_run.plan.config, model.input.epoch_size, this_run.line
        )
        self.stop_request = StopRequest()
        self._save_seconds = 60 * this_run.plan.flags.save_minutes  # between two checkpoints
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
        """To be called after every step of a test; stops, but does not save: all is saved then.

        While the best epoch is tested, the session has its variables, not those of the last one.
        """
        signum, _ = cluster.this_worker().agree(self.stop_request.signum, is_due=False)
        if signum:
            raise self._run.stopped(signum, self.stop_request.failure)

    def _trained(self, cost, now):
        self.position = dataclasses.replace(
            now, epoch=self.position.epoch, history=self.position.history
        )
        so_far = self._perplexity("train", now)
        if now.step % max(self._input.epoch_size // LOSSES_AN_EPOCH, 1) == 0:
            with self._run.saving():
                self.events.add(self._steps_done(), {"Training Loss": cost})
        self._display.train_step(self.position, so_far)
        self._save_when_due()

    def _validated(self, _, now):
        self._perplexity("valid", now)
        self._valid_seconds = now.seconds
        self._display.valid_step(self.position, now.step / self._valid_input.epoch_size)
        self._save_when_due()

    def _perplexity(self, what, now):
        """Returns the perplexity so far; FloatingPointError where it is too large for a float."""
        so_far = perplexity(now.costs, now.step * self._input.num_steps)
        if so_far == math.inf:
            raise FloatingPointError(f"the {what} perplexity is infinite at step {now.step}")
        return so_far

    def end_epoch(self, learning_rate, train_perplexity, valid_perplexity):
        """Remembers an epoch, moves on to the start of the next one, and saves."""
        rows = self._input.batch_size * cluster.this_worker().number
        num_words = rows * self._input.num_steps * self._input.epoch_size
        result = history.EpochResult(
            learning_rate, train_perplexity, valid_perplexity, num_words / self.position.seconds,
            self.position.seconds + self._valid_seconds,
        )
        results = (*self.position.history, result)
        loss = math.log(valid_perplexity) * self._input.num_steps  # mean cost of a step
        with self._run.saving():
            if not self.events.graph_is_there:  # It would take too long at the start of a run.
                self.events.add_graph(tf.get_default_graph())
            self.events.add(
                self._steps_done(), {"Learning Rate": learning_rate, "Validation Loss": loss}
            )
            self.events.add(len(results), {
                "Train Perplexity": train_perplexity, "Valid Perplexity": valid_perplexity,
            })
        self._save(Position(epoch=len(results), history=results))
        self._run.save_history(results)

    def refuse_lost_output(self):
        """Raises what errors.stopped returns where the output of a finished run is lost."""
        if self.stop_request.failure:
            raise stopped(
                self.stop_request.signum, self.stop_request.failure,
                f"the run in {self._run.folder} is finished",
            )

    def finish(self, test_perplexity, test_model):
        """Remembers the test perplexity, saves, and returns the path of the model.

        Where the best epoch is not the last one, it is tested as well, with the PTBModel that was
        tested.
        """
        if self._run.plan.corpus.kind == "sample":
            print("(on the sample corpus: compares with nothing published)")
        best_path, best_test = None, None
        if history.best_epoch(self.position.history) < self.position.epoch:
            best_path = cluster.this_worker().first_says(
                lambda: self._run.best_path(self.position.history)
            )
            best_test = best_path and self._test(test_model, best_path)
        self._save(dataclasses.replace(
            self.position, test=test_perplexity, best_test=best_test
        ))
        monitor.print_best(self.position, best_path)
        return os.path.join(self._run.checkpoint_path, checkpoint.VARIABLES)

    def _test(self, model, best_path):
        """Returns the test perplexity of the best epoch's checkpoint.

        The variables in the session are those of the run's last checkpoint before and afterwards.
        """
        self._run.load(self._session, os.path.join(best_path, checkpoint.VARIABLES))
        test_perplexity = text_perplexity(self._session, model, self.after_test_step)
        last = os.path.join(self._run.checkpoint_path, checkpoint.VARIABLES)
        self._run.load(self._session, last)
        return test_perplexity

    def _steps_done(self):
        """Returns the number of training steps of the run so far."""
        return self.position.epoch * self._input.epoch_size + self.position.step

    def _save_when_due(self):
        """Saves when it is time to; saves and raises errors.stopped when that was asked for."""
        is_due = time.perf_counter() - self._saved_at >= self._save_seconds
        signum, is_due = cluster.this_worker().agree(self.stop_request.signum, is_due)
        if signum or is_due:
            self._save(self.position)
        if signum:
            raise self._run.stopped(signum, self.stop_request.failure)

    def _save(self, position):
        """Writes a checkpoint with a Position, which is the run's from then on.

        Raises FloatingPointError where a weight is NaN or infinite; nothing is written then.
        """
        values = self._session.run({v.op.name: v for v in tf.global_variables()})
        worker = cluster.this_worker()
        worker.check(values.values())
        for name, value in values.items():
            if not np.isfinite(value).all():
                raise FloatingPointError(f"{name} is not finite any more")
        state = worker.all_rows(position.state)
        self._run.save(dataclasses.replace(position, state=state), values)
        self.position = position
        self._saved_at = time.perf_counter()


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
        self.state = start.state and tuple(LSTMStateTuple(*pair) for pair in start.state)
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


class Supervisor(tf.train.Supervisor):
    """A `tf.train.Supervisor` that initializes the variables, no more.

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
