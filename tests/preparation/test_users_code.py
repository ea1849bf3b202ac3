"""What a user's own source, preprocessor, module or rate raises is one line with its name."""

import sys
import textwrap

import pytest
import seqio.test_utils

from ift_jax.config.schema import FormatConfig, TokenizerConfig
from ift_jax.errors import UserError
from ift_jax.preparation import seqio_registry
from ift_jax.preparation.prepare import prepare
from tests.preparation.runs import changed, quiet

pytestmark = pytest.mark.usefixtures("own_registry")

# Each raises on a line that ends in "# here".
MODULE = """
    import seqio
    import tensorflow as tf
    from ift_jax.sources.base import PythonDataSource
    from ift_jax.sources.features import TEXT_FEATURES

    ROWS = {"inputs": ["a", "b"], "targets": ["c", "d"]}

    def rows(split, shuffle_files):
        return tf.data.Dataset.from_tensor_slices(ROWS)

    def failing_rows(split, shuffle_files):
        raise OSError("disk gone")  # here

    def generated(split, shuffle_files):
        def generate():
            yield {"inputs": "a", "targets": "b"}
            yield {"inputs": "a", "targets": str(1 // 0)}  # here
        spec = {name: tf.TensorSpec((), tf.string) for name in ROWS}
        return tf.data.Dataset.from_generator(generate, output_signature=spec)

    def failing_dataset(dataset):
        raise ZeroDivisionError("in the preprocessor")  # here

    @seqio.map_over_dataset
    def failing_trace(example):
        return example | {"inputs": example["nothing"]}  # here

    def look_up(text):
        raise LookupError("no such word")  # here

    @seqio.map_over_dataset
    def failing_graph(example):
        python = look_up
        text = tf.py_function(python, [example["inputs"]], tf.string)
        return example | {"inputs": tf.ensure_shape(text, ())}

    class Own(PythonDataSource):
        fields = ("inputs", "targets")

        def items(self, split):
            return [1, 2]

        def render(self, item, split, index, seed):
            return {"inputs": "a", "targets": str(1 // (item - 2))}  # here

        def files(self, split):
            return []

    class Splitless(seqio.FunctionDataSource):
        @property
        def splits(self):
            raise RuntimeError("no catalog")  # here

    def function(fn):
        return seqio.FunctionDataSource(fn, splits=["train"])

    def never(task):
        raise RuntimeError("no rate")  # here

    def add(name, source, *preprocessors, **kwargs):
        seqio.TaskRegistry.add(
            name, source, preprocessors=preprocessors, output_features=TEXT_FEATURES, **kwargs
        )

    def register(root):
        add("failing_source", function(failing_rows))
        add("failing_generator", function(generated))
        add("failing_dataset", function(rows), failing_dataset)
        add("failing_trace", function(rows), failing_trace)
        add("failing_graph", function(rows), failing_graph)
        add("failing_render", Own(["train"]))
        add("failing_splits", Splitless(rows, splits=["train"]))
        add("fine", function(rows))
        seqio.MixtureRegistry.add("failing_rate", [("fine", never)])
"""


@pytest.fixture
def run(config, tmp_path, monkeypatch):
    """A run on the tasks of that module, whose tokenizer exists."""
    path = tmp_path / "modules" / "their_tasks.py"
    path.write_text(textwrap.dedent(MODULE))
    monkeypatch.delitem(sys.modules, "their_tasks", raising=False)
    tokenizer = TokenizerConfig(seqio.test_utils.sentencepiece_vocab().sentencepiece_model_file)
    return changed(
        config,
        data__modules=("their_tasks",),
        tokenizer=tokenizer,
        format=FormatConfig(template="plain"),
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("failing_source", "OSError: disk gone"),
        ("failing_generator", "ZeroDivisionError: integer division or modulo by zero"),
        ("failing_dataset", "ZeroDivisionError: in the preprocessor"),
        ("failing_trace", "KeyError: 'nothing'"),
        ("failing_graph", "LookupError: no such word"),
        ("failing_render", "ZeroDivisionError: integer division or modulo by zero"),
        ("failing_splits", "RuntimeError: no catalog"),
        ("failing_rate", "RuntimeError: no rate"),
    ],
)
def test_an_exception_is_one_line_with_the_task_and_the_line_of_code(run, name, said):
    with pytest.raises(UserError) as error:
        prepare(changed(run, data__mixture=name), log=quiet)
    message = str(error.value)
    assert message.startswith(("task", "mixture")) and repr(name) in message
    assert said in message and "\n" not in message
    assert message.endswith("; --debug shows the traceback")
    lines = MODULE.splitlines()
    number = int(message.partition("their_tasks.py:")[2].partition(")")[0])
    assert lines[number - 1].endswith("# here") or lines[number].endswith("# here"), message
    (note,) = error.value.__notes__
    assert note.startswith("Traceback") and said.partition(":")[0] in note


@pytest.mark.slow
def test_an_exception_in_a_worker_process_is_the_same_line(run):
    two = changed(run, data__mixture="failing_generator", data__variants=2, data__processes=2)
    with pytest.raises(UserError) as error:
        prepare(two, log=quiet)
    said = "task 'failing_generator', split 'train', source Function"
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(:\n", "SyntaxError: "),
        ("import this_is_not_there\n", "cannot be imported (it imports 'this_is_not_there')"),
        ("x = {}['key']\n", "KeyError: 'key' ("),
        ("raise SystemExit(3)\n", "SystemExit: 3 ("),
        ("def register(root):\n    raise ValueError('two\\nlines')\n", "ValueError: two lines ("),
        (
            "import seqio\ndef register(root):\n    seqio.MixtureRegistry.add('m', [('no', 1)])\n",
            "ValueError: ",
        ),
    ],
)
def test_a_module_that_fails_is_named(config, tmp_path, monkeypatch, text, said):
    (tmp_path / "modules" / "failing_module.py").write_text(text)
    monkeypatch.delitem(sys.modules, "failing_module", raising=False)
    with pytest.raises(UserError) as error:
        seqio_registry.import_modules(("failing_module",), "")
    message = str(error.value)
    assert message.startswith("data.modules: module 'failing_module'")
    assert said in message and "\n" not in message


def test_an_empty_name_of_a_module_is_a_mistake():
    with pytest.raises(UserError, match="data.modules: module ''"):
        seqio_registry.import_modules(("",), "")
