"""Several workers: the numbers of one process, the same folder, and one line when one fails."""

import ctypes
import json
import multiprocessing
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import models
import numpy as np
import pytest
from conftest import ROOT, history_rows, newest_number, perplexities, write_texts

import configs
import lstm
from ptb import cluster, launcher
from ptb.terminal import command_line
from ptb.terminal.errors import UserError
from ptb.terminal.quiet import session_config, tf

IDS = np.random.default_rng(1).integers(0, 30, 3000)
FIELDS = {
    "num_layers": 2, "num_steps": 5, "hidden_size": 20, "init_scale": 0.2, "max_epoch": 2,
    "max_max_epoch": 3, "keep_prob": 0.6, "vocab_size": 366,
}
SomeConfig = type("SomeConfig", (configs.TstConfig,), FIELDS)


class SharedConfig(models.TinyConfig):
    """A batch of 12 rows, which 2, 3 and 4 workers can share."""

    batch_size = 12
    hidden_size = 20
    init_scale = 0.4


def tf_config(addresses, index):
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


# Workers that are threads of this process: for what they compute and what they tell one another.


@pytest.fixture
def together(monkeypatch):
    """To be called: runs work(index) as so many workers; returns the results, errors among them."""
    monkeypatch.setattr(cluster, "LINGER", 0)

    def run(number, work, addresses=None, patience=60.0):
        addresses = addresses or launcher.free_addresses(number)
        results = [None] * number

        def be(index):
            try:
                with cluster.joining(tf_config(addresses, index), patience):
                    results[index] = work(index)
            except Exception as error:
                results[index] = error

        threads = [threading.Thread(target=be, args=[index]) for index in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    return run


def trained(config, steps):
    """Returns costs, the last state, variables and the validation of a short training."""
    worker = cluster.this_worker()
    config, ids, valid_ids = cluster.own_part(config, IDS, IDS[:200])
    with models.built(config, ids, valid_ids) as (session, model, valid, _):
        worker.spread(session, tf.global_variables())
        model.assign_lr(session, 0.5)
        state = session.run(model.initial_state)
        costs = []
        for step in range(steps):
            feed = {model.input.step: step}
            feed.update(zip(tf.nest.flatten(model.initial_state), tf.nest.flatten(state)))
            cost, state, _ = session.run([model.cost, model.final_state, model.train_op], feed)
            costs.append(float(cost))
        valid_perplexity = lstm.run_epoch(session, valid)
        values = models.variables(session)
        worker.check([*values.values()])
        return costs, tf.nest.flatten(worker.all_rows(state)), values, valid_perplexity


@pytest.mark.parametrize("number, keep_prob, rnn_mode, max_grad_norm, number_type", [
    (1, 0.6, "fused", 5, ""),
    (2, 1.0, "fused", 5, ""), (2, 0.6, "basic", 0.05, ""),
    (3, 0.6, "fused", 0.05, ""),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        (1, 1.0, "fused", 5, ""), (1, 0.6, "basic", 5, ""), (1, 1.0, "basic", 5, ""),
        (2, 1.0, "basic", 5, ""), (2, 0.6, "fused", 5, ""),
        (3, 1.0, "fused", 5, ""), (3, 0.6, "basic", 5, ""), (3, 1.0, "basic", 5, ""),
        (4, 1.0, "fused", 5, ""), (4, 0.6, "basic", 5, ""), (4, 1.0, "basic", 5, ""),
        (4, 0.6, "fused", 0.05, ""),
        (2, 0.6, "fused", 5, "use_bf16"), (2, 0.6, "fused", 5, "use_fp16"),
    )),
])
def test_numbers_are_those_of_one_process(
    number, keep_prob, rnn_mode, max_grad_norm, number_type, together, flags
):
    tolerance = 5e-3 if number_type else 1e-5
    flags.rnn_mode = rnn_mode
    if number_type:
        flags[number_type].value = True
    config = SharedConfig()
    config.keep_prob, config.max_grad_norm = keep_prob, max_grad_norm
    single = trained(config, 20)
    several = together(number, lambda _: trained(config, 20))
    for costs, state, values, valid_perplexity in several:
        np.testing.assert_allclose(costs, single[0], rtol=tolerance)
        for ours, theirs in zip(state, single[1]):
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, atol=tolerance)
        for name, value in values.items():
            np.testing.assert_allclose(value, single[2][name], atol=tolerance)
        models.assert_same(several[0][2], values)
        assert valid_perplexity == pytest.approx(single[3], rel=tolerance)


