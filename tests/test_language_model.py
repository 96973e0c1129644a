"""A trained model at work, against the NumPy reference."""

import contextlib
import io
import os
import shutil
import signal
import socket
import sys
import threading

import models
import numpy as np
import numpy_lstm
import pytest

from ptb import language_model, reader, rnn
from ptb.language_model import LanguageModel
from ptb.saving import checkpoint
from ptb.terminal.errors import UserError
from ptb.terminal.quiet import tf
from ptb.trained_model import read_model, read_models

RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def params(trained):
    return models.as_params(models.saved(models.last_model(trained)), num_layers=2)


def reference(params, ids):
    """Returns the log probability (nats) of every possible word after the ids, from zero state."""
    state = numpy_lstm.zero_state(params, 1)
    x, last = np.array([ids[:-1]]), np.array([ids[-1:]])
    if len(ids) > 1:
        _, state, _ = numpy_lstm.step(params, x, x, state)
    words = range(len(params["softmax_b"]))
    return -np.array([numpy_lstm.step(params, last, np.array([[y]]), state)[0] for y in words])


def sentence(words, length):
    return " ".join(RNG.choice(words, length)) if length else ""


def test_everything_is_in_the_folder(trained, tmp_path):
    """No corpus is needed, and the folder can be anywhere."""
    moved = shutil.copytree(trained, tmp_path / "moved")
    model = LanguageModel.load(str(moved))
    test = checkpoint.newest(trained)[0].position.test
    expected = f"checkpoint-000003: 2 x 6 units, epoch 2, test perplexity {test:.3f}"
    assert model.description == f"{moved}/{expected}"


@pytest.mark.parametrize("prompt", ["w1", "w0 w3 w2 w2 w7", "w1 <eos> w5", "w1 nonsense w2"])
def test_next_words_are_the_references(prompt, model, params):
    ids = [model.vocabulary.index(word if word in model.vocabulary else "<unk>")
           for word in f"<eos> {prompt}".split()]
    expected = np.exp(reference(params, ids))
    found = model.next_words(prompt, top_k=1000)
    assert [word for word, _ in found] == [model.vocabulary[i] for i in np.argsort(-expected)]
    np.testing.assert_allclose([p for _, p in found], np.sort(expected)[::-1], rtol=1e-4)
    assert sum(p for _, p in found) == pytest.approx(1, abs=1e-6)
    assert model.next_words(prompt, top_k=3) == found[:3]


def test_a_checkpoint_can_be_named_itself(trained, model):
    """As lstm.py prints it at its end, or its folder."""
    for path in trained / "checkpoint-000003" / "model.ckpt", trained / "checkpoint-000003":
        assert LanguageModel.load(str(path)).next_words("w1") == model.next_words("w1")


def test_paths_as_pathlib_has_them(trained, corpus, tmp_path):
    for file in (trained / "checkpoint-000003").glob("model.ckpt*"):
        shutil.copy(file, tmp_path / file.name.replace("model.ckpt", "model.ckpt-3"))
    expected = LanguageModel.load(str(trained)).next_words("w1")
    for args in (trained,), (trained / "checkpoint-000003" / "model.ckpt",), (tmp_path, corpus):
        assert LanguageModel.load(*args).next_words("w1") == expected
    for path in trained, tmp_path / "model.ckpt-3.index":
        assert read_model(path, corpus).vocabulary == reader.read_vocabulary(corpus)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.parametrize("ask", [
    lambda model, folder: model.next_words("w1"),
    lambda model, folder: LanguageModel.load(folder),
], ids=["the model", "a new one"])
def test_forked_process_is_told(ask, trained):
    """There, TensorFlow would wait for threads that are not there."""
    with LanguageModel.load(trained) as model:
        model.next_words("w1")
        process = os.fork()
        if not process:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            with contextlib.suppress(BaseException):
                try:
                    ask(model, trained)
                except UserError as error:
                    os._exit(7 if "cannot be forked" in str(error) else 8)
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 7
        model.next_words("w1")


@pytest.mark.parametrize("rnn_mode, number_type", [
    ("basic", "float32"), ("fused", "float32"), ("fused", "float16"), ("fused", "bfloat16"),
])
def test_network_is_that_of_a_ptb_model(rnn_mode, number_type, flags):
    """Names, shapes, types and order of the variables, and the numbers that come from them."""

    def variables():
        return [(v.op.name, v.shape.as_list(), v.dtype) for v in tf.trainable_variables()]

    flags.rnn_mode = rnn_mode
    flags.use_fp16, flags.use_bf16 = number_type == "float16", number_type == "bfloat16"
    config = models.TinyConfig()
    x, y = RNG.integers(0, 30, [2, config.batch_size, config.num_steps], dtype=np.int32)
    with models.built(config, [0] * 100) as (session, *_, model):
        models.randomize(session, 0.8)
        made, values = variables(), models.variables(session)
        expected = session.run(
            [model.loss, model.final_state], {model.input.input_data: x, model.input.targets: y}
        )
    with tf.Graph().as_default(), tf.Session() as session:
        network = rnn.Network(config, number_type)
        output, state = network.unroll(tf.constant(x), network.zero_state(config.batch_size))
        loss = network.loss(output, tf.constant(y), fast=rnn_mode == "fused")
        assert variables() == made
        models.load(session, values)
        found = session.run([loss, state])
    for ours, theirs in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        assert ours.dtype == theirs.dtype
        tolerance = 1e-6 if rnn_mode == "basic" else 0
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def test_prompt_that_begins_a_line(model):
    assert model.next_words("<eos>") == model.next_words("\n")
    assert model.next_words("<eos> w1") == model.next_words("w1")


def test_chain_rule(model):
    """The next word's log probabilities add up to the sentence's, its <eos> included."""
    words = "w2 w0 w4 w1 w1 w9".split()
    total = 0.0
    for k, word in enumerate([*words, "<eos>"]):
        prompt = " ".join(words[:k]) or "<eos>"
        total += np.log(dict(model.next_words(prompt, top_k=1000))[word])
    assert model.log_prob(" ".join(words)) == pytest.approx(total, rel=1e-5)


