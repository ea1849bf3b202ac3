"""IFEval (Zhou et al. 2023, arXiv:2311.07911): instructions whose keeping a program can verify."""

from ift_jax.errors import UserError, counted
from ift_jax.evaluation.benchmarks.base import Benchmark, Item, Ratio, Scores
from ift_jax.evaluation.benchmarks.data_files import DataFiles, Row, rows_of
from ift_jax.evaluation.benchmarks.instruction_checks.instructions import (
    arguments_of,
    followed,
    followed_loosely,
    instruction_error,
)

_FILES = (
    "ifeval/input_data.jsonl",
    "ifeval/ifeval_input_data.jsonl",
    "instruction_following_eval/data/input_data.jsonl",
    "ifeval/train-*.parquet",
    "ifeval/data/train-*.parquet",
)


class IfEval(Benchmark):
    """Generates a response, and checks each instruction, strictly and loosely.

    The metrics are the release's four: over prompts (all instructions of one are followed), and
    over instructions.
    """

    name = "ifeval"
    source = (
        "github.com/google-research/google-research (instruction_following_eval/data) or the "
        "Hugging Face data set google/IFEval"
    )
    max_new_tokens = 1280
    packages = ("langdetect", "nltk")
    extra = "ifeval"

    def items(self, files: DataFiles, shots: int, *, chat: bool) -> list[Item]:
        if shots:
            raise UserError("--few-shot: ifeval has no solved examples")
        paths = files.find("ifeval: the prompts", _FILES, self.source)
        return [_item(row) for row in rows_of(paths)]

    def score(self, item: Item, answer: str) -> Scores:
        names, kwargs = item.target["instructions"], item.target["kwargs"]
        strict = followed(answer, names, kwargs)
        loose = followed_loosely(answer, names, kwargs)
        return {
            "prompt_level_strict": float(all(strict)),
            "inst_level_strict": Ratio(sum(strict), len(strict)),
            "prompt_level_loose": float(all(loose)),
            "inst_level_loose": Ratio(sum(loose), len(loose)),
        }


def _item(row: Row) -> Item:
    instructions = row.texts("instruction_id_list")
    kwargs = arguments_of(row.fields.get("kwargs"), len(instructions))
    if kwargs is None:
        raise UserError(
            f"{row.place}: field 'kwargs': expected {counted(len(instructions), 'object')}"
        )
    for instruction, arguments in zip(instructions, kwargs, strict=True):
        if error := instruction_error(instruction, arguments):
            raise UserError(f"{row.place}: {error}")
    target = {"instructions": instructions, "kwargs": kwargs}
    return Item(str(row.number("key")), row.text("prompt"), target=target)