def test_two_runs_have_the_same_bits(together):
    first, second = (together(2, lambda _: trained(SharedConfig(), 10))[0] for _ in range(2))
    assert first[0] == second[0]
    models.assert_same(first[2], second[2])


def test_what_worker_0_has_reaches_the_others_exactly(together):
    """Also long messages, negative zeros, and errors, which are those of all."""
    numbers = np.array([[-0.0, 1e-42, np.inf], [np.nan, -1 / 3, 2.0**-149]], np.float32)

    def work(index):
        worker = cluster.this_worker()
        message = worker.first_says(lambda: [numbers.tolist(), "ü" * 200_000, None])
        state = worker.all_rows((numbers + index,))
        with tf.Graph().as_default():
            variables = [tf.get_variable("a", [2, 3]), tf.get_variable("b", [], tf.int64)]
            tf.get_default_graph().finalize()
            with tf.Session(worker.target, config=worker.options()) as session:
                values = [numbers, 2**40] if index == 0 else [np.ones([2, 3]), 1]
                assign = [variable.initializer for variable in variables]
                session.run(assign, {a.inputs[1]: v for a, v in zip(assign, values)})
                worker.spread(session, variables)
                spread = session.run(variables)

        def fail():
            raise UserError(f"the disk of {index} is full")

        with pytest.raises(UserError) as failure:
            worker.first_says(fail)
        return message, state, spread, str(failure.value)

    addresses = launcher.free_addresses(3)
    for index, (message, state, spread, failure) in enumerate(together(3, work, addresses)):
        received = np.array(message[0], np.float32)
        assert received.tobytes() == spread[0].tobytes() == numbers.tobytes()
        assert (message[1:], spread[1]) == (["ü" * 200_000, None], 2**40)
        np.testing.assert_array_equal(state[0], np.vstack([numbers + k for k in range(3)]))
        told = f"worker 0 ({addresses[0]}): " if index else ""
        assert failure == f"{told}the disk of 0 is full"


def test_slow_worker_0_is_waited_for(together, monkeypatch):
    """The others wait for longer than their patience, as worker 0 says that it is there."""
    given_up, said = [], []
    monkeypatch.setattr(cluster, "ROUND", 0.1)
    monkeypatch.setattr(cluster, "LOOK", 0.02)
    monkeypatch.setattr(cluster.Member, "give_up", lambda _, message: given_up.append(message))
    exchange = cluster.Member.exchange

    def counted(worker, *numbers):
        said.append(numbers)
        return exchange(worker, *numbers)

    monkeypatch.setattr(cluster.Member, "exchange", counted)

    def slow():
        while said.count((cluster.BUSY, 0)) < 10:
            time.sleep(0.01)
        return np.float32(5)

    def save():
        with tf.Graph().as_default(), tf.Session(config=session_config()) as session:
            return float(session.run(tf.numpy_function(slow, [], tf.float32)))

    def work(_):
        return cluster.this_worker().first_says(save)

    assert together(2, work, patience=0.5) == [5.0] * 2
    assert not given_up


def test_worker_that_fails_while_the_models_are_built_is_named(together):
    def work(index):
        if index == 1:
            raise UserError("SmallConfig needs 3.0 GiB of memory")
        with tf.Graph().as_default(), tf.Session() as session:
            cluster.add_up([tf.zeros([2]), tf.zeros([3])])
            cluster.this_worker().spread(session, [])

    addresses = launcher.free_addresses(2)
    first, second = together(2, work, addresses)
    assert str(first) == f"worker 1 ({addresses[1]}): SmallConfig needs 3.0 GiB of memory"
    assert str(second) == "SmallConfig needs 3.0 GiB of memory"


def test_worker_without_memory_for_a_step_names_itself(together):
    """The others see only that it is gone; other errors of that time are those of all."""

    def work(index):
        cluster.this_worker().can_tell = False
        try:
            raise MemoryError() if index else ValueError()
        except Exception as error:
            raise UserError("it ends") from error

    addresses = launcher.free_addresses(2)
    first, second = together(2, work, addresses)
    assert (str(first), str(second)) == ("it ends", f"worker 1 ({addresses[1]}): it ends")


