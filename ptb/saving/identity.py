"""What makes two runs the same run, and how a difference is said."""

import hashlib
import itertools
import os

import numpy as np

from ptb.saving import files
from ptb.terminal.command_line import POSITIVE, WHOLE, as_typed
from ptb.terminal.errors import UserError
from ptb.terminal.quiet import tf

FACTS = ("config", "corpus", "ids", "init_from", "number_type", "rnn_mode", "seed", "tensorflow")
FREE_TO_CHANGE = ("rnn_mode", "config.max_max_epoch", "tensorflow")  # between two starts of a run
SIZES = ("num_layers", "hidden_size", "vocab_size")  # the fields that decide the variables' shapes


def facts_of(config, flags, number_type, texts, init_from):
    """Returns what decides a run's numbers, as JSON values by name; the names are FACTS.

    Of the corpus it is the word ids that decide. The checksums of the files are beside them for
    who looks into run.json, and for runs of the first release, which have no others.

    Args:
      config: the configuration.
      flags: the script's flags.
      number_type: the name of the type in which matrix products take their operands.
      texts: {part of the corpus: (path of its file, its word ids)}.
      init_from: the checksum of the first weights; None where they are drawn.
    """
    return {
        **({"init_from": init_from} if init_from else {}),
        "config": {name: getattr(config, name) for name in (*WHOLE, *POSITIVE)},
        "corpus": {os.path.basename(path): files.sha256_of(path) for path, _ in texts.values()},
        "ids": {
            part: hashlib.sha256(np.asarray(ids, np.int32)).hexdigest()
            for part, (_, ids) in texts.items()
        },
        "number_type": number_type,
        "rnn_mode": flags.rnn_mode,
        "seed": flags.seed,
        "tensorflow": tf.__version__,
    }


def unknown_facts(facts):
    """Returns the names in a run's facts that this version of the project does not know."""
    config = facts.get("config", {})
    return sorted({*facts} - {*FACTS}) + sorted({*config} - {*WHOLE, *POSITIVE})


def refuse_another_run(folder, found, facts, source):
    """Raises UserError, with every difference, where a Checkpoint is not of the run to be trained.

    Args:
      folder: the run's folder.
      found: the checkpoint.Checkpoint in it.
      facts: what facts_of returns for the run to be trained.
      source: its source.Source.
    """
    different = _differences(found, facts, source)
    if not different:
        return
    message = (
        f"{folder} has another run: {'; '.join(different)}. Use another --save_path, or "
        "--restart, which moves that run aside"
    )
    before, now = flat(found.facts), flat(facts)
    if all(before.get(f"config.{name}") == now.get(f"config.{name}") for name in SIZES):
        start = as_typed(["--init_from", folder])
        message += f"; with another --save_path, {start} starts from its weights"
    raise UserError(message)


def _differences(found, facts, source):
    """Returns what is different, in words; see refuse_another_run."""
    before, now = dict(found.facts), dict(facts)
    source_before, source_now = before.pop("init_from", None), now.pop("init_from", None)
    corpus_before, corpus_now = before.pop("corpus", {}), now.pop("corpus", {})
    ids_before, ids_now = before.pop("ids", None), now.pop("ids", None)
    before, now = flat(before), flat(now)
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
    return different


def flat(facts, prefix=""):
    """Returns {"a.b": value} of {"a": {"b": value}}."""
    by_name = {}
    for name, value in facts.items():
        if isinstance(value, dict):
            by_name.update(flat(value, f"{prefix}{name}."))
        else:
            by_name[prefix + name] = value
    return by_name
