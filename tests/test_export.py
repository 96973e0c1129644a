"""What leaves the project, read by others: TensorFlow alone, gensim, TensorBoard's projector."""

import errno
import gzip
import json
import subprocess
import sys

import models
import numpy as np
import pytest
from conftest import System, failing, train

from ptb import export
from ptb.language_model import LanguageModel
from ptb.saving import checkpoint, files
from ptb.terminal.errors import UserError
from ptb.terminal.quiet import tf
from ptb.trained_model import read_models

# A program that knows TensorFlow 2 and nothing of this project.
FRESH_PROCESS = """
import json, sys
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
texts = tf.constant(json.loads(sys.argv[2]))
next_words = model.signatures["next_words"](text=texts, top_k=tf.constant(4))
log_prob = model.signatures["log_prob"](text=texts)["log_prob"]
words = [[word.decode() for word in row] for row in next_words["words"].numpy()]
print(json.dumps([words, next_words["probabilities"].numpy().tolist(), log_prob.numpy().tolist()]))
assert "ptb" not in sys.modules
"""
PIECES = [" ", "\t", "\n", "\r", "\f", "\v", "\u00a0", "\u3000", "\x85", "\0", "w1", "w2", "w10",
          "x", "<eos>", "<unk>", "<", "é", "我们"]
TEXTS = ["", " ", "\n", "\n\n", "<eos>", "w1", "w1\n", "w1 <eos>", "<eos> w1", "w1 <eos> <eos> ",
         "w1<eos>", "<eos>w1", "w1 <eos> w2", "\x0bw1\u00a0w2 \r\n", "strange <unk>", "w3 " * 50]


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """A SavedModel of the trained model."""
    folder = tmp_path_factory.mktemp("served") / "some" / "1"
    export.write_saved_model(model, folder)
    return folder


@pytest.fixture(scope="module")
def ask(folder):
    """To be called with a signature's name and its inputs: returns its outputs."""
    with serving(folder) as call:
        yield call


class serving:
    """Loads a SavedModel as a server does; within it, a function that runs a signature."""

    def __init__(self, folder):
        self._folder = folder

    def __enter__(self):
        self._session = tf.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            loaded = tf.saved_model.load(self._session, ["serve"], str(self._folder))
        self.signatures = loaded.signature_def
        return self

    def __exit__(self, *_):
        self._session.close()

    def __call__(self, name, **inputs):
        signature = self.signatures[name]
        outputs = {key: info.name for key, info in signature.outputs.items()}
        return self._session.run(
            outputs, {signature.inputs[key].name: value for key, value in inputs.items()}
        )


def assert_same(words, probabilities, expected):
    """Compares a row of next_words with what LanguageModel answers."""
    assert [word.decode() for word in words] == [word for word, _ in expected]
    np.testing.assert_allclose(probabilities, [p for _, p in expected], rtol=1e-5)


def random_texts():
    rng = np.random.default_rng(5)
    return ["".join(rng.choice(PIECES, rng.integers(0, 30))) for _ in range(100)]


@pytest.mark.slow
def test_fresh_process_with_tensorflow_alone_answers_as_the_model(folder, model, tmp_path):
    texts = ["w1 w2", "w0", "w5 nonsense w7 w1 w1", "<eos>"]
    process = subprocess.run(
        [sys.executable, "-I", "-c", FRESH_PROCESS, folder, json.dumps(texts)],
        cwd=tmp_path, text=True, capture_output=True,
    )
    assert process.returncode == 0, process.stderr
    words, probabilities, log_prob = json.loads(process.stdout)
    for text, found, p in zip(texts, words, probabilities):
        expected = model.next_words(text, top_k=4)
        assert found == [word for word, _ in expected]
        np.testing.assert_allclose(p, [p for _, p in expected], rtol=1e-5)
    np.testing.assert_allclose(log_prob, model.log_prob(texts), rtol=1e-6)