def test_process_is_a_worker_once(together):
    """TensorFlow's server cannot be stopped; a notebook is told to start its kernel anew."""
    addresses = launcher.free_addresses(2)
    assert together(2, lambda index: index, addresses) == [0, 1]
    for error in together(2, lambda index: index, addresses):
        assert str(error).endswith("was a worker before (in a notebook, restart the kernel)")


def test_workers_take_turns(together):
    order = []

    def work(index):
        return cluster.this_worker().in_turn(lambda: order.append(10 * index) or 10 * index)

    assert together(3, work) == [0, 10, 20]
    assert order == [0, 10, 20]


def test_wishes_are_agreed_on(together, monkeypatch):
    """A signal to any worker is heard by all; worker 0 says when to save."""
    monkeypatch.setattr(cluster, "AGREE", 1)

    def work(index):
        return [
            cluster.this_worker().agree(signal.SIGTERM if index == step - 2 else None, is_due)
            for step, is_due in enumerate([False, index == 0, index == 1, True])
        ]

    assert together(2, work) == [[(None, False), (None, True), (15, False), (15, True)]] * 2


def test_wishes_are_exchanged_at_some_steps(together):
    """At the same ones for all, since messages take time; nothing is lost until then."""

    def work(index):
        worker = cluster.this_worker()
        assert worker.agree(None, False) == (None, False)
        return [worker.agree(15 if index else None, not index) for _ in range(2 * cluster.AGREE)]

    waited = [(None, False)] * (cluster.AGREE - 1)
    assert together(2, work) == [[*waited, (15, True)] * 2] * 2


def test_worker_that_has_drifted_is_named(together):
    def work(index):
        cluster.this_worker().check([np.zeros(3), np.float32([1, 2 + (index == 1) * 1e-6])])

    addresses = launcher.free_addresses(3)
    for error in together(3, work, addresses):
        assert type(error) is UserError
        assert str(error).startswith(
            f"worker 1 ({addresses[1]}): the weights are not those of worker 0 any more"
        )


@pytest.mark.parametrize("facts, expected", [
    ({"seed": 2}, "has seed 2, and worker 0 1"),
    ({"config.hidden_size": 3}, "has config.hidden_size 3, and worker 0 2"),
    ({"ids.train": "b"}, "has ids.train 'b', and worker 0 'a'"),
    ({"ptb/rnn.py": "b"}, "has ptb/rnn.py 'b', and worker 0 'a'"),
    ({"tensorflow": "2.16.2"}, "has tensorflow '2.16.2', and worker 0 '2.21.0'"),
])
def test_workers_that_differ_are_named_on_all(facts, expected, together, monkeypatch):
    monkeypatch.setattr(cluster, "checksums_of_code", lambda: {})
    same = {"seed": 1, "config.hidden_size": 2, "ids.train": "a",
            "tensorflow": "2.21.0", "ptb/rnn.py": "a"}
    addresses = launcher.free_addresses(3)

    def work(index):
        cluster.this_worker().compare({**same, **(facts if index == 1 else {})})

    for error in together(3, work, addresses):
        assert type(error) is UserError
        assert str(error) == (
            f"worker 1 ({addresses[1]}) {expected}. All workers need the same flags, files and "
            "versions"
        )


def test_worker_that_fails_before_the_others_know_it_is_named(together):
    def work(index):
        if index == 1:
            raise UserError("--config smal: unknown")
        cluster.this_worker().compare({})

    addresses = launcher.free_addresses(2)
    first, second = together(2, work, addresses)
    assert str(first) == f"worker 1 ({addresses[1]}): --config smal: unknown"
    assert str(second) == "--config smal: unknown"


def test_batch_that_cannot_be_shared_out(together):
    config = SharedConfig()
    config.batch_size = 20
    errors = together(3, lambda _: cluster.own_part(config, IDS))
    assert {str(error) for error in errors} == {
        "batch_size is 20, which cannot be shared out evenly among 3 workers; change one of them"
    }


