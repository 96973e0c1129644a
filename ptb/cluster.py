"""Several workers train one model together: each on its own rows, the gradients averaged.

Row r of a batch goes through one contiguous slice of the text. So a worker that has some of the
rows is an ordinary run on a slice of the text, with a smaller batch. In every step the workers
add up their gradients by TensorFlow's collective operations (between GPUs these use NCCL), and then
make the same update: all keep the same weights, bit for bit.

TF_CONFIG in the environment, in TensorFlow's standard form, says who the workers are and which one
this process is; without it a process is alone, and nothing here changes anything.

    TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]},
                "task": {"type": "worker", "index": 0}}' python lstm.py --config small

Worker 0 alone reads and writes the run's folder, and tells the others what it found. TensorFlow
opens a port on every network of the machine and does what it is asked there, without a password:
use a network that only you can reach.

On one machine ptb/launcher.py starts them all:

    python -m ptb.cluster --trusted_network --workers 4 lstm.py --config small
"""

import concurrent.futures
import contextlib
import copy
import hashlib
import itertools
import json
import math
import os
import pathlib
import re
import socket
import sys
import threading
import time

import numpy as np

from ptb import launcher
from ptb.terminal import command_line
from ptb.terminal.errors import UserError, memory_needed
from ptb.terminal.progress import Line
from ptb.terminal.quiet import session_config, tf

READY, BUSY, FAILED = range(3)  # what a worker says of itself before each message
AGREE = 5  # steps, after each of which the workers agree whether to save or stop
LOOK = 2.0  # seconds between two looks at whether the other workers are there
CONNECT = 3.0  # seconds for a connection; Windows takes two to say that nobody is there
ROUND = 1.0  # seconds after which a busy worker says once more that it is there
LINGER = 1.0  # seconds for which a worker that ends still answers the others
JOBS = ("chief", "master", "worker")  # in TF_CONFIG, in the order of their workers' numbers
ADDRESS = re.compile(r"(\[[^]]+\]|[^:\s]+):\d+")
REFUSED = "Connection refused"
AGAIN = "start the same commands again on all workers"

_here = threading.local()  # Like TensorFlow's default graph, the worker is that of a thread.


def this_worker():
    """Returns the Worker that this process is; it is alone unless TF_CONFIG names others."""
    return getattr(_here, "worker", None) or Worker()