def test_any_text_is_read_as_the_model_reads_it(ask, model):
    """In one batch, with rows of every length; a text without words begins a line."""
    texts = TEXTS + random_texts()
    log_prob = ask("log_prob", text=texts)["log_prob"]
    np.testing.assert_allclose(log_prob, model.log_prob(texts), rtol=1e-5)
    answer = ask("next_words", text=texts, top_k=5)
    for text, words, probabilities in zip(texts, answer["words"], answer["probabilities"]):
        has_words = text.strip(" \t\n\r\f\v") or "\n" in text
        assert_same(words, probabilities, model.next_words(text if has_words else "<eos>", 5))


def test_a_row_is_the_same_alone(ask):
    texts = ["w1", "w2 w3 w4 w5 w6 w7 w8", "", "w2 w3"]
    together = {**ask("log_prob", text=texts), **ask("next_words", text=texts, top_k=30)}
    for row, text in enumerate(texts):
        alone = {**ask("log_prob", text=[text]), **ask("next_words", text=[text], top_k=30)}
        assert (alone["words"] == together["words"][row]).all()
        for name in "log_prob", "probabilities":
            np.testing.assert_allclose(alone[name][0], together[name][row], rtol=1e-5)


def test_more_words_than_there_are(ask, model):
    answer = ask("next_words", text=["w1"], top_k=1000)
    assert_same(answer["words"][0], answer["probabilities"][0], model.next_words("w1", 1000))
    assert answer["words"].shape == (1, len(model.vocabulary))


@pytest.mark.parametrize("top_k", [0, -1])
def test_fewer_than_one_word_are_refused(top_k, ask):
    with pytest.raises(tf.errors.InvalidArgumentError, match="top_k must be at least 1"):
        ask("next_words", text=["w1"], top_k=top_k)


def test_empty_batch(ask):
    assert ask("log_prob", text=[])["log_prob"].shape == (0,)
    answer = ask("next_words", text=[], top_k=3)
    assert answer["words"].shape == answer["probabilities"].shape == (0, 3)


def test_signatures_say_what_they_take_and_give(ask):
    """As `saved_model_cli show` prints it; -1 is any number."""
    def shown(tensors):
        return {
            name: (tf.as_dtype(info.dtype).name, [dim.size for dim in info.tensor_shape.dim])
            for name, info in tensors.items()
        }

    next_words = ({"text": ("string", [-1]), "top_k": ("int32", [])},
                  {"words": ("string", [-1, -1]), "probabilities": ("float32", [-1, -1])})
    assert {name: (shown(signature.inputs), shown(signature.outputs))
            for name, signature in ask.signatures.items()} == {
        "serving_default": next_words,  # for a client that names none
        "next_words": next_words,
        "log_prob": ({"text": ("string", [-1])}, {"log_prob": ("float64", [-1])}),
    }


@pytest.mark.slow
@pytest.mark.parametrize("flag, number_type", [
    ("--use_fp16", "float16"), ("--use_bf16", "bfloat16"),
])
def test_run_of_16_bits_is_served_in_32(flag, number_type, corpus, tmp_path):
    train(models.TinyConfig, corpus, tmp_path, flag)
    found = checkpoint.newest(tmp_path / "some")[0]
    assert found.facts["number_type"] == number_type
    with LanguageModel.load(str(tmp_path / "some")) as model:
        export.write_saved_model(model, tmp_path / "served")
    with serving(tmp_path / "served") as ask:
        answer = ask("next_words", text=["w1 w2"], top_k=5)
    run = read_models(tmp_path / "some")[0]
    expected = LanguageModel(run._replace(number_type="float32")).next_words("w1 w2", 5)
    assert_same(answer["words"][0], answer["probabilities"][0], expected)


@pytest.fixture(scope="module")
def odd(trained):
    """A model with more rows than words, and with words that look like spaces."""
    words = "a\u00a0b \u00a0 \u3000 \x85 \u2028 é 我们 <unk> \"quoted\" a,b 3 # </s> <eos>"
    run = read_models(trained)[0]
    return LanguageModel(run._replace(vocabulary=words.split(" ")))