def test_batched_is_one_by_one_is_the_reference(model, params):
    """Lengths below, at and above a step, more sentences than rows, in no order."""
    lengths = RNG.permutation([*range(25), *[10] * 30, *RNG.integers(0, 40, 60)])
    sentences = [sentence(model.vocabulary[1:], n) for n in lengths]
    sentences = [s.replace("<eos>", "w1") for s in sentences]
    together = model.log_prob(sentences)
    assert together.shape == (len(sentences),) and together.dtype == np.float64
    np.testing.assert_allclose(together, [model.log_prob(s) for s in sentences], rtol=1e-6)
    for k in range(0, len(sentences), 7):
        ids = [model.vocabulary.index(word) for word in f"<eos> {sentences[k]} <eos>".split()]
        expected = sum(reference(params, ids[:n])[ids[n]] for n in range(1, len(ids)))
        assert together[k] == pytest.approx(expected, rel=1e-5)


def test_greedy_is_argmax(model):
    text = "w0 w3"
    expected = ["w0", "w3"]
    for _ in range(12):
        (word, _), = model.next_words(text, top_k=1)
        text += f" {word}"
        expected.append(word)
    for options in {"temperature": 0}, {"top_k": 1, "seed": 5}, {"temperature": 1e-9}:
        found = model.generate("w0 w3", words=12, **options)
        assert found.replace("\n", " <eos> ").split() == expected


def test_generated_words_follow_the_distribution(model):
    """The first word of 1,000 seeds, against p^2 of the three likeliest words, normalized."""
    expected = dict(model.next_words("<eos>", top_k=3))
    total = sum(p**2 for p in expected.values())
    counts = dict.fromkeys(expected, 0)
    for seed in range(1000):
        text = model.generate("<eos>", words=1, temperature=0.5, top_k=3, seed=seed)
        counts[text.strip() or "<eos>"] += 1
    for word, p in expected.items():
        assert counts[word] / 1000 == pytest.approx(p**2 / total, abs=0.03)


def test_seed_decides_the_text(model):
    texts = [model.generate("w1", words=30, seed=seed) for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0].replace("\n", " <eos> ").split()) == 31
    assert texts[0].startswith("w1")


def test_no_unk(model):
    """At a temperature at which all words are equally likely."""
    for no_unk in False, True:
        text = model.generate("w1", words=300, temperature=1e6, no_unk=no_unk)
        assert ("<unk>" in text) == (not no_unk)


@pytest.mark.parametrize("options, message", [
    ({"temperature": -0.1}, "temperature is -0.1; it must be a finite number from 0 on"),
    ({"temperature": float("nan")}, "temperature is nan"),
    ({"temperature": float("inf")}, "temperature is inf"),
    ({"top_k": 0}, "top_k is 0; it must be at least 1"),
    ({"words": 0}, "words is 0; it must be at least 1"),
    ({"seed": -1}, "seed is -1; it must be at least 0"),
    ({"prompt": " \t"}, "the prompt has no words"),
])
def test_mistakes_in_a_question(options, message, model):
    with pytest.raises(UserError, match=message):
        model.generate(**{"prompt": "w1", **options})
    if "prompt" in options or "top_k" in options:
        with pytest.raises(UserError, match=message):
            model.next_words(**{"prompt": "w1", **options})


def command(capsys, *args):
    """Runs the command line in this process; returns its stdout as lists of fields."""
    language_model.main(list(map(str, args)))
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_score_prints_every_line_and_the_total(model, trained, tmp_path, capsys):
    path = tmp_path / "text"
    path.write_text("w1 w2 w3\n\nw4 was here <unk>\nw0", encoding="utf-8")
    rows = command(capsys, "score", trained, path)
    assert rows[0] == ["line", "log_prob", "words", "perplexity", "unknown"]
    log_probs = model.log_prob(["w1 w2 w3", "", "w4 was here <unk>", "w0"])
    words = [4, 1, 5, 2]
    for row, number, log_prob, count, unknown in zip(
        rows[1:], "1234", log_probs, words, [0, 0, 2, 0]
    ):
        expected = [number, f"{log_prob:.4f}", str(count), f"{np.exp(-log_prob / count):.3f}"]
        assert row == [*expected, str(unknown)]
    total = log_probs.sum()
    assert rows[5] == ["total", f"{total:.4f}", "12", f"{np.exp(-total / 12):.3f}", "2"]


def test_score_says_what_known_words_alone_give(model, trained, tmp_path, capsys):
    path = tmp_path / "text"
    path.write_text("w1 odd w2\nother\nw3 <unk>\n", encoding="utf-8")
    language_model.main(["score", str(trained), str(path)])
    scores = [pair for line in ("w1 odd w2", "other", "w3 <unk>")
              for pair in model.word_log_probs(line)]
    known = [log_prob for word, log_prob in scores if word not in ("odd", "other")]
    everything = np.exp(-np.mean([log_prob for _, log_prob in scores]))
    assert capsys.readouterr().err.splitlines()[1:] == [
        "Not in the vocabulary, read as <unk>: odd, other",
        f"Perplexity of all 9 words: {everything:.3f}; of the 7 known: "
        f"{np.exp(-np.mean(known)):.3f}; 2 unknown",
    ]


def test_perplexity_where_no_word_is_known(tmp_path, trained, capsys):
    """With --stream the first word is not scored."""
    (tmp_path / "text").write_text("w1 odd")
    language_model.main(["score", "--stream", str(trained), str(tmp_path / "text")])
    assert capsys.readouterr().err.endswith("; of the 0 known: nan; 1 unknown\n")


@pytest.mark.parametrize("text, lines", [
    ("w1 <eos>\nw2 <eos>\n", ["w1", "w2"]),
    ("w1 <eos> w2\n<eos>\n\n", ["w1 <eos> w2", "", ""]),
    ("w1\x0cw2\r\n\r\nw3\x0bw4\u2028 w5\x85\n", ["w1 w2", "", "w3 w4\u2028 w5\x85"]),
    ("w1\rw2\nw3", ["w1 <eos> w2", "w3"]),
])
def test_score_has_a_row_for_each_line(text, lines, model, trained, tmp_path, capsys):
    """Whatever stands in it; and each is the log probability of the line on its own."""
    path = tmp_path / "text"
    path.write_bytes(text.encode("utf-8"))
    for option in [], ["--stream"]:
        rows = command(capsys, "score", *option, trained, path)
        assert [row[0] for row in rows[1:]] == [*map(str, range(1, len(lines) + 1)), "total"]
        if not option:
            expected = [f"{log_prob:.4f}" for log_prob in model.log_prob(lines)]
            assert [row[1] for row in rows[1:-1]] == expected
        else:  # The words are those that training reads.
            count = len(reader.split_words(text.replace("\r\n", "\n").replace("\r", "\n"))) - 1
            assert int(rows[-1][2]) == count