def own_part(config, *texts):
    """Returns a configuration with this worker's rows of a batch, and the ids of them in each text.

    Raises:
      UserError: batch_size is not a multiple of the number of workers.
    """
    worker = this_worker()
    if worker.number == 1:
        return config, *texts
    own = copy.copy(config)
    own.batch_size, left = divmod(config.batch_size, worker.number)
    if left:
        raise UserError(
            f"batch_size is {config.batch_size}, which cannot be shared out evenly among "
            f"{worker.number} workers; change one of them"
        )
    first, last = worker.index * own.batch_size, (worker.index + 1) * own.batch_size
    lengths = [len(ids) // config.batch_size for ids in texts]  # of one row
    return own, *(ids[first * row : last * row] for ids, row in zip(texts, lengths))


def average(tensor):
    """Returns the average over all workers of a tensor, of which each gives its own.

    Its gradient with regard to the own tensor is one over the number of workers; add_up does the
    rest.
    """
    worker = this_worker()
    if worker.number == 1:
        return tensor

    @tf.custom_gradient
    def averaged(own):
        value, = worker.add_up([own / worker.number])
        return value, lambda d_value: d_value / worker.number

    return averaged(tensor)


def add_up(gradients):
    """Returns the sums over all workers of gradients, of which each worker gives those of its rows.

    Of IndexedSlices those of all workers are put one after the other, as a single process has them:
    one for each occurrence of a word.
    """
    return this_worker().add_up(gradients)


class Worker:
    """A process that is alone; Member does the same where it is one of several workers.

    Attributes:
      number: how many workers there are.
      index: which of them this process is; worker 0 has the run's folder.
      target: what a session connects to, as `tf.Session` takes it.
    """

    number, index, target = 1, 0, ""

    def options(self):
        """Returns the `tf.ConfigProto` of a session of this worker."""
        return session_config()

    def watch(self, session):
        """To be told of a session in which this worker may wait for the others."""

    def add_up(self, gradients):
        """Returns the sums of gradients over all workers; see add_up."""
        return gradients

    def compare(self, facts):
        """Raises UserError where the workers' facts {name: JSON value} differ."""

    def in_turn(self, function):
        """Calls a function, worker 0 first, the next one after it; returns what it returned."""
        return function()

    def first_says(self, function):
        """Calls a function on worker 0 alone; its JSON value, or its UserError, is that of all."""
        return function()

    def all_rows(self, state):
        """Returns the state of all rows of a batch, given that of the own rows; None stays None."""
        return state

    def own_rows(self, state):
        """Returns the state of the own rows of a batch, given that of all; None stays None."""
        return state

    def spread(self, session, variables):
        """Sets the variables of all workers to worker 0's values; from here on they train."""

    def check(self, values):
        """Raises UserError where the workers' lists of arrays are not equal, bit for bit."""

    def agree(self, signum, is_due):
        """Returns (signal, whether to save) on which all agree; to be called after every step.

        It is (None, False) after a step that is not one of every AGREE, as messages take time.

        Args:
          signum: the signal that asks this worker to stop, or None.
          is_due: whether it is time to save; worker 0 is asked.
        """
        return signum, is_due


class Member(Worker):
    """One of several workers.

    Args:
      addresses: "host:port" of each worker.
      index: which of them this process is.
      patience: seconds for which it waits for a worker that does not answer.

    Raises:
      UserError: its port cannot be opened, or another worker has not come in time.
    """

    def __init__(self, addresses, index, patience):
        self.number = len(addresses)
        self.index = index
        self._addresses = addresses
        self.name = self._name(index)
        self._patience = patience
        self._within = f"{patience:g} seconds"
        # Each operation has a number, which all workers count in the same order. Messages have
        # their own, as a worker may fail when the others have built more of a graph than it has.
        self._keys, self._message_keys = itertools.count(1 << 20), itertools.count(1)
        self._steps = itertools.count()
        self.can_tell = True  # whether the others still wait for a message, and not for a step
        self._server = self._start_server()
        self.target = self._server.target
        self._wait_for_all()
        self._waits = {}  # of each session.run of now, in a list, how many seconds it takes already
        self._failure = None  # why this worker fails, which nobody may hear any more
        self.has_ended = threading.Event()
        self.last_word = threading.Lock()  # for whoever ends this process; it is never given back
        # A server cannot be stopped, and deleting it might take forever; this thread keeps us both.
        threading.Thread(target=self._watch, daemon=True).start()
        with tf.Graph().as_default():
            self._own_word = tf.placeholder(tf.int32, [1, 2])
            self._all_words = self._gathered(self._own_word, self._message_keys)
            self._session = self._opened()

    def options(self):
        options = session_config()
        options.experimental.collective_group_leader = "/job:worker/replica:0/task:0"
        options.experimental.collective_nccl = True
        # Otherwise a session would wait for the others, and might compute on their devices.
        options.device_filters.append(f"/job:worker/task:{self.index}")
        # On one core a second thread only takes turns with the first.
        options.inter_op_parallelism_threads = int(
            os.environ.get("TF_NUM_INTEROP_THREADS") or launcher.num_cores()
        )
        options.rpc_options.num_channels_per_target = 4  # It saves some percent of a step.
        return options

    def watch(self, session):
        run = session.run

        def watched(*args, **kwargs):
            wait = [0.0]
            self._waits[id(wait)] = wait
            try:
                return run(*args, **kwargs)
            finally:
                del self._waits[id(wait)]

        session.run = watched

    def _opened(self):
        session = tf.Session(self.target, config=self.options())
        self.watch(session)
        return session

    def _watch(self):
        """Ends this process with a line when another worker is gone, or does not answer.

        TensorFlow says so itself where the two have talked in the same operation before. Otherwise
        it waits forever, and neither a time limit nor closing the session brings it back.
        """
        gone, last = set(), time.monotonic()
        while not self.has_ended.wait(LOOK):
            before, gone = gone, {i for i, why in self._unreachable() if why == REFUSED}
            # While this process is halted, the time does not count.
            passed = min(time.monotonic() - last, LOOK + CONNECT * self.number)
            last = time.monotonic()
            for wait in [*self._waits.values()]:
                wait[0] += passed
                if wait[0] > LOOK and gone & before:
                    self.give_up(f"{self._names(gone & before)} is gone; {AGAIN}")
                if wait[0] >= self._patience:
                    silent = self._names(i for i, _ in self._unreachable()) or "another worker"
                    self.give_up(
                        f"{silent} did not answer within {self._within}; {AGAIN}, or raise "
                        "--wait_minutes"
                    )
        threading.Event().wait()

    def give_up(self, message):
        """Ends this process, whose session would wait forever, with a line and exit status 2."""
        self.last_word.acquire()
        clear = "\r\033[K" if sys.stderr.isatty() else ""
        message = self._failure or message
        print(f"{clear}{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr, flush=True)
        time.sleep(LOOK + LINGER)  # Others that wait for the same one are to find this one there.
        os._exit(2)

    def compare(self, facts):
        has_gpu = bool(tf.config.list_physical_devices("GPU"))
        facts = {**facts, "a GPU": has_gpu, **checksums_of_code()}
        told = [json.loads(message) for message in self._tell(json.dumps(facts))]
        different = [
            f"{self._name(i)} has {name} {theirs.get(name)!r}, and worker 0 {told[0].get(name)!r}"
            for i, theirs in enumerate(told)
            for name in sorted({*told[0], *theirs}) if theirs.get(name) != told[0].get(name)
        ]
        if different:
            raise UserError(
                f"{'; '.join(different)}. All workers need the same flags, files and versions"
            )

    def in_turn(self, function):
        for index in range(self.number):
            if index == self.index:
                result = self._while_the_others_wait(function)
            self._tell()
        return result

    def first_says(self, function):
        message = ""
        if self.index == 0:
            message = json.dumps(self._while_the_others_wait(function))
        return json.loads(self._tell(message)[0])

    def all_rows(self, state):
        if state is None:
            return None
        own = np.stack(tf.nest.flatten(state))
        # JSON keeps a float's bits; nothing of what another worker sends is ever executed.
        parts = [json.loads(message) for message in self._tell(json.dumps(own.tolist()))]
        whole = np.concatenate(np.asarray(parts, own.dtype), axis=1)
        return tf.nest.pack_sequence_as(state, [*whole])

    def own_rows(self, state):
        def own(array):
            rows = len(array) // self.number
            return array[self.index * rows : (self.index + 1) * rows]

        return state and tf.nest.map_structure(own, state)

    def spread(self, session, variables):
        self._tell()  # Who has failed until here is heard.
        self.can_tell = False
        # The session's own graph may be finalized.
        with tf.Graph().as_default(), tf.device("/cpu:0"):
            values, received = [], []
            for variable in variables:
                dtype, description = variable.dtype.base_dtype, self._collective()
                description["shape"] = variable.shape
                if self.index == 0:
                    values.append(tf.placeholder(dtype, variable.shape))
                    received.append(tf.raw_ops.CollectiveBcastSend(input=values[-1], **description))
                else:
                    received.append(tf.raw_ops.CollectiveBcastRecv(T=dtype, **description))
            feed_dict = dict(zip(values, session.run(variables))) if values else {}
            with self._opened() as wire:
                received = wire.run(received, feed_dict)
        for variable, value in zip(variables, received):
            session.run(variable.initializer, {variable.initializer.inputs[1]: value})

    def check(self, values):
        digest = hashlib.sha256()
        for value in values:
            digest.update(value)
        told = self._tell(digest.hexdigest())
        drifted = [i for i, theirs in enumerate(told) if theirs != told[0]]
        if drifted:
            raise UserError(
                f"{self._names(drifted)}: the weights are not those of worker 0 any more, as "
                "happens where processors or numbers of threads differ; nothing is saved. "
                "Use machines of one kind, then " + AGAIN
            )

    def agree(self, signum, is_due):
        if next(self._steps) % AGREE:
            return None, False
        signals, saves = self.exchange(signum or 0, is_due).T.tolist()
        return max(signals) or None, bool(saves[0])

    def add_up(self, gradients):
        sums, done = [], []
        for gradient in reversed(gradients):  # The backward pass has the last ones first.
            if isinstance(gradient, tf.IndexedSlices):
                values, indices = self._gathered(gradient.values), self._gathered(gradient.indices)
                sums.append(tf.IndexedSlices(values, indices, gradient.dense_shape))
                continue
            # NCCL needs the same order everywhere.
            with tf.control_dependencies(done if tf.config.list_physical_devices("GPU") else []):
                sums.append(tf.raw_ops.CollectiveReduce(
                    input=gradient, merge_op="Add", final_op="Id", subdiv_offsets=[0],
                    **self._collective(group=2),
                ))
            done = [sums[-1]]
        return sums[::-1]

    def explain(self, error):
        """Returns the UserError for an OpError that comes from another worker; else None."""
        text = error.message
        if "joining a group with size" in text:
            return UserError(
                "TF_CONFIG: the workers do not agree on how many they are; give all of them the "
                "same cluster"
            )
        until = time.monotonic() + 10  # A process may take seconds to end.
        while time.monotonic() < until:
            gone = self._names(i for i, why in self._unreachable() if why == REFUSED)
            if gone:
                return UserError(f"{gone} is gone; {AGAIN}")
            time.sleep(0.25)
        broken = tf.errors.UnavailableError, tf.errors.CancelledError, tf.errors.AbortedError
        is_broken = isinstance(error, broken)
        return UserError(f"the workers cannot talk to each other; {AGAIN}") if is_broken else None

    def say_why(self, error):
        """Tells the others, who wait for a message, of the UserError that ends this worker."""
        self._failure = str(error)
        with contextlib.suppress(UserError, tf.errors.OpError):  # Others may fail as well.
            self._tell(self._failure, FAILED)

    def _start_server(self):
        # gRPC would send what the workers say to each other to the proxy of the environment.
        hosts = (os.environ.get("no_grpc_proxy") or os.environ.get("no_proxy", "")).split(",")
        hosts += [_host_and_port(address)[0] for address in self._addresses]
        os.environ["no_grpc_proxy"] = ",".join(filter(None, dict.fromkeys(hosts)))
        port = _host_and_port(self._addresses[self.index])[1]
        try:  # TensorFlow does not say why it cannot open a port, and shares it with some.
            socket.create_server(("", port)).close()
        except OSError as error:
            raise UserError(
                f"{self.name}: port {port} cannot be opened here "
                f"({os.strerror(error.errno)}); name another one in the TF_CONFIG of all workers, "
                "or start a new process where this one was a worker before (in a notebook, restart "
                "the kernel)"
            ) from error
        server = tf.train.Server(
            tf.train.ClusterSpec({"worker": self._addresses}), job_name="worker",
            task_index=self.index, config=self.options(),
        )
        print(
            f"Worker {self.index} of {self.number}. Its port {port} is open to every network of "
            "this machine, and whoever reaches it can run anything here."
        )
        return server

    def _wait_for_all(self):
        """Returns when every other worker's port is open; UserError after self._patience."""
        start = time.monotonic()
        with Line() as line:
            while problem := next(self._unreachable(), None):
                i, why = problem
                if time.monotonic() - start >= self._patience:
                    raise UserError(
                        f"{self._name(i)} has not come within {self._within} ({why}); "
                        f"{AGAIN}, or raise --wait_minutes"
                    )
                line.show(f"Waiting for {self._name(i)}: {why}")
                time.sleep(0.25)

    def _unreachable(self):
        """Yields (i, why) for each other worker i whose port does not take a connection."""
        for i, address in enumerate(self._addresses):
            try:
                if i != self.index:
                    socket.create_connection(_host_and_port(address), CONNECT).close()
            except ConnectionRefusedError:
                yield i, REFUSED
            except (OSError, UnicodeError) as error:
                yield i, getattr(error, "strerror", None) or str(error)

    def _name(self, i):
        return f"worker {i} ({self._addresses[i]})"

    def _names(self, workers):
        return " and ".join(map(self._name, workers))

    def _collective(self, group=1, keys=None):
        """Returns the arguments of the next collective operation.

        Args:
          group: the number of a group of devices, which are of one kind: processors, or others.
          keys: where its number comes from; those of training by default.
        """
        key = next(keys or self._keys)
        return {"group_size": self.number, "group_key": group, "instance_key": key}

    def _gathered(self, tensor, keys=None):
        """Returns the tensors of all workers, one after the other."""
        shape = [self.number * tensor.shape[0], *tensor.shape[1:]]
        with tf.device("/cpu:0"):
            return tf.raw_ops.CollectiveGather(
                input=tensor, shape=shape, **self._collective(keys=keys)
            )

    def exchange(self, *numbers):
        """Returns two whole numbers of each worker, [number, 2]."""
        return self._session.run(self._all_words, {self._own_word: [numbers]})

    def _tell(self, message="", state=READY):
        """Returns the messages of all workers, each of which gives its own.

        It takes as long as a worker is busy.

        Raises:
          UserError: a worker has failed and given its reason as a message.
        """
        data = message.encode(errors="backslashreplace")
        states = [BUSY]
        while BUSY in states:
            states, sizes = self.exchange(state, len(data)).T
        # TensorFlow cannot gather what is empty.
        numbers = np.frombuffer(data.ljust(max(sizes) // 4 * 4 + 4), np.int32)
        with tf.Graph().as_default():
            own = tf.placeholder(tf.int32, [1, *numbers.shape])
            everything = self._gathered(own, self._message_keys)
            with self._opened() as wire:
                received = wire.run(everything, {own: numbers[None]})
        messages = [row.tobytes()[:size].decode() for row, size in zip(received, sizes)]
        failures = [f"{self._name(i)}: {messages[i]}" for i in np.flatnonzero(states)]
        if failures:
            self.can_tell = False
            raise UserError("; ".join(failures))
        return messages

    def _while_the_others_wait(self, function):
        """Returns what a function returns, which may take long: says meanwhile that it is there."""
        done = threading.Event()

        def say():
            try:
                while not done.wait(ROUND):
                    self.exchange(BUSY, 0)
            except tf.errors.OpError as error:  # The function may take minutes more.
                self.give_up(str(self.explain(error) or error))

        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            said = executor.submit(say)
            try:
                result = function()
            except UserError as error:
                done.set()
                concurrent.futures.wait([said])
                self.say_why(error)
                raise
            finally:
                done.set()
        said.result()  # It raises what went wrong meanwhile.
        return result


@contextlib.contextmanager
def member(flags):
    """Decorates a script's main: while it runs, this process is one of the workers.

    Args:
      flags: the script's flags; `wait_minutes` is used.
    """
    with joining(os.environ.get("TF_CONFIG", ""), 60 * flags.wait_minutes):
        yield


@contextlib.contextmanager
def joining(tf_config, patience):
    """Within it this process is one of the workers that TF_CONFIG names, where it names several.

    Args:
      tf_config: the value of the environment variable.
      patience: seconds for which a worker waits for the others.

    Raises:
      UserError: TF_CONFIG makes no sense; or a worker is missing, has ended, or does not answer.
    """
    addresses, index = read_tf_config(tf_config)
    launcher.end_with_it()
    if len(addresses) < 2:
        yield
        return
    if not patience < math.inf:
        raise UserError(f"--wait_minutes is {patience / 60}; it must be a finite number")
    worker = _here.worker = Member(addresses, index, patience)
    try:
        yield
    except UserError as error:
        if worker.can_tell:
            worker.say_why(error)
        elif error.__cause__ and memory_needed(error.__cause__) is not None:
            # The others see only that this one is gone; the launcher shows one that names itself.
            raise UserError(f"{worker.name}: {error}") from error
        raise
    except tf.errors.OpError as error:
        cause = worker.explain(error)
        if cause is None:
            raise
        raise cause from error
    finally:
        del _here.worker
        worker.last_word.acquire()
        worker.has_ended.set()
        time.sleep(LINGER)


def read_tf_config(text):
    """Returns (addresses of the workers, this process's place among them); ([], 0) without any.

    A chief, or a master as it was called before, is worker 0, and the others follow it.

    Raises:
      UserError: the text is not what TensorFlow means by TF_CONFIG, or this is no worker.
    """

    def require(is_right, problem):
        if not is_right:
            raise UserError(
                f"TF_CONFIG {problem}; it looks like this: "
                '{"cluster": {"worker": ["host:port", "host:port"]}, '
                '"task": {"type": "worker", "index": 0}}'
            )

    try:
        value = json.loads(text.strip() or "{}")
    except ValueError as error:
        require(False, f"is not JSON ({error})")
    require(isinstance(value, dict), "is not a JSON object")
    require(not value or "cluster" in value, f"has no cluster, but {', '.join(value)}")
    cluster, task = value.get("cluster") or {}, value.get("task") or {}
    if not cluster:
        return [], 0
    are_objects = isinstance(cluster, dict) and isinstance(task, dict)
    require(are_objects, "has a cluster or a task that is not a JSON object")
    for job, addresses in cluster.items():
        require(isinstance(addresses, list), f"has no list of addresses for {job}")
        is_known = job in JOBS or not addresses
        require(is_known, f"names a {job}, which this program does not have")
    addresses = [address for job in JOBS for address in cluster.get(job, [])]
    num_chiefs = len(addresses) - len(cluster.get("worker", []))
    require(num_chiefs < 2, "names more than one chief")
    for address in addresses:
        is_address = isinstance(address, str) and ADDRESS.fullmatch(address)
        is_address = is_address and 0 < _host_and_port(address)[1] < 1 << 16
        require(is_address, f"has the address {address!r}, which is not host:port (1 to 65535)")
        require(addresses.count(address) == 1, f"names {address} more than once")
    job, index = task.get("type"), str(task.get("index", 0))
    numbers = [str(i) for i in range(len(cluster.get(job, [])))] if job in JOBS else []
    require(numbers, f"has a task of type {job!r}, and the cluster has no such job")
    there = f"the cluster has {len(numbers)} of type {job}"
    require(index in numbers, f"has task index {index}; {there}")
    return addresses, int(index) + (num_chiefs if job == "worker" else 0)


def _host_and_port(address):
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


def checksums_of_code():
    """Returns {file: checksum} of the code that all workers must share.

    configs.py is not among it, since the values of the configuration are compared themselves.
    """
    root = pathlib.Path(__file__).resolve().parent.parent
    paths = [root / "lstm.py", *sorted(root.glob("ptb/**/*.py"))]
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        for path in paths
    }


if __name__ == "__main__":
    with command_line.errors_in_one_line("ptb.cluster"):
        sys.exit(launcher.main())