def test_only_known_words_leave(odd, tmp_path):
    """Of a checkpoint that has more rows than its corpus has words."""
    number = len(odd.vocabulary)
    assert number == 14 < odd.config.vocab_size
    export.write_saved_model(odd, tmp_path / "served")
    with serving(tmp_path / "served") as ask:
        answer = ask("next_words", text=["é"], top_k=100)
        log_prob = ask("log_prob", text=["a\u00a0b \u2028"])["log_prob"]
    assert_same(answer["words"][0], answer["probabilities"][0], odd.next_words("é", 100))
    np.testing.assert_allclose(log_prob, odd.log_prob(["a\u00a0b \u2028"]), rtol=1e-5)
    export.write_vectors(odd, tmp_path / "vectors.txt")
    assert (tmp_path / "vectors.txt").read_bytes().startswith(b"%d 6\n" % number)


def test_vocabulary_without_unk(trained, tmp_path):
    """As a checkpoint of the tutorial may have it: a word outside is an error, padding is none."""
    values = {name: value[..., :4] if "softmax" in name else value[:4] if "emb" in name else value
              for name, value in LanguageModel.load(str(trained)).weights().items()}
    with tf.Graph().as_default(), tf.Session() as session:
        variables = [tf.get_variable(name, initializer=v) for name, v in values.items()]
        session.run(tf.global_variables_initializer())
        tf.train.Saver(variables).save(session, str(tmp_path / "model.ckpt-7"))
    (tmp_path / "train.txt").write_text("c a b \n a b b \n b \n \n")
    model = LanguageModel.load(str(tmp_path), str(tmp_path))
    assert "<unk>" not in model.vocabulary
    export.write_saved_model(model, tmp_path / "served")
    texts = ["a", "b c b a", ""]
    with serving(tmp_path / "served") as ask:
        log_prob = ask("log_prob", text=texts)["log_prob"]
        for name, inputs in ("log_prob", {}), ("next_words", {"top_k": 1}):
            with pytest.raises(tf.errors.InvalidArgumentError, match="a word is not in the vocab"):
                ask(name, text=["a", "x"], **inputs)
    np.testing.assert_allclose(log_prob, model.log_prob(texts), rtol=1e-5)


@pytest.mark.slow
def test_average_is_served(mixture, corpus, tmp_path, capsys):
    """Of models of other sizes, number types and rows; the signatures are those of one model."""
    runs = [str(path) for path in mixture]
    export.main(["saved_model", runs[0], str(tmp_path / "served"), "--data_path", str(corpus),
                 "--average_with", *runs[1:]])
    said = capsys.readouterr().err.splitlines()
    said = said[1:] if " has rows for " in said[0] else said  # That is said once in a process.
    assert said[0] == "The average of 3 models:" and len(said) == 4
    assert len([*(tmp_path / "served" / "variables").iterdir()]) == 2  # the index and one file
    texts = TEXTS + random_texts()
    with LanguageModel.load(mixture, corpus) as model, serving(tmp_path / "served") as ask:
        log_prob = ask("log_prob", text=texts)["log_prob"]
        assert log_prob.dtype == np.float64
        np.testing.assert_allclose(log_prob, model.log_prob(texts), rtol=1e-3)
        answer = ask("next_words", text=texts, top_k=1000)
        assert answer["probabilities"].dtype == np.float32
        for text, words, probabilities in zip(texts, answer["words"], answer["probabilities"]):
            has_words = text.strip(" \t\n\r\f\v") or "\n" in text
            expected = dict(model.next_words(text if has_words else "<eos>", 1000))
            expected = [expected[word.decode()] for word in words]
            np.testing.assert_allclose(probabilities, expected, rtol=1e-2)