@pytest.mark.parametrize("stream", [False, True])
def test_score_per_word(stream, model, params, trained, tmp_path, capsys):
    """Against the reference, word by word."""
    path = tmp_path / "text"
    path.write_text("w1 strange w3\n\n<unk> w2", encoding="utf-8")
    options = ["--per_word", *["--stream"] * stream]
    rows = command(capsys, "score", *options, trained, path)
    assert rows[0] == ["line", "position", "word", "log_prob", "unknown"]
    lines = [["w1", "strange", "w3", "<eos>"], ["<eos>"], ["<unk>", "w2"]]
    if not stream:
        lines[-1].append("<eos>")
    expected, before = [], [] if stream else ["<eos>"]
    for number, line in enumerate(lines, start=1):
        if not stream:
            before = ["<eos>"]
        for position, word in enumerate(line, start=1):
            word_id, *ids = (
                model.vocabulary.index(w if w in model.vocabulary else "<unk>")
                for w in (word, *before)
            )
            if ids:
                log_prob = reference(params, ids)[word_id]
                unknown = str(int(word == "strange"))
                expected.append([str(number), str(position), word, log_prob, unknown])
            before.append(word)
    assert [row[:3] + row[4:] for row in rows[1:]] == [row[:3] + row[4:] for row in expected]
    np.testing.assert_allclose(
        [float(row[3]) for row in rows[1:]], [row[3] for row in expected], atol=1e-4
    )


def test_word_log_probs_add_up(model):
    found = model.word_log_probs("w1 strange w2")
    assert [word for word, _ in found] == ["w1", "strange", "w2", "<eos>"]
    assert sum(p for _, p in found) == pytest.approx(model.log_prob("w1 strange w2"), rel=1e-12)
    assert [word for word, _ in model.word_log_probs("")] == ["<eos>"]


def test_score_answers_each_line_as_it_comes(model, trained, monkeypatch):
    """A program that keeps it open writes a line, and reads the answer before it writes more."""
    (questions, asking), (answers, answering) = os.pipe(), os.pipe()
    stdin, stdout, stderr = os.dup(0), open(answering, "w"), io.StringIO()
    os.dup2(questions, 0)
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stderr", stderr)

    def answer():
        with stdout:
            language_model.main(["score", str(trained), "-"])

    scorer = threading.Thread(target=answer)
    scorer.start()
    with open(asking, "wb", buffering=0) as lines, open(answers) as rows:
        timer = threading.Timer(100, lines.close)  # A scorer that waits would hang the test.
        timer.start()
        try:
            assert rows.readline().startswith("line\t")  # before anything is asked
            for number, line in enumerate(["w1 w2", "", "w3 odd w4", "w1 w2"], start=1):
                lines.write(f"{line}\n".encode())
                name, log_prob, words, *_ = rows.readline().split("\t")
                assert (name, int(words)) == (str(number), len(line.split()) + 1)
                assert float(log_prob) == pytest.approx(model.log_prob(line), abs=1e-3)
            lines.write(b"w5\nw6 w7")  # two at once, and the last without a line end
        finally:
            timer.cancel()
            lines.close()
            rest = rows.readlines()
            scorer.join()
            os.dup2(stdin, 0)
            os.close(stdin)
            os.close(questions)
    assert [row.split("\t")[0] for row in rest] == ["5", "6", "total"]
    assert "read as <unk>: odd" in stderr.getvalue()


def test_bytes_that_are_not_text_end_a_scorer_after_what_came_before(trained, capsys):
    reading, writing = os.pipe()
    os.write(writing, b"w1\n")
    stdin = os.dup(0)
    os.dup2(reading, 0)
    real = language_model.LanguageModel.score_words

    def score_and_write(self, *args):
        if writing_left:
            os.write(writing_left[0], b"\xff\n")
            os.close(writing_left.pop())
        return real(self, *args)

    writing_left = [writing]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language_model.LanguageModel, "score_words", score_and_write)
        try:
            with pytest.raises(SystemExit) as status:
                language_model.main(["score", str(trained), "-"])
        finally:
            os.dup2(stdin, 0)
            os.close(stdin)
            os.close(reading)
    captured = capsys.readouterr()
    assert status.value.code == 2
    assert [row.split("\t")[0] for row in captured.out.splitlines()] == ["line", "1"]
    assert captured.err.splitlines()[-1] == (
        "language_model.py: stdin: it is not UTF-8; convert it first"
    )


def test_long_line_is_read_as_a_text(model, monkeypatch):
    sentences = [sentence(model.vocabulary[1:-1], n).replace("<eos>", "w1") for n in (50, 7, 33)]
    expected = model.log_prob(sentences)
    monkeypatch.setattr(language_model, "LONG_SENTENCE", 20)
    np.testing.assert_allclose(model.log_prob(sentences), expected, rtol=1e-5)


def test_score_takes_text_or_words(model):
    assert model.score("w1 w2\nw3") == model.score(["w1", "w2", "<eos>", "w3"])
    assert model.unknown_words("w1 strange\nw2") == ["strange"]


def test_numbers_that_are_not_finite_are_named(trained, tmp_path):
    """Of a checkpoint saved just as the training diverged; and those that overflow when asked."""
    values = models.saved(models.last_model(trained))
    values["Model/softmax_b"][:] = np.nan
    models.save(tmp_path / "model.ckpt-1", values)
    (tmp_path / "train.txt").write_text("w1 w2\n")
    with pytest.raises(UserError, match="model.ckpt-1 has weights that are not finite: its train"):
        LanguageModel.load([str(trained), str(tmp_path)], str(tmp_path))
    found = read_model(str(trained))
    values = {name: values[name] for name in found.values}
    with LanguageModel(found._replace(values=values)) as model:
        for ask in (
            lambda: model.next_words("w1"), lambda: model.generate("w1"),
            lambda: model.log_prob("w1"), lambda: model.score("w1 w2 w1", stream=True),
        ):
            with pytest.raises(UserError, match="what the model computes is not finite; lower"):
                ask()