def test_proxy_of_the_environment_is_not_asked(together, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.setenv("no_grpc_proxy", "")
    assert together(2, lambda index: cluster.this_worker().first_says(lambda: 5)) == [5, 5]
    assert os.environ["no_grpc_proxy"] == "example.org,127.0.0.1"


def test_worker_that_never_comes():
    addresses = launcher.free_addresses(2)
    with pytest.raises(UserError) as error:
        with cluster.joining(tf_config(addresses, 0), patience=0.5):
            pass
    assert str(error.value).startswith(
        f"worker 1 ({addresses[1]}) has not come within 0.5 seconds (Connection refused); start "
    )


def test_name_that_does_not_resolve():
    addresses = [*launcher.free_addresses(1), "no-such-host.invalid:2222"]
    with pytest.raises(UserError, match=r"worker 1 \(no-such-host.invalid:2222\) has not come"):
        with cluster.joining(tf_config(addresses, 0), patience=0.5):
            pass


def test_port_in_use():
    addresses = launcher.free_addresses(2)
    with socket.socket() as other:
        other.bind(("", int(addresses[0].split(":")[1])))
        other.listen()
        with pytest.raises(UserError) as error:
            with cluster.joining(tf_config(addresses, 0), patience=0.5):
                pass
    port = addresses[0].split(":")[1]
    assert f"port {port} cannot be opened here (Address already in use)" in str(error.value)


TWO = ["a:1", "b:2"]


@pytest.mark.parametrize("value, expected", [
    ("", ([], 0)),
    ("{}", ([], 0)),
    ({"cluster": {}, "task": {"type": "worker", "index": 0}}, ([], 0)),
    ({"cluster": {"worker": TWO}, "task": {"type": "worker", "index": 1}}, (TWO, 1)),
    ({"cluster": {"worker": TWO}, "task": {"type": "worker", "index": "1"}}, (TWO, 1)),
    ({"cluster": {"chief": ["c:3"], "worker": TWO}, "task": {"type": "chief", "index": 0},
      "environment": "cloud"}, (["c:3", *TWO], 0)),
    ({"cluster": {"master": ["c:3"], "worker": TWO}, "task": {"type": "master", "index": 0}},
     (["c:3", *TWO], 0)),
    ({"cluster": {"master": ["c:3"], "worker": TWO}, "task": {"type": "worker", "index": 0}},
     (["c:3", *TWO], 1)),
    ({"cluster": {"chief": ["c:3"], "worker": TWO, "ps": []},
      "task": {"type": "worker", "index": 1}}, (["c:3", *TWO], 2)),
    ({"cluster": {"worker": ["[::1]:1", "b:2"]}, "task": {"type": "worker", "index": 0}},
     (["[::1]:1", "b:2"], 0)),
])
def test_tf_config(value, expected):
    text = value if isinstance(value, str) else json.dumps(value)
    assert cluster.read_tf_config(text) == expected


@pytest.mark.parametrize("value, problem", [
    ("{", "is not JSON"),
    ("[1]", "is not a JSON object"),
    ({"sparseCluster": {"worker": {"0": "a:1"}}, "task": {"type": "worker", "index": 0}},
     "has no cluster, but sparseCluster, task"),
    ({"task": {"type": "worker", "index": 0}}, "has no cluster, but task"),
    ({"cluster": {"chief": ["c:3"], "master": ["d:4"]}, "task": {}}, "names more than one chief"),
    ({"cluster": [1]}, "has a cluster or a task that is not"),
    ({"cluster": {"worker": TWO}, "task": 3}, "has a cluster or a task that is not"),
    ({"cluster": {"worker": "a:1"}, "task": {}}, "has no list of addresses for worker"),
    ({"cluster": {"worker": TWO, "ps": ["c:3"]}, "task": {}}, "names a ps, which this program"),
    ({"cluster": {"chief": TWO}, "task": {}}, "names more than one chief"),
    ({"cluster": {"worker": ["a", "b:2"]}, "task": {}}, "has the address 'a', which is not"),
    ({"cluster": {"worker": [7, "b:2"]}, "task": {}}, "has the address 7, which is not"),
    ({"cluster": {"worker": ["a:0", "b:2"]}, "task": {}}, "'a:0', which is not host:port (1 to"),
    ({"cluster": {"worker": ["a:65536", "b:2"]}, "task": {}}, "'a:65536', which is not host:port"),
    ({"cluster": {"worker": ["a:1", "a:1"]}, "task": {}}, "names a:1 more than once"),
    ({"cluster": {"worker": TWO}}, "has a task of type None, and the cluster has no such job"),
    ({"cluster": {"worker": TWO}, "task": {"type": "chief"}}, "has a task of type 'chief', and"),
    ({"cluster": {"worker": TWO}, "task": {"type": [], "index": 0}}, "has a task of type [], and"),
    ({"cluster": {"worker": TWO}, "task": {"type": "worker", "index": 2}}, "has task index 2; the"),
    ({"cluster": {"worker": TWO}, "task": {"type": "worker", "index": True}}, "task index True"),
])
def test_tf_config_that_makes_no_sense(value, problem, monkeypatch, script):
    text = value if isinstance(value, str) else json.dumps(value)
    monkeypatch.setenv("TF_CONFIG", text)
    ended = script("--config", "tst")
    assert ended.returncode == 2
    assert ended.stderr.startswith("lstm.py: TF_CONFIG ") and problem in ended.stderr
    assert ended.stderr.count("\n") == 1 and "it looks like this" in ended.stderr


# Workers that are processes: for how they end, and what is in the folder then.


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("text"), 500)