def test_average_of_two_is_served_to_rounding(trained, mixture, corpus, tmp_path):
    with LanguageModel.load([trained, mixture[2]], corpus) as model:
        export.write_saved_model(model, tmp_path / "served")
        with serving(tmp_path / "served") as ask:
            answer = ask("next_words", text=["w1 w2", "", "w3"], top_k=5)
            for text, words, p in zip(["w1 w2", "<eos>", "w3"], *map(answer.get, [
                "words", "probabilities",
            ])):
                assert_same(words, p, model.next_words(text, 5))


@pytest.mark.slow
def test_best_epoch_leaves(corpus, tmp_path):
    """Of a run whose learning rate is a hundred times larger in the second epoch."""
    fields = {"max_max_epoch": 2, "lr_decay": 100.0, "max_epoch": 1}
    train(type("SomeConfig", (models.TinyConfig,), fields), corpus, tmp_path)
    for option, best in (("--best",), True), ((), False):
        export.main(["vectors", str(tmp_path / "some"), str(tmp_path / "vectors.txt"), *option])
        with LanguageModel.load(str(tmp_path / "some"), best=best) as model:
            assert f"epoch {1 if best else 2}," in model.description
            found = read_word2vec(tmp_path / "vectors.txt")[1]
            np.testing.assert_array_equal(found, model.vectors())


def read_word2vec(path):
    """Returns (words, vectors) of a file in word2vec's text format, or fails."""
    header, *lines, end = path.read_bytes().split(b"\n")
    assert end == b""
    number, size = map(int, header.decode("ascii").split(" "))
    words, *columns = zip(*(line.decode("utf-8").split(" ") for line in lines))
    assert (len(words), len(columns)) == (number, size)
    return list(words), np.array(columns, dtype=np.float32).T


@pytest.mark.parametrize("matrix", ["softmax_w", "embedding"])
def test_vectors_are_the_models_own(matrix, trained, model, odd, tmp_path):
    """To the last bit of a float32."""
    path = tmp_path / "vectors.txt"
    export.main(["vectors", str(trained), str(path), "--matrix", matrix])
    words, vectors = read_word2vec(path)
    value = tf.train.load_variable(models.last_model(trained), f"Model/{matrix}")
    assert words == model.vocabulary
    np.testing.assert_array_equal(vectors, value.T if matrix == "softmax_w" else value)
    export.write_vectors(odd, path, matrix)
    words, vectors = read_word2vec(path)
    assert words == odd.vocabulary
    np.testing.assert_array_equal(vectors, odd.vectors(matrix))


def test_columns_of_softmax_w_are_the_default(trained, tmp_path):
    for name, *options in ("a", "--matrix", "softmax_w"), ("b",):
        export.main(["vectors", str(trained), str(tmp_path / name), *options])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_gensim_reads_the_vectors(model, odd, tmp_path):
    """The nearest words that it finds are those of LanguageModel."""
    gensim = pytest.importorskip("gensim.models", reason="gensim is not installed")
    for model_, word in (model, "w1"), (odd, "a\u00a0b"), (odd, "\u00a0"):
        export.write_vectors(model_, tmp_path / "vectors.txt")
        vectors = gensim.KeyedVectors.load_word2vec_format(str(tmp_path / "vectors.txt"))
        assert vectors.index_to_key == model_.vocabulary
        np.testing.assert_array_equal(vectors.vectors, model_.vectors())
        found, expected = vectors.most_similar(word, topn=5), model_.similar_words(word, 5)
        assert [name for name, _ in found] == [name for name, _ in expected]
        np.testing.assert_allclose([c for _, c in found], [c for _, c in expected], rtol=1e-4)


def test_projector_has_a_line_for_each_word(odd, tmp_path):
    """None that it would take for empty and leave out."""
    export.write_projector(odd, tmp_path / "projector")
    written = {path.name: path.read_text(encoding="utf-8").split("\n")
               for path in (tmp_path / "projector").iterdir()}
    vectors, metadata = written["vectors.tsv"], written["metadata.tsv"]
    assert vectors.pop() == metadata.pop() == ""
    numbers = np.array([line.split("\t") for line in vectors], dtype=np.float32)
    np.testing.assert_array_equal(numbers, odd.vectors())
    assert len(metadata) == len(odd.vocabulary) and all(line.strip() for line in metadata)
    shown = {"\u00a0": r"'\xa0'", "\u3000": r"'\u3000'", "\x85": r"'\x85'", "\u2028": r"'\u2028'"}
    assert metadata == [shown.get(word, word) for word in odd.vocabulary]
    config, = filter(None, written["projector_config.pbtxt"])
    assert '"vectors.tsv"' in config and '"metadata.tsv"' in config