def test_stream_is_the_runs_test(trained, params, corpus, capsys):
    """Exactly, and line by line what one word after the other gives."""
    text = corpus / "ptb.test.txt"
    rows = command(capsys, "score", "--stream", trained, text)
    words = len(text.read_text().replace("\n", " <eos> ").split())
    test = checkpoint.newest(trained)[0].position.test
    assert rows[-1][2:4] == [str(words - 1), f"{test:.3f}"]
    counts = [len(line.split()) + 1 for line in text.read_text().splitlines()]
    assert [int(row[2]) for row in rows[1:-1]] == [counts[0] - 1, *counts[1:]]
    model = LanguageModel.load(str(trained))
    first = text.read_text().splitlines()[0].split()
    ids = [model.vocabulary.index(word) for word in [*first, "<eos>"]]
    expected = sum(reference(params, ids[:k])[ids[k]] for k in range(1, len(ids)))
    assert float(rows[1][1]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["[lr=1]", "a*b?", "back\\slash", "{1,2}", "été"])
def test_folders_that_look_like_patterns(name, model, trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / name / "some")
    with LanguageModel.load(str(folder)) as its_model:
        assert its_model.next_words("w1") == model.next_words("w1")


def test_checkpoint_that_the_run_removes_meanwhile(trained, tmp_path, monkeypatch):
    """Between the look for the newest one and the reading of its variables."""
    folder = shutil.copytree(trained, tmp_path / "run")
    read = checkpoint.read_variables

    def slowly(path):
        if "000003" in path:
            shutil.move(folder / "checkpoint-000003", folder / "checkpoint-000004")
        return read(path)

    monkeypatch.setattr(checkpoint, "read_variables", slowly)
    assert "checkpoint-000004: " in LanguageModel.load(str(folder)).description


def test_checkpoint_may_go_when_it_has_been_found(trained, tmp_path, monkeypatch):
    """All of it is read by the time the network is built, which takes seconds."""
    folder = shutil.copytree(trained, tmp_path / "run")
    network = rnn.Network

    def slowly(*args, **kwargs):
        shutil.rmtree(folder, ignore_errors=True)
        return network(*args, **kwargs)

    expected = LanguageModel.load(str(folder)).next_words("w1")
    monkeypatch.setattr(rnn, "Network", slowly)
    assert LanguageModel.load(str(folder)).next_words("w1") == expected


def test_reader_that_always_loses_the_race_gives_up(trained, tmp_path, monkeypatch):
    folder = shutil.copytree(trained, tmp_path / "run")

    def go_on(path):
        name = os.path.dirname(path)
        os.rename(name, f"{name[:-6]}{int(name[-6:]) + 1:06d}")
        raise UserError(f"{path} cannot be read")

    monkeypatch.setattr(checkpoint, "read_variables", go_on)
    for read in LanguageModel.load, lambda path: read_model(path, "corpus"):
        with pytest.raises(UserError, match=f"^{folder}: the run there saves so often that each"):
            read(str(folder))


@pytest.mark.parametrize("name, there", [
    ("model.ckpt", True), ("model.ckpt.index", True), ("typo", False), ("model.ckpt-7", False),
])
def test_what_names_a_checkpoint(name, there, trained, monkeypatch):
    folder = trained / "checkpoint-000003"
    monkeypatch.chdir(folder)
    for path in str(folder / name), name:
        if there:
            assert checkpoint.find(path).position.epoch == 2
        else:
            with pytest.raises(UserError, match=f"{name}: no trained model there"):
                LanguageModel.load(path)


def test_checkpoint_that_lost_its_record(trained, tmp_path):
    folder = shutil.copytree(trained / "checkpoint-000003", tmp_path / "checkpoint-000003")
    (folder / "run.json").unlink()
    with pytest.raises(UserError, match="000003 is damaged: run.json is missing"):
        LanguageModel.load(str(folder))


def test_damaged_checkpoint_named_from_within_its_folder(trained, tmp_path, monkeypatch):
    folder = shutil.copytree(trained / "checkpoint-000003", tmp_path / "checkpoint-000003")
    (folder / "run.json").write_text("{}")
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=r"^\. is damaged: run.json is not what was written"):
        LanguageModel.load("model.ckpt")


def test_home_folder_and_addresses(trained, monkeypatch):
    monkeypatch.setenv("HOME", str(trained.parent))
    assert LanguageModel.load(f"~/{trained.name}").description.startswith(str(trained))
    with pytest.raises(UserError, match="gs://bucket/run is an address; name a folder of this mac"):
        LanguageModel.load("gs://bucket/run")


def test_closed_model_cannot_be_asked(trained):
    with LanguageModel.load(str(trained)) as model:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        model.next_words("w1")


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_no_word_but_unk(temperature, model, monkeypatch):
    monkeypatch.setattr(model, "vocabulary", ["<unk>"])
    with pytest.raises(UserError, match="the vocabulary has no word but <unk>; allow it"):
        model.generate("w1", words=1, temperature=temperature, no_unk=True)


def test_words_that_the_terminal_cannot_show(trained, corpus, monkeypatch):
    """They are escaped, and the output goes on."""
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, "ascii"))
    text = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stderr", text)
    language_model.main(["generate", str(trained), "--prompt", "w1 我们", "--words", "3"])
    sys.stdout.flush()
    text.flush()
    assert b"read as <unk>: \\u6211\\u4eec\n" in text.buffer.getvalue()
    assert output.getvalue().startswith(b"w1 <unk>")