def be_worker(addresses, index, log, argv, fields, namespace=None, halt_before=None):
    """What a process does: it is lstm.py as one worker, and writes its output to log.out, .err.

    It is in a network namespace of that name, or in the one of the tests. Before a function of
    lstm.py that is named, worker 1 halts, and the others wait until it has.
    """
    if namespace:
        with open(f"/run/netns/{namespace}") as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0):
                raise OSError(ctypes.get_errno(), "setns")
    for stream, name in (sys.stdout, "out"), (sys.stderr, "err"):
        os.dup2(os.open(f"{log}.{name}", os.O_WRONLY | os.O_CREAT), stream.fileno())
    if addresses:
        os.environ["TF_CONFIG"] = tf_config(addresses, index)
    if halt_before:
        function = getattr(lstm, halt_before)

        def late(*args, **kwargs):
            if index == 1:
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(1)
            return function(*args, **kwargs)

        setattr(lstm, halt_before, late)
    configs.SomeConfig = type("SomeConfig", (configs.TstConfig,), fields)
    sys.argv = ["lstm.py", *argv]
    command_line.run(lstm.main)


class Processes:
    """Workers that are started, each with its output; they come from a process that has TensorFlow.

    Loading TensorFlow anew takes each of them seconds. A `with` ends those that are left.
    """

    def __init__(self, logs):
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["lstm"])
        self._logs = logs
        self._number = 0
        self._started = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self._started:
            process.kill()
            process.join()

    def start(
        self, number, text, out, *args, fields=FIELDS, addresses=None, namespaces=None,
        halt_before=None,
    ):
        """Starts workers that train the text; returns them.

        Args:
          number: how many they are.
          text, out, args: the texts, the folder of runs, more words of the command.
          fields: those of the configuration.
          addresses: the address of each; free ones of this machine, unless given.
          namespaces: the network namespace of each; that of the tests, unless given.
          halt_before: a function of lstm.py before which worker 1 halts.
        """
        addresses = addresses or (launcher.free_addresses(number) if number > 1 else [])
        argv = [*map(str, ["--config", "some", "--data_path", text, "--save_path", out, *args])]
        workers = []
        for index in range(number):
            log = self._logs / str(self._number)
            self._number += 1
            process = self._context.Process(
                target=be_worker,
                args=[addresses, index, str(log), argv, fields,
                      namespaces and namespaces[index], halt_before],
            )
            open(f"{log}.out", "w").close()
            process.start()
            self._started.append(process)
            workers.append(types.SimpleNamespace(
                process=process, out=pathlib.Path(f"{log}.out"), err=pathlib.Path(f"{log}.err"),
                address=addresses[index] if addresses else None,
            ))
        return workers


@pytest.fixture
def processes(tmp_path_factory):
    with Processes(tmp_path_factory.mktemp("logs")) as started:
        yield started