def test_what_was_written_is_said(trained, tmp_path, capsys):
    served, vectors, projector = (tmp_path / name for name in ("a/b/1", "v", "p"))
    export.main(["saved_model", str(trained), str(served)])
    export.main(["vectors", str(trained), str(vectors), "--projector", str(projector)])
    assert capsys.readouterr().out.splitlines() == [
        f"SavedModel in {served}", f"Files for TensorBoard's projector in {projector}",
        f"Word vectors in {vectors}",
    ]
    assert (served / "saved_model.pb").is_file() and vectors.is_file() and projector.is_dir()


@pytest.mark.parametrize("args, message", [
    (["saved_model", "{nothing}", "{new}"], "nothing: no trained model there"),
    (["saved_model", "{trained}", "{full}"], "full is not empty; name another folder"),
    (["saved_model", "{trained}", "{file}"], "cannot write {file}: Not a directory"),
    (["saved_model", "{trained}", "{here}"], "{here} is the current folder; name a new one"),
    (["vectors", "{trained}", "--projector", "{here}"], "{here} is the current folder; name a new"),
    (["vectors", "{nothing}", "--projector", "{full}"], "full is not empty; name another folder"),
    (["saved_model", "{trained}", "{file}/1"], "cannot write {file}/1: "),
    (["saved_model", "{trained}", "{new}[1]/1"], "new[1]/1: TensorFlow takes this for a pattern"),
    (["saved_model", "{trained}", "gs://bucket/1"], "gs://bucket/1 is an address"),
    (["saved_model", "{trained}", "{new}", "--data_path", "x"], "has its own vocabulary"),
    (["saved_model", "{trained}"], "required: folder; --help shows the use"),
    (["vectors", "{nothing}", "{new}"], "nothing: no trained model there"),
    (["vectors", "{trained}", "{full}"], "cannot write {full}: Is a directory"),
    (["vectors", "{trained}", "{new}/v"], "cannot write {new}/v: No such file or directory"),
    (["vectors", "{trained}", "/dev/full"], "cannot write /dev/full: No space left on device"),
    (["vectors", "{trained}", "{new}", "--matrix", "kernel"], "invalid choice: 'kernel'"),
    (["vectors", "{trained}", "{new}", "--projector", "{full}"], "full is not empty; name"),
    (["vectors", "{trained}", "{full}", "--projector", "{new}"], "cannot write {full}: Is a dir"),
    (["vectors", "{trained}", "{new}", "--projector", "{new}"], "in the projector's folder"),
    (["vectors", "{trained}", "{new}/v", "--projector", "{new}"], "in the projector's folder"),
    (["vectors", "{nothing}", "{new}.txt.bz2"], "new.txt.bz2: vectors are not written as .bz2"),
    (["vectors", "{nothing}", "{new}/v"], "cannot write {new}/v: No such file or directory"),
    (["vectors", "{trained}", "--projector", "-"], "- is stdout, which takes no folder"),
    (["saved_model", "{trained}", "-"], "- is stdout, which takes no folder"),
    (["vectors", "{trained}", "{new}", "--average_with", "{trained}"], "asked of one model; leave"),
    (["saved_model", "{trained}", "{new}", "--average_with"], "expected at least one argument"),
    (["saved_model", "{trained}", "--average_with", "{trained}", "{new}"], "required: folder (--"),
    (["saved_model", "{trained}", "{new}", "--average_with", "{nothing}"], "nothing: no trained m"),
    (["vectors", "{trained}"], "nowhere to write to: name a file, or a folder with --projector"),
    (["weights", "{trained}"], "invalid choice: 'weights'"),
    ([], "required: command"),
])
def test_mistakes_get_one_line(args, message, trained, tmp_path, capsys, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("somebody's")
    names = {name: tmp_path / name for name in ("nothing", "full", "new", "here")}
    names |= {"file": tmp_path / "full" / "file", "trained": trained}
    with pytest.raises(SystemExit) as status:
        export.main([arg.format(**names) for arg in args])
    assert status.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    line = captured.err.splitlines()[-1]
    assert line.startswith("export.py: ")
    assert message.format(**names) in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "here"]
    assert (tmp_path / "full" / "file").read_text() == "somebody's"
    assert (tmp_path / "here").samefile(".")


