"""The Tulu mixtures: published counts, shares of sources, unknown sources, the comparison."""

import pytest
import seqio

from ift_jax.errors import UserError
from tasks import tulu
from tests.sources.dataset_files import messages, records, write

pytestmark = pytest.mark.usefixtures("own_registry")
FILES = {"tulu2": "tulu-v2-sft-mixture", "tulu3": "tulu-3-sft-mixture"}


def _rows(release, scale):
    """Return published / scale rows of every source, at least 120, with interleaved sources."""
    column = tulu.RELEASES[release].column
    rows = []
    for name, (values, count) in tulu.RELEASES[release].sources.items():
        for i in range(max(count // scale, 120)):
            turns = [
                {"role": "user", "content": f"{name} {i}"},
                {"role": "assistant", "content": "yes"},
            ]
            rows.append({"id": f"{name}_{i}", "messages": turns, column: values[i % len(values)]})
    return sorted(rows, key=lambda row: row["id"][::-1])


def test_published_counts():
    assert sum(count for _, count in tulu.TULU3.values()) == tulu.TULU3_RELEASED == 939_343
    on_the_card = {k: v for k, v in tulu.TULU3.items() if k != "open_math_gsm8k"}
    # The card lists one more row of OASST1 than the release, and leaves out 50,000 rows.
    assert sum(count for _, count in on_the_card.values()) + 1 == 889_344
    assert sum(count for _, count in tulu.TULU2.values()) == 330_414
    assert 2 * tulu.TULU2_RELEASED // 32 == 20_384  # Microsteps in the checkpoint's name.
    assert (len(tulu.TULU2), len(tulu.TULU3)) == (11, 19)
    values = [value for source in tulu.TULU3.values() for value in source.values]
    assert len(set(values)) == 19


@pytest.mark.parametrize("release", ["tulu2", "tulu3"])
def test_a_mixture_is_every_row_once_by_source(tmp_path, release):
    rows = _rows(release, 5000)
    half = len(rows) // 2
    write(tmp_path / FILES[release] / "train-00000-of-00002.parquet", rows[:half])
    write(tmp_path / FILES[release] / "train-00001-of-00002.parquet", rows[half:])
    tulu.register(str(tmp_path))
    mixture = seqio.MixtureRegistry.get(f"{release}_sft")
    sources = tulu.RELEASES[release].sources
    assert {task.name for task in mixture.tasks} == {f"{release}_{name}" for name in sources}
    texts = []
    for name in sources:
        task = f"{release}_{name}"
        found = records(task, "all")
        texts += [messages(record)[0][1] for record in found]
        assert all(messages(record)[0][1].startswith(f"{name} ") for record in found)
        kept_out = records(task, "validation")
        assert 1 <= len(kept_out) and len(kept_out) + len(records(task, "train")) == len(found)
    assert sorted(texts) == sorted(row["messages"][0]["content"] for row in rows)
    total = sum(mixture.get_rate(task) for task in mixture.tasks)
    assert total == sum(len(records(task.name, "train")) for task in mixture.tasks)


def test_golden_record(tmp_path):
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
    ]
    write(tmp_path / "train.jsonl", [{"id": "1", "dataset": "open_orca", "messages": turns}])
    tulu.register(str(tmp_path / "train.jsonl"))
    [record] = records("tulu2_open_orca", "all")
    assert record == {
        "messages": '[{"role": "system", "content": "Be short."}, {"role": "user", "content": '
        '"Hi"}, {"role": "assistant", "content": "Hello!"}]'
    }


def test_a_source_that_is_not_listed_is_an_error_and_shown(tmp_path, capsys):
    rows = _rows("tulu3", 10_000)
    rows[7]["source"] = "somebody/else"
    write(tmp_path / "tulu-3-sft-mixture" / "train-0.parquet", rows)
    tulu.register(str(tmp_path))
    with pytest.raises(UserError, match="row 7: source is 'somebody/else', none of the 19"):
        records("tulu3_aya", "all")
    tulu.main([str(tmp_path)])
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split() == ["coconot", "10,983", "120", "differs"]
    assert printed[-2].split() == ["somebody/else", "(not", "listed)", "0", "1", "differs"]
    assert printed[-1].split() == ["all", "939,343", f"{len(rows):,}", "differs"]


def test_what_is_not_there_is_named(capsys):
    assert tulu.main(["/nowhere"]) == 2
    assert capsys.readouterr().err.startswith("error: allenai/tulu-3-sft-mixture: the split")
    tulu.register("")
    with pytest.raises(UserError) as error:
        records("tulu3_aya", "train")
    assert str(error.value).startswith(
        "allenai/tulu-3-sft-mixture: the split 'train' is not on this machine; put train.parquet "
        "or train.jsonl into <data.root>/tulu-3-sft-mixture"
    )


def test_the_preferences_are_pairs_with_what_follows_the_shared_prompt_trained(tmp_path):
    prompt = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    answers = {"chosen": "good", "rejected": "bad"}
    sides = {
        side: [*prompt, {"role": "assistant", "content": text}] for side, text in answers.items()
    }
    row = {"id": "1", "source": "s", "prompt": "a", **sides, "chosen_rating": 5.0}
    folder = tmp_path / "llama-3.1-tulu-3-8b-preference-mixture"
    write(folder / "train-00000-of-00001.parquet", [row] * 3)
    tulu.register(str(tmp_path))
    task = seqio.TaskRegistry.get("tulu3_preferences_8b")
    record, *_ = task.source.parsed("all", task.name)
    assert [m.content for m in record.messages] == ["a", "b", "c", "good"]
    assert [m.content for m in record.rejected] == ["a", "b", "c", "bad"]
    assert [m.weight for m in record.messages] == [None, 0.0, None, None]