def test_output_to_a_full_disk_is_one_line(trained, monkeypatch, capsys):
    with open("/dev/full", "w") as full, pytest.raises(SystemExit) as ended:
        monkeypatch.setattr(sys, "stdout", full)
        language_model.main(["next", str(trained), "--prompt", "w1"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[1:] == [
        "language_model.py: the output cannot be written (No space left on device)"
    ]


@pytest.mark.parametrize("kind", ["pipe", "socket", "file that is half read"])
def test_score_reads_stdin_and_says_unknown_words(kind, trained, tmp_path, capsys):
    """From the descriptor that there is: what somebody has read before is not read again."""
    if kind == "pipe":
        reading, writing = os.pipe()
    elif kind == "socket":
        reading, writing = (end.detach() for end in socket.socketpair())
    else:
        reading = os.open(tmp_path / "text", os.O_RDWR | os.O_CREAT)
        writing = os.dup(reading)
        os.write(writing, b"somebody else's line\n")
    at = os.lseek(reading, 0, os.SEEK_CUR) if kind.startswith("file") else None
    os.write(writing, b"w1 strange w2\n")
    os.close(writing)
    if at is not None:
        os.lseek(reading, at, os.SEEK_SET)
    stdin = os.dup(0)
    os.dup2(reading, 0)
    try:
        rows = command(capsys, "score", trained, "-")
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)
        os.close(reading)
    assert len(rows) == 3 and rows[1][4] == "1"


def test_small_probabilities_are_not_zero(trained, capsys, monkeypatch):
    """As they are where there are very many words."""
    answer = [("a", 0.40046), ("b", 0.00123), ("c", 0.00099), ("d", 2.134e-06)]
    monkeypatch.setattr(LanguageModel, "next_words", lambda *_: answer)
    language_model.main(["next", str(trained), "--prompt", "w1"])
    assert capsys.readouterr().out == "  0.4005  a\n  0.0012  b\n9.90e-04  c\n2.13e-06  d\n"


def test_unknown_words_are_named(trained, capsys):
    language_model.main(["next", str(trained), "--prompt", "w1 strange"])
    said = capsys.readouterr().err.splitlines()[1:]
    assert said == ["Not in the vocabulary, read as <unk>: strange"]


@pytest.mark.parametrize("args, message", [
    (["next", "{nothing}", "--prompt", "a"], "nothing: no trained model there"),
    (["next", "{empty}", "--prompt", "a"], "empty: no trained model there"),
    (["next", "{trained}", "--prompt", ""], "the prompt has no words; '<eos>' starts a new line"),
    (["generate", "{trained}", "--prompt", "a", "--temperature", "hot"], "invalid float value"),
    (["generate", "{trained}", "--prompt", "a", "--temperature", "-1"], "temperature is -1"),
    (["generate", "{trained}"], "required: --prompt; --help shows the use"),
    (["next", "{trained}", "--prompt", "the", "cat"],
     "unrecognized arguments: cat (files come before options; several words of a prompt need qu"),
    (["generate", "{trained}", "--prompt", "a", "--temp", "1"], "unrecognized arguments: --temp"),
    (["score", "{trained}", "{nothing}"], "nothing: No such file or directory"),
    (["score", "{trained}", "{trained}"], "Is a directory"),
    (["score", "{trained}", "{empty}/text"], "no words to score"),
    (["score", "{trained}", "{empty}/bytes"], "bytes: line 2 is not UTF-8"),
    (["score", "{trained}", "{empty}/mark"], "no words to score"),
    (["score", "--stream", "{trained}", "{empty}/space"], "no words to score"),
    (["score", "--stream", "{trained}", "{empty}/word"], "a single word: the first of a text"),
    (["next", "{trained}", "--prompt", "a", "--data_path", "x"], "has its own vocabulary"),
    (["similar", "{trained}", "--word", "W1"], "'W1' is not in the vocabulary; write it as"),
    (["similar", "{trained}", "--word", "w1", "--top_k", "0"], "top_k is 0; it must be at least 1"),
    (["similar", "{trained}", "--word", "w1", "--matrix", "bias"], "invalid choice: 'bias'"),
    (["similar", "{trained}"], "required: --word"),
    (["praise", "{trained}"], "invalid choice: 'praise'"),
    ([], "required: command"),
])
def test_mistakes_get_one_line(args, message, trained, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "text").write_text("")
    (tmp_path / "empty" / "word").write_text("a")
    (tmp_path / "empty" / "space").write_text(" ")
    (tmp_path / "empty" / "mark").write_text("\ufeff", encoding="utf-8")
    (tmp_path / "empty" / "bytes").write_bytes(b"a\n\xff\n")
    folders = {"trained": trained, "nothing": tmp_path / "nothing", "empty": tmp_path / "empty"}
    with pytest.raises(SystemExit) as status:
        language_model.main([arg.format(**folders) for arg in args])
    assert status.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    line = captured.err.splitlines()[-1]
    assert line.startswith("language_model.py: ") and message in line


def test_damaged_checkpoint_is_named_and_the_one_before_used(trained, tmp_path, capsys):
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / "checkpoint-000003" / "run.json").write_text("{}")
    model = LanguageModel.load(str(folder))
    assert f"{folder}/checkpoint-000003 is damaged: run.json is not" in capsys.readouterr().err
    assert model.description.endswith("checkpoint-000002: 2 x 6 units, epoch 2, not finished")


@pytest.mark.parametrize("prompt, said", [
    ("我们今天学习", "我们今天学习"), ("我们　今天　学习", "我们　今天　学习"), ("学习", "学习"),
    ("w1 <eos>\n学习", "学习"), ("w1 彼は昨日この本を", "彼は昨日この本を"), ("w1 学习", None),
    ("unknown", None),
])
def test_prompt_without_spaces_is_said(prompt, said, trained, loaded, capsys):
    language_model.main(["next", str(trained), "--prompt", prompt])
    lines = capsys.readouterr().err.splitlines()[1:]
    assert lines[0].startswith("Not in the vocabulary, read as <unk>: ")
    assert lines[1:] == ([
        f"{said} is read as one word; put plain spaces between words, as the corpus has them"
    ] if said else [])


def test_known_word_without_spaces_is_a_word(trained, capsys):
    found = checkpoint.find(str(trained))
    words = ["我们今天学习", *found.vocabulary[1:]]
    with LanguageModel(read_models(trained)[0]._replace(vocabulary=words)) as model:
        language_model.say_unknown(model, "我们今天学习")
    assert capsys.readouterr().err == ""


# The tutorial's checkpoints.

def test_checkpoint_of_the_tutorial(shared, capsys):
    """Loaded from its path or its folder; its test perplexity is what TensorFlow 1.15 gave."""
    data = shared / "simple-examples" / "data"
    folder = shared / "checkpoints" / "tf115-tst"
    model = LanguageModel.load(str(folder / "model.ckpt-23239"), str(data))
    found = model.next_words("the company said", top_k=10000)
    assert len(found) == 10000 and sum(p for _, p in found) == pytest.approx(1, abs=1e-5)
    rows = command(
        capsys, "score", "--stream", folder, "--data_path", data, data / "ptb.test.txt"
    )
    assert rows[-1][2] == "82429"
    assert float(rows[-1][3]) == pytest.approx(458.287, abs=1.5e-3)