def ended(workers, timeout=120):
    """Returns the exit statuses of workers, once they have ended."""
    for worker in workers:
        worker.process.join(timeout)
    return [worker.process.exitcode for worker in workers]


def wait_until(condition, workers, timeout=120):
    """Returns when a condition is met; the workers must not end before."""
    start = time.monotonic()
    while not condition():
        codes = [worker.process.exitcode for worker in workers]
        assert not any(codes), [worker.err.read_text() for worker in workers]
        assert time.monotonic() - start < timeout
        time.sleep(0.005)


def finished(workers):
    """Returns what worker 0 printed; all workers must have ended well."""
    assert ended(workers) == [0] * len(workers), [worker.err.read_text() for worker in workers]
    return workers[0].out.read_text()


@pytest.mark.slow
def test_stopped_workers_go_on_as_one_process_and_as_others(processes, text, tmp_path):
    """SIGTERM to worker 1 stops both, saved; then one process trains on, then three workers."""
    fields = {**FIELDS, "batch_size": 12}
    args = "--save_minutes", "60"
    whole = finished(processes.start(2, text, tmp_path / "whole", *args, fields=fields))
    two = processes.start(2, text, tmp_path / "out", *args, fields=fields)
    wait_until(lambda: " wps\n" in two[0].out.read_text(), two)
    os.kill(two[1].process.pid, signal.SIGTERM)
    assert ended(two) == [143, 143]
    path = tmp_path / "out" / "some" / "checkpoint-000001"
    for worker in two:
        line = f"lstm.py: stopped; the same command goes on from {path}\n"
        assert worker.err.read_text().endswith(line)
    one = processes.start(1, text, tmp_path / "out", *args, fields={**fields, "max_max_epoch": 2})
    assert "Going on after 0 epochs and " in finished(one)
    three = finished(processes.start(3, text, tmp_path / "out", *args, fields=fields))
    assert "Going on after 2 epochs and 0 steps." in three
    expected, got = perplexities(whole), perplexities(three)
    assert got and got.keys() < expected.keys()
    for what, value in got.items():
        assert float(value) == pytest.approx(float(expected[what]), rel=0.01)


@pytest.mark.slow
def test_killed_worker_is_named_and_the_same_commands_end_in_the_same_bits(
    processes, text, tmp_path
):
    args = "--save_minutes", "0"
    whole = finished(processes.start(2, text, tmp_path / "whole", *args))
    workers = processes.start(2, text, tmp_path / "out", *args)
    wait_until(lambda: newest_number(tmp_path / "out") > 3, workers)
    workers[1].process.kill()
    killed_at = time.monotonic()
    assert ended(workers) == [2, -signal.SIGKILL]
    assert time.monotonic() - killed_at < 30
    assert workers[0].err.read_text().splitlines()[-1] == (
        f"lstm.py: worker 1 ({workers[1].address}) is gone; start the same commands again on all "
        "workers"
    )
    printed = finished(processes.start(2, text, tmp_path / "out", *args))
    assert "Going on after" in printed
    assert perplexities(printed).items() <= perplexities(whole).items()
    models.assert_same(models.last_saved(tmp_path / "whole"), models.last_saved(tmp_path / "out"))


@pytest.mark.slow
def test_worker_that_hangs(processes, text, tmp_path):
    args = "--wait_minutes", "0.1", "--save_minutes", "0"
    workers = processes.start(3, text, tmp_path, *args, fields={**FIELDS, "batch_size": 12})
    wait_until(lambda: newest_number(tmp_path) > 2, workers)
    os.kill(workers[1].process.pid, signal.SIGSTOP)
    assert ended([workers[0], workers[2]]) == [2, 2]
    for worker in workers[0], workers[2]:
        assert worker.err.read_text().splitlines()[-1].startswith(
            "lstm.py: another worker did not answer within 6 seconds; start the same commands "
        )


@pytest.mark.slow
@pytest.mark.parametrize("function", ["train", "text_perplexity"])
def test_worker_that_hangs_between_steps(function, processes, text, tmp_path):
    """It is missed when the session is opened, and by the first step that evaluates the test."""
    workers = processes.start(2, text, tmp_path, "--wait_minutes", "0.1", halt_before=function)
    assert ended(workers[:1]) == [2]
    assert workers[0].err.read_text().splitlines()[-1].startswith(
        "lstm.py: another worker did not answer within 6 seconds; start the same commands again "
    )


