"""Several workers: the same numbers as one process, the same folder, and one line when one fails."""

import threading

import numpy as np
import pytest

import lstm
import models
from ptb import cluster
from ptb.quiet import tf

IDS = np.random.default_rng(1).integers(0, 30, 3000)


class SharedConfig(models.TinyConfig):
    """A batch of 12 rows, which 2, 3 and 4 workers can share."""

    batch_size = 12
    hidden_size = 20
    init_scale = 0.4
    keep_prob = 0.6


def together(number, work, patience=60.0):
    """Runs work(index) as so many workers, each a thread of this process; returns their results.

    The first exception is raised, once all have ended.
    """
    addresses = cluster._free_addresses(number)
    results, errors = [None] * number, []

    def be(index):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        try:
            with cluster.join(cluster.json.dumps(task), patience):
                results[index] = work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=be, args=[index]) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def trained(config, steps):
    """Returns (costs, last state, variables, test losses) of a short training of a worker."""
    with models.built(config, IDS, IDS[:200]) as (session, model, _, test):
        model.assign_lr(session, 0.5)
        state = session.run(model.initial_state)
        costs = []
        for step in range(steps):
            feed = {model.input.step: step}
            feed.update(zip(tf.nest.flatten(model.initial_state), tf.nest.flatten(state)))
            cost, state, _ = session.run([model.cost, model.final_state, model.train_op], feed)
            costs.append(float(cost))
        losses = lstm.text_perplexity(session, test)
        return costs, tf.nest.flatten(state), models.variables(session), losses


@pytest.fixture(autouse=True)
def no_lingering(monkeypatch):
    """Workers that are threads of one process end together."""
    monkeypatch.setattr(cluster, "LINGER", 0)


@pytest.mark.parametrize("number", [2, 3, 4])
@pytest.mark.parametrize("rnn_mode", ["fused", "basic"])
def test_same_numbers_as_one_process(number, rnn_mode, flags):
    flags.rnn_mode = rnn_mode
    single = trained(SharedConfig(), 20)
    several = together(number, lambda _: trained(SharedConfig(), 20))
    for costs, state, variables, losses in several:
        np.testing.assert_allclose(costs, single[0], rtol=1e-5)
        for ours, theirs in zip(state, single[1]):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
        for name, value in variables.items():
            np.testing.assert_array_equal(value, several[0][2][name], err_msg=name)
        assert losses == pytest.approx(single[3], rel=1e-6)