def test_tutorials_checkpoint_needs_its_corpus(trained, corpus, tmp_path):
    """A checkpoint alone, as the tutorial leaves it: its vocabulary is not with it."""
    for path in (trained / "checkpoint-000003").glob("model.ckpt*"):
        shutil.copy(path, tmp_path / path.name.replace("model.ckpt", "model.ckpt-12"))
    for path in (trained / "checkpoint-000002").glob("model.ckpt*"):
        shutil.copy(path, tmp_path / path.name.replace("model.ckpt", "model.ckpt-9"))
    with pytest.raises(UserError, match="model.ckpt-12 has no vocabulary; name its corpus"):
        LanguageModel.load(str(tmp_path))
    model = LanguageModel.load(str(tmp_path), str(corpus))
    assert model.next_words("w1") == LanguageModel.load(str(trained)).next_words("w1")
    big = tmp_path / "big"
    big.mkdir()
    (big / "ptb.train.txt").write_text(" ".join(map(str, range(100))))
    with pytest.raises(UserError, match="big has 100 word types, .*: it was trained on another"):
        LanguageModel.load(str(tmp_path), str(big))
    (tmp_path / "model.ckpt-12.index").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match="model.ckpt-12 cannot be read; it is damaged"):
        LanguageModel.load(str(tmp_path), str(corpus))


def test_other_checkpoint_is_refused(tmp_path):
    models.save(tmp_path / "other", {"v": np.zeros(2)})
    with pytest.raises(UserError, match="other has not the variables of the PTB tutorial"):
        LanguageModel.load(str(tmp_path))


NAMINGS = {
    "TensorFlow 1.1": ("basic_lstm_cell/weights", "basic_lstm_cell/biases"),
    "basic mode": ("basic_lstm_cell/kernel", "basic_lstm_cell/bias"),
    "block mode": ("lstm_cell/kernel", "lstm_cell/bias"),
    "cuDNN mode of TensorFlow 1.3": (
        "cudnn_compatible_lstm_cell/kernel", "cudnn_compatible_lstm_cell/bias",
    ),
}


@pytest.mark.parametrize("naming, dtype", [
    *((naming, np.float32) for naming in NAMINGS), ("block mode", np.float16),
])
def test_every_naming_of_the_tutorial(naming, dtype, model, trained, corpus, tmp_path):
    """They are the same numbers under other names, in 16 bits where the tutorial trained so."""
    kernel, bias = NAMINGS[naming]
    values = {
        name.replace("basic_lstm_cell/kernel", kernel).replace("basic_lstm_cell/bias", bias):
            value.astype(dtype) for name, value in models.saved(models.last_model(trained)).items()
    }
    if "cuDNN" in naming:
        values["Model/lstm_params"] = np.zeros(9, dtype)
    models.save(tmp_path / "model.ckpt-7", values)
    # The name that a shell completes has the ending.
    found = LanguageModel.load(str(tmp_path / "model.ckpt-7.index"), str(corpus))
    sentences = ["w1 w2 w3 w0", "w5"]
    tolerance = 1e-2 if dtype == np.float16 else 1e-6
    np.testing.assert_allclose(
        found.log_prob(sentences), model.log_prob(sentences), rtol=tolerance
    )


def test_cudnn_buffer_is_refused_in_one_line(trained, corpus, tmp_path):
    values = models.saved(models.last_model(trained))
    values = {name: value for name, value in values.items() if "RNN" not in name}
    models.save(tmp_path / "model.ckpt-7", {**values, "Model/lstm_params": np.zeros(9)})
    with pytest.raises(UserError, match="model.ckpt-7 is of the tutorial's cuDNN mode, which keep"):
        LanguageModel.load(str(tmp_path), str(corpus))


@pytest.fixture
def without_unk(trained, tmp_path):
    """The model of a tutorial's checkpoint whose corpus has no <unk>, and a row for each word."""
    values = models.saved(models.last_model(trained))
    (tmp_path / "train.txt").write_text("c a b \n a b b \n b \n \n")
    for name in "embedding", "softmax_b":
        values[f"Model/{name}"] = values[f"Model/{name}"][:4]
    values["Model/softmax_w"] = values["Model/softmax_w"][:, :4]
    models.save(tmp_path / "model.ckpt-7", values)
    return LanguageModel.load(str(tmp_path), str(tmp_path))


def test_vocabulary_without_unk(without_unk, tmp_path):
    """Accepted where every row of the embedding has its word; its probabilities add up to 1."""
    assert without_unk.vocabulary == ["<eos>", "b", "a", "c"]
    assert sum(p for _, p in without_unk.next_words("a b")) == pytest.approx(1, abs=1e-6)
    text = without_unk.generate("a", words=20, no_unk=True)
    assert without_unk.score(text)[-1][2] == 0
    for ask, message in [
        (lambda: without_unk.next_words("a strange b"), "the prompt, line 1: 'strange' is not in"),
        (lambda: without_unk.generate("x"), "the prompt, line 1: 'x' is not in the vocab"),
        (lambda: without_unk.score("a\nb\nc odd\n"), "line 3: 'odd' is not in the vocabulary"),
        (lambda: without_unk.score("a\nb odd\n", stream=True), "line 2: 'odd' is not in the voca"),
        (lambda: without_unk.log_prob(["a", "b odd"]), "line 2: 'odd' is not in the vocabulary"),
    ]:
        with pytest.raises(UserError, match=f"{message}.*") as error:
            ask()
        assert str(error.value).endswith("no <unk> either; use words that its corpus has")
    (tmp_path / "train.txt").write_text("a b c d e \n")
    with pytest.raises(UserError, match="has 6 word types, and .* 4: it was trained on another"):
        LanguageModel.load(str(tmp_path), str(tmp_path))
    (tmp_path / "train.txt").write_text("b a \n")  # There are rows left, so <unk> has one.
    assert LanguageModel.load(str(tmp_path), str(tmp_path)).vocabulary == [
        "<eos>", "a", "b", "<unk>"
    ]


def test_words_that_the_tutorial_joined_to_line_ends(trained, tmp_path, capsys):
    """They are words of the model, which has their ids; and it is said that there are such."""
    models.save(tmp_path / "model.ckpt-7", models.saved(models.last_model(trained)))
    (tmp_path / "train.txt").write_text("the goose sees the fox\na fox sees the goose\n" * 20)
    with LanguageModel.load(str(tmp_path), str(tmp_path)) as model:
        assert model.vocabulary == [
            "the", "sees", "fox", "fox<eos>a", "goose", "goose<eos>the", "goose<eos>", "<unk>"
        ]
    fewer, joined = capsys.readouterr().err.splitlines()
    assert f"has 7 word types, and {tmp_path}/model.ckpt-7 has rows for 31: it makes sens" in fewer
    assert joined.endswith("no space is between them; fox<eos>a is a word of this model.")
    # These are 21 words to our reader, which would fit the 31 rows of the embedding.
    (tmp_path / "train.txt").write_text("".join(f" {i} {i}\n" for i in range(20)))
    with pytest.raises(UserError, match="has 40 word types, .* 31: it was trained on another corp"):
        LanguageModel.load(str(tmp_path), str(tmp_path))