@pytest.mark.slow
def test_twenty_kills(processes, tmp_path):
    """A random worker of two, after a checkpoint more each time, some of them in a save."""
    (tmp_path / "text").mkdir()
    text = write_texts(tmp_path / "text", 2500)
    args = "--save_minutes", "0.001"
    whole = perplexities(finished(processes.start(2, text, tmp_path / "whole", *args)))
    rng = random.Random(5)
    printed, times = {}, []
    for _ in range(20):
        before = newest_number(tmp_path / "out") if (tmp_path / "out").exists() else 0
        workers = processes.start(2, text, tmp_path / "out", *args)
        wait_until(lambda: newest_number(tmp_path / "out") > before, workers)  # noqa: B023
        time.sleep(rng.uniform(0, 0.2))
        victim = rng.randrange(2)
        workers[victim].process.kill()
        start = time.monotonic()
        codes = ended(workers)
        times.append(time.monotonic() - start)
        assert (codes[victim], codes[1 - victim]) == (-signal.SIGKILL, 2)
        line = workers[1 - victim].err.read_text().splitlines()[-1]
        assert line.startswith(f"lstm.py: worker {victim} ({workers[victim].address}) is gone; ")
        printed.update(perplexities(workers[0].out.read_text()))
    printed.update(perplexities(finished(processes.start(2, text, tmp_path / "out", *args))))
    assert printed == whole
    assert max(times) < 30
    models.assert_same(models.last_saved(tmp_path / "whole"), models.last_saved(tmp_path / "out"))
    rows = history_rows(tmp_path / "whole" / "some")
    assert rows == history_rows(tmp_path / "out" / "some")


@pytest.fixture
def two_hosts():
    """Two network namespaces with a cable: (names, addresses, a function to plug it up or down)."""
    names = f"ptb-{os.getpid()}-a", f"ptb-{os.getpid()}-b"

    def ip(*words):
        subprocess.run(["ip", *words], check=True, capture_output=True)

    def plug(state):
        ip("-n", names[0], "link", "set", "cable", state)

    try:
        ip("netns", "add", names[0])
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs network namespaces: {getattr(error, 'stderr', None) or error}")
    try:
        ip("netns", "add", names[1])
        ip("-n", names[0], "link", "add", "cable", "type", "veth", "peer", "cable", "netns",
           names[1])
        for name, address in zip(names, ("10.77.0.1/24", "10.77.0.2/24")):
            ip("-n", name, "address", "add", address, "dev", "cable")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "cable", "up")
        yield names, ["10.77.0.1:2222", "10.77.0.2:2222"], plug
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.mark.slow
def test_two_hosts_and_a_cut_cable(processes, text, tmp_path, two_hosts):
    """Both end with a line after the timeout; the same commands end in the unbroken run's bits."""
    namespaces, addresses, plug = two_hosts
    args = "--wait_minutes", "0.1", "--save_minutes", "0.002"
    whole = finished(processes.start(2, text, tmp_path / "whole", *args))

    def start():
        return processes.start(
            2, text, tmp_path / "out", *args, addresses=addresses, namespaces=namespaces
        )

    workers = start()
    wait_until(lambda: newest_number(tmp_path / "out") > 2, workers)
    plug("down")
    assert ended(workers) == [2, 2]
    for index, worker in enumerate(workers):
        assert worker.err.read_text().splitlines()[-1].startswith(
            f"lstm.py: worker {1 - index} ({addresses[1 - index]}) did not answer within 6 seconds"
        )
    plug("up")
    printed = finished(start())
    assert "Going on after" in printed
    assert perplexities(printed).items() <= perplexities(whole).items()
    models.assert_same(models.last_saved(tmp_path / "whole"), models.last_saved(tmp_path / "out"))