def test_vectors_that_are_compressed(model, tmp_path):
    export.write_vectors(model, tmp_path / "v.txt")
    export.write_vectors(model, tmp_path / "v.txt.GZ")
    with gzip.open(tmp_path / "v.txt.GZ") as file:
        assert file.read() == (tmp_path / "v.txt").read_bytes()


@pytest.mark.parametrize("path", ["-", "/dev/stdout"])
def test_vectors_on_stdout(path, trained, model, tmp_path, capsysbinary):
    """Nothing else is there."""
    export.write_vectors(model, tmp_path / "v.txt")
    export.main(["vectors", str(trained), path, "--projector", str(tmp_path / "projector")])
    out, err = capsysbinary.readouterr()
    assert out == (tmp_path / "v.txt").read_bytes()
    assert err.decode().splitlines()[1:] == [
        f"Files for TensorBoard's projector in {tmp_path}/projector", f"Word vectors in {path}"
    ]


def test_unknown_matrix(model, tmp_path):
    for write in export.write_vectors, export.write_projector:
        with pytest.raises(UserError, match="matrix is kernel; it must be softmax_w or embedding"):
            write(model, tmp_path / "there", "kernel")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("write", [export.write_saved_model, export.write_projector])
def test_full_disk_leaves_nothing_of_a_folder(write, model, tmp_path, monkeypatch):
    """Whether TensorFlow or Python notices it."""
    def fail(*_, **__):
        reason = f"Graph execution error:\n\n{tmp_path}; No space left on device\n[[node save]]"
        raise tf.errors.ResourceExhaustedError(None, None, reason)

    monkeypatch.setattr(tf.saved_model.Builder, "save", fail)
    monkeypatch.setattr(files, "os", System(fsync=failing(errno.ENOSPC)))
    with pytest.raises(UserError, match=f"cannot write {tmp_path}/there: No space left on device$"):
        write(model, tmp_path / "there")
    assert not [*tmp_path.iterdir()]


def test_full_disk_leaves_the_earlier_file(model, tmp_path, monkeypatch):
    (tmp_path / "vectors.txt").write_text("earlier")
    monkeypatch.setattr(files, "os", System(fsync=failing(errno.ENOSPC)))
    with pytest.raises(UserError, match="cannot write .*vectors.txt: No space left on device"):
        export.write_vectors(model, tmp_path / "vectors.txt")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["earlier"]


def test_numbers_that_are_not_finite_stay(trained, corpus, tmp_path, capsys):
    """Of a training that diverged."""
    values = models.saved(models.last_model(trained))
    values["Model/softmax_w"][:] = np.nan
    models.save(tmp_path / "diverged" / "model.ckpt-1", values)
    there = str(tmp_path / "there")
    for command in ["saved_model", there], ["vectors", there], ["vectors", "--projector", there]:
        with pytest.raises(SystemExit) as status:
            export.main([
                command[0], str(tmp_path / "diverged"), *command[1:], "--data_path", str(corpus)
            ])
        assert status.value.code == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert "diverged/model.ckpt-1 has weights that are not finite: its training" in line
    assert [path.name for path in tmp_path.iterdir()] == ["diverged"]