# Several models, averaged.

@pytest.fixture(scope="module")
def single(mixture, corpus):
    """The models of the mixture one by one."""
    return [LanguageModel.load(path, corpus if "ckpt" in str(path) else None) for path in mixture]


@pytest.fixture(scope="module")
def average(mixture, corpus):
    return LanguageModel.load(mixture, corpus)


def mean_of(models_, prompt):
    """Returns the mean of the models' probabilities of each word, by id."""
    each = [dict(model.next_words(prompt, 1000)) for model in models_]
    return np.mean([[answer[word] for word in models_[0].vocabulary] for answer in each], axis=0)


@pytest.mark.parametrize("prompt", ["<eos>", "w1", "w0 w3 w2 nonsense w7"])
def test_average_is_the_mean_of_the_probabilities(prompt, average, single):
    """Of models of other sizes, number types and rows."""
    expected = mean_of(single, prompt)
    found = average.next_words(prompt, 1000)
    assert [word for word, _ in found] == [average.vocabulary[i] for i in np.argsort(-expected)]
    np.testing.assert_allclose([p for _, p in found], np.sort(expected)[::-1], rtol=1e-9)
    for model in single:
        assert np.abs(mean_of([model], prompt) / expected - 1).max() > 0.1


def test_average_of_runs_adds_up_to_1(mixture):
    with LanguageModel.load(mixture[:2]) as model:
        assert sum(p for _, p in model.next_words("w1", 1000)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("ask", [
    lambda model, text: [p for score in model.score_words(text) for p in score.log_probs],
    lambda model, text: [p for _, p in model.word_log_probs(text.split("\n")[1])],
    lambda model, text: [p for score in model.score_words(text, True) for p in score.log_probs],
], ids=["lines side by side", "a line alone", "a text whose state is carried"])
def test_average_scores_by_the_mean(ask, average, single):
    text = "\n".join(sentence(average.vocabulary[1:], n) for n in (0, 12, 3, 40))
    expected = np.mean([np.exp(ask(model, text)) for model in single], axis=0)
    np.testing.assert_allclose(np.exp(ask(average, text)), expected, rtol=1e-9)


def test_average_generates_from_the_mean(average, single):
    """With the temperature, top_k and no_unk of one model."""
    expected = mean_of(single, "w1 w2")
    expected[average.vocabulary.index("<unk>")] = 0
    expected[np.argsort(-expected)[7:]] = 0
    weights = expected ** (1 / 1.5)
    for seed in range(40):
        i = np.random.default_rng(seed).choice(len(weights), p=weights / weights.sum())
        text = average.generate("w1 w2", 1, temperature=1.5, top_k=7, no_unk=True, seed=seed)
        assert text == f"w1 w2 {average.vocabulary[i]}".replace(" <eos>", "\n")
    greedy = average.generate("w1 w2", 1, temperature=0)
    assert greedy == f"w1 w2 {average.next_words('w1 w2', 1)[0][0]}".replace(" <eos>", "\n")


def test_average_of_a_model_and_itself_is_the_model(trained, model):
    """A score to the last bit; a probability but for the rounding of a float64."""
    text = "\n".join(sentence(model.vocabulary[1:], n) for n in (5, 30, 2))
    with LanguageModel.load((trained, str(trained), trained)) as same:
        for stream in False, True:
            assert same.score(text, stream) == model.score(text, stream)
        found, expected = same.next_words("w1", 1000), model.next_words("w1", 1000)
        assert [word for word, _ in found] == [word for word, _ in expected]
        np.testing.assert_allclose([p for _, p in found], [p for _, p in expected], rtol=1e-13)
        assert same.description.splitlines() == [
            "The average of 3 models:", f"{model.description}, counted 3 times"
        ]


@pytest.mark.parametrize("models_, p", [((0, 1), 0.5), ((1, 0), 0.5), ((1, 1), 0.0)])
def test_probability_too_small_for_a_float(models_, p, trained, tmp_path):
    """In one of two models, the mean is half of the other's; in both, there is no NaN."""
    values = models.saved(models.last_model(trained))
    (tmp_path / "train.txt").write_text(" ".join(f"v{i}" for i in range(28)) + "\n")
    paths = []
    for number, bias in enumerate([0, -1e4]):
        values["Model/softmax_b"][0] = bias
        paths.append(tmp_path / f"model.ckpt-{number}")
        models.save(paths[-1], values)
    with LanguageModel.load(paths[:1], tmp_path) as other:
        word = other.vocabulary[0]
        expected = other.word_log_probs(word)[0][1]
    with LanguageModel.load([paths[number] for number in models_], tmp_path) as model:
        log_prob = model.word_log_probs(word)[0][1]
        assert dict(model.next_words("<eos>", 1000))[word] == pytest.approx(p * np.exp(expected))
    assert log_prob == pytest.approx(expected - (np.log(2) if p else 1e4), rel=1e-3)


@pytest.mark.parametrize("change, message", [
    (lambda words: ["x" if i == 3 else word for i, word in enumerate(words)],
     "word 4 is '{words[3]}' in {a} and is 'x' in {b}"),
    (lambda words: [words[0], words[2], words[1], *words[3:]],
     "word 2 is '{words[1]}' in {a} and is '{words[2]}' in {b}"),
    (lambda words: words[:-1], "word 31 is '{words[30]}' in {a} and is missing in {b}"),
    (lambda words: [*words, "more"], "word 32 is missing in {a} and is 'more' in {b}"),
])
def test_first_difference_of_vocabularies_is_named(change, message, trained, tmp_path, capsys):
    other = shutil.copytree(trained, tmp_path / "other")
    found = checkpoint.find(other)
    os.remove(os.path.join(found.path, "SHA256SUMS"))
    checkpoint.write(found.path, found.facts, found.position, change(found.vocabulary))
    expected = message.format(a=trained, b=other, words=found.vocabulary)
    with pytest.raises(SystemExit) as status:
        language_model.main(["next", str(trained), "--prompt", "w1", "--average_with",
                             str(trained), str(other)])
    assert status.value.code == 2
    assert capsys.readouterr().err == (
        f"language_model.py: only models with the same vocabulary have an average: {expected}; "
        "leave one of them out\n"
    )


def test_average_on_the_command_line(mixture, corpus, average, tmp_path, capsys):
    """Each of the models is named."""
    further = ["--data_path", corpus, "--average_with", *mixture[1:]]
    rows = command(capsys, "next", mixture[0], "--prompt", "w1", "--top_k", 2, *further)
    assert rows == [[f"{p:8.4f}  {word}"] for word, p in average.next_words("w1", 2)]
    text = tmp_path / "text"
    text.write_text("w1 w2\nw3\n")
    for options in [], ["--stream"], ["--per_word"]:
        rows = command(capsys, "score", mixture[0], text, *options, *further)
        scores = average.score_words(text.read_text(), stream="--stream" in options)
        log_probs = [f"{score.log_probs.sum():.4f}" for score in scores]
        if options == ["--per_word"]:
            log_probs = [f"{p:.4f}" for score in scores for p in score.log_probs]
        column = rows[0].index("log_prob")
        assert [row[column] for row in rows[1 : len(log_probs) + 1]] == log_probs
    language_model.main(["generate", str(mixture[0]), "--prompt", "w1", *map(str, further)])
    captured = capsys.readouterr()
    assert captured.out == average.generate("w1") + "\n"
    first, *lines = captured.err.splitlines()
    assert first == "The average of 3 models:" and len(lines) == 3
    assert all(line.startswith(str(path)) for line, path in zip(lines, mixture))


def test_best_epochs_are_averaged(trained, capsys):
    command(capsys, "next", trained, "--prompt", "w1", "--best", "--average_with", trained)
    with LanguageModel.load(trained, best=True) as best:
        pass
    language_model.main(["next", str(trained), "--prompt", "w1", "--best", "--average_with",
                         str(trained)])
    assert capsys.readouterr().err.splitlines() == [
        "The average of 2 models:", f"{best.description}, counted 2 times"
    ]


@pytest.mark.parametrize("ask", [
    lambda model: model.vectors(), lambda model: model.similar_words("w1"),
    lambda model: model.gates("w1"), lambda model: [*model.cell_states([["w1"]])],
    lambda model: model.config,
])
def test_what_is_of_one_model_is_refused(ask, average):
    with pytest.raises(UserError, match="are of one model, not of an average; load one model alon"):
        ask(average)


@pytest.mark.parametrize("args, message", [
    (["next", "{run}", "--prompt", "a", "--average_with"], "--average_with: expected at least one"),
    (["next", "{run}", "--prompt", "a", "--average_with", "{run}", "{none}"], "none: no trained"),
    (["next", "{run}", "--prompt", "a", "--average_with", "{run}", ""], "a path is empty; name a"),
    (["next", "{run}", "--prompt", "a", "--average_with", "{run}", "--data_path", "{corpus}"],
     "{run} has its own vocabulary; leave out --data_path"),
    (["next", "{run}", "--prompt", "a", "--average_with", "{tutorials}"],
     "model.ckpt-9 has no vocabulary; name its corpus with --data_path"),
    (["next", "{run}", "--prompt", "a", "--average_with", "{tutorials}", "--data_path", "{corpus}",
      "--best"], "model.ckpt-9 is not the folder of a run, which --best needs"),
    (["score", "{run}", "--average_with", "{run}", "{corpus}/ptb.valid.txt"],
     "required: file (--average_with takes all words that follow it; name it last); --help"),
    (["similar", "{run}", "--word", "w1", "--average_with", "{run}"],
     "--average_with: this is asked of one model; leave the others out"),
])
def test_mistakes_in_an_average_get_one_line(args, message, mixture, corpus, tmp_path, capsys):
    run, _, tutorials = mixture
    names = {"run": run, "tutorials": tutorials, "corpus": corpus, "none": tmp_path / "none"}
    with pytest.raises(SystemExit) as status:
        language_model.main([arg.format(**names) for arg in args])
    assert status.value.code == 2
    captured = capsys.readouterr()
    line, = captured.err.splitlines()
    assert captured.out == ""
    assert line.startswith("language_model.py: ") and message.format(**names) in line


def test_average_of_no_model():
    with pytest.raises(UserError, match="the number of models is 0; it must be at least 1"):
        LanguageModel.load([])


# The words' vectors.

@pytest.mark.parametrize("matrix", ["softmax_w", "embedding"])
def test_similar_words_are_nearest_by_cosine(matrix, trained, model, capsys):
    value = tf.train.load_variable(models.last_model(trained), f"Model/{matrix}")
    vectors = value.T if matrix == "softmax_w" else value
    np.testing.assert_array_equal(model.vectors(matrix), vectors)
    word = model.vocabulary.index("w1")
    cosines = {
        name: vectors[word] @ vector / np.linalg.norm(vectors[word]) / np.linalg.norm(vector)
        for name, vector in zip(model.vocabulary, vectors) if name != "w1"
    }
    expected = sorted(cosines, key=cosines.get, reverse=True)
    found = model.similar_words("w1", 1000, matrix)
    assert [name for name, _ in found] == expected
    np.testing.assert_allclose([c for _, c in found], sorted(cosines.values())[::-1], atol=1e-6)
    assert model.similar_words("w1", matrix=matrix) == found[:10]
    rows = command(capsys, "similar", trained, "--word", "w1", "--top_k", 3, "--matrix", matrix)
    assert rows == [[f"{cosine:8.4f}  {name}"] for name, cosine in found[:3]]


def test_softmax_w_has_the_better_neighbours(model, trained, capsys):
    """So its columns are the vectors that are meant where no matrix is named."""
    assert model.similar_words("w1") == model.similar_words("w1", matrix="softmax_w")
    rows = command(capsys, "similar", trained, "--word", "w1")
    assert rows == command(capsys, "similar", trained, "--word", "w1", "--matrix", "softmax_w")
    assert (model.vectors() == model.vectors("softmax_w")).all()


def test_word_whose_vector_is_zero(model, monkeypatch):
    """Here all but those of two words."""
    vectors = np.zeros([len(model.vocabulary), 2], np.float32)
    vectors[1:3] = [1, 0], [2, 1]
    monkeypatch.setattr(model, "vectors", lambda matrix: vectors)
    zero, a, b, *_ = model.vocabulary
    assert model.similar_words(a, 2) == [(b, pytest.approx(2 / 5**0.5)), (zero, 0)]
    assert model.similar_words(zero, 2) == [(a, 0), (b, 0)]