def launched(*args):
    """Returns the launcher's process, which starts two workers of lstm.py with these flags."""
    # Ctrl-C is as on a terminal; a program that was started in the background ignores it.
    code = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('ptb.cluster', run_name='__main__')"
    )
    command = [
        sys.executable, "-c", code, "--trusted_network", "--workers", "2", "lstm.py", *args
    ]
    return subprocess.Popen(
        [*map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_launcher(text, tmp_path):
    """It shows worker 0's lines, passes Ctrl-C on, and ends with the worst exit status."""

    def launch(out, *args):
        return launched("--config", "tst", "--data_path", text, "--save_path", out, *args)

    launcher = launch(tmp_path / "whole")
    whole, stderr = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, stderr
    assert whole.count("Epoch: 1 Learning rate: 1.000\n") == 1
    assert whole.count(" is open to every network of this machine, and whoever") == 1
    launcher = launch(tmp_path / "out")
    while " perplexity: " not in launcher.stdout.readline():
        assert launcher.poll() is None
    launcher.send_signal(signal.SIGINT)
    _, stderr = launcher.communicate(timeout=300)
    path = tmp_path / "out" / "tst" / "checkpoint-000001"
    assert launcher.returncode == 130
    assert stderr == f"lstm.py: stopped; the same command goes on from {path}\n"
    launcher = launch(tmp_path / "out", "--seed", "2")
    _, stderr = launcher.communicate(timeout=300)
    assert launcher.returncode == 2
    assert stderr.startswith(f"lstm.py: {tmp_path}/out/tst has another run: seed was 1 and is 2.")
    assert stderr.count("\n") == 1
    launcher = launch(tmp_path / "out")
    stdout, stderr = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, stderr
    assert perplexities(stdout).items() <= perplexities(whole).items()
    launcher = launch(tmp_path / "out", "--confg", "tst")
    _, stderr = launcher.communicate(timeout=300)
    assert launcher.returncode == 2
    assert stderr.count("\n") == 1 and stderr.startswith("lstm.py: Unknown command line flag")


@pytest.mark.slow
def test_workers_end_with_their_launcher(tmp_path):
    """Killed by SIGKILL, it leaves no orphans: they stop within the first epoch, and are saved."""
    text = write_texts(tmp_path, 20000)
    launcher = launched("--config", "small", "--data_path", text, "--save_path", tmp_path)
    while " perplexity: " not in launcher.stdout.readline():
        assert launcher.poll() is None
    launcher.kill()
    # The output ends when nobody has it open any more.
    assert "Valid Perplexity" not in launcher.stdout.read()
    assert (tmp_path / "small" / "checkpoint-000001").is_dir()


def test_launcher_asks_whether_the_network_is_trusted():
    with pytest.raises(UserError, match="where all who can are trusted, add --trusted_network"):
        launcher.main(["--workers", "2", "lstm.py"])


def test_launcher_can_be_used_twice(tmp_path, capfd):
    """As a notebook does: signals are handled as before, and a mistake of all is a line."""
    (tmp_path / "program.py").write_text("import sys; sys.exit('nothing to do')")
    before = signal.getsignal(signal.SIGTERM)
    for _ in range(2):
        assert launcher.launch([str(tmp_path / "program.py")], 3) == 1
        assert capfd.readouterr().err == "nothing to do\n"
        assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("program, status, said", [
    # Both end in the same way, and each names worker 1: the one knows why, the other does not.
    ("sys.exit('p.py: worker 1 (b:2)' + (': no memory' if index else ' is gone'))", 1,
     ["p.py: worker 1 (b:2) is gone", "worker 1: p.py: worker 1 (b:2): no memory"]),
    ("sys.exit('p.py: worker 0 (a:1): no memory')", 1, ["p.py: worker 0 (a:1): no memory"]),
    ("sys.exit(f'reason {index}' if index else 0)", 1, ["worker 1: reason 1"]),
    ("os.kill(os.getpid(), signal.SIGKILL)", 137,
     ["all workers were killed, as happens where memory runs out"]),
    # One that does not end is ended.
    ("time.sleep(600 * index)", 137, []),
])
def test_launcher_shows_why_each_worker_ended(program, status, said, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(launcher, "GRACE", 3)
    (tmp_path / "program.py").write_text(
        "import json, os, signal, sys, time\n"
        "index = json.loads(os.environ['TF_CONFIG'])['task']['index']\n" + program
    )
    assert launcher.launch([str(tmp_path / "program.py")], 2) == status
    assert capfd.readouterr().err.splitlines() == said
