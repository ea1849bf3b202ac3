"""Conversations: scripted ones in this process, and one through a pipe."""

import io
import subprocess
import sys

import pytest

from ift_jax.decoding import Options, Sampling
from ift_jax.evaluation.chat import Chat, converse, token_limits
from ift_jax.text.records import Message
from tests import small_models
from tests.training import runs

OPTIONS = Options(10, Sampling(0.9, 50), seed=5)


@pytest.fixture(autouse=True)
def one_program(monkeypatch):
    small_models.compile_one_program(monkeypatch)


def hold(lines, options=OPTIONS, write=None, system="", **fields):
    """Holds a conversation; returns the chat, what was written and the notes."""
    text_generator, generator = small_models.open_random_model(**fields)
    out, notes, script = io.StringIO(), [], iter(lines)
    chat = Chat(text_generator, generator, options, system=system, note=notes.append)

    def read():
        line = next(script, None)
        if line is None:
            raise EOFError
        if isinstance(line, BaseException):
            raise line
        return line

    converse(chat, read, write or out.write, notes.append)
    return chat, out.getvalue(), notes


def expected_answer(turns, index, options=OPTIONS):
    """The answer to these turns from one call of `generate`."""
    text_generator, generator = small_models.open_random_model()
    prompt = text_generator.formatter.prompt(turns).tolist()
    [ids] = generator.generate([prompt], options, first_index=index)
    return text_generator.text(ids)


def test_turns_follow_one_another():
    chat, out, notes = hold(
        [
            "Anna counts",
            "",
            "/help",
            KeyboardInterrupt(),
            "sorts systems",
            "/nothing x",
            "/quit",
            "x",
        ]
    )
    first = expected_answer([Message("user", "Anna counts")], 0)
    turns = [Message("user", "Anna counts"), Message("assistant", first)]
    turns.append(Message("user", "sorts systems"))
    second = expected_answer(turns, 1)
    assert first and second and first != second
    assert out == f"{first}\n{second}\n"
    assert chat.turns == [*turns, Message("assistant", second)]
    assert "/reset" in notes[0] and "/quit" in notes[1] and "/nothing: no such" in notes[2]


def test_a_turn_reads_only_what_is_new():
    chat, _, _ = hold(["apples", "files", "one"])
    text_generator, _ = small_models.open_random_model()
    before, now = (len(text_generator.formatter.prompt(chat.turns[:n])) for n in (3, 5))
    assert chat._text.n_read <= now - before < before


def test_system_and_reset():
    chat, out, _ = hold(["/system Be brief.", "apples", "/reset", "apples", "/system", "apples"])
    turns = [Message("system", "Be brief."), Message("user", "apples")]
    first = expected_answer(turns, 0)
    again = [Message("user", "apples"), Message("assistant", first), Message("user", "apples")]
    assert out == f"{first}\n{first}\n{expected_answer(again, 1)}\n"
    assert chat.system == ""
    assert hold(["apples"], system="Be brief.")[1] == f"{first}\n"


def test_an_answer_is_stopped_and_the_chat_continues():
    pieces = []

    def write(piece):
        pieces.append(piece)
        if piece.strip() and len([p for p in pieces if p.strip()]) == 2:
            raise KeyboardInterrupt

    chat, _, _ = hold(["apples", "files"], write=write)
    shown = "".join(pieces[: pieces.index("\n")])
    assert chat.turns[1] == Message("assistant", shown)
    assert expected_answer(chat.turns[:1], 0).startswith(shown)
    assert len(chat.turns) == 4 and "".join(pieces).endswith(chat.turns[3].content + "\n")


def test_turns_that_no_longer_fit_are_forgotten_with_a_note():
    text = "Nobody has lost systems"
    chat, _, notes = hold([text] * 4 + ["x" * 200, "one"])
    forgotten = [note for note in notes if "forgotten" in note]
    assert forgotten and all(note.startswith("(more than 118 tokens") for note in forgotten)
    assert "error: expected a text of at most 118 tokens, with its system message" in notes
    assert len(chat.turns) < 10 and chat.turns[-2].content == "one"
    assert [turn.role for turn in chat.turns] == ["user", "assistant"] * (len(chat.turns) // 2)
    text_generator, _ = small_models.open_random_model()
    assert len(text_generator.formatter.prompt(chat.turns[:-1])) <= 118


def test_a_byte_order_mark_is_no_text_and_bytes_that_are_no_text_are_a_note():
    chat, out, notes = hold(["\ufeffapples", "\udcff", "/system \udcff", "files", "/system"])
    assert chat.turns[0].content == "apples" and len(chat.turns) == 2
    assert [note[:36] for note in notes] == ["error: expected UTF-8 in the user's t"[:36]] + [
        "error: expected UTF-8 in the system's"[:36]
    ]
    assert out == f"{expected_answer([Message('user', 'apples')], 0)}\n"


def test_token_limits():
    assert token_limits(small_models.open_random_model()[0]) == (128, 127)
    assert token_limits(small_models.open_random_model(max_length=0)[0]) == (64, 63)


@pytest.mark.slow
def test_a_chat_through_a_pipe(tmp_path):
    workdir = small_models.write_workdir(tmp_path)
    flags = "--max-new-tokens 10 --temperature 0.9 --top-k 50 --seed 5".split()
    flags += ["--system", "Be brief.", "--workdir", workdir]
    result = subprocess.run(
        [sys.executable, "-m", "ift_jax.commands.main", "chat", *flags],
        input="apples\n/help\n\nfiles",
        capture_output=True,
        text=True,
        cwd=runs.REPO,
        timeout=200,
    )
    assert result.returncode == 0, result.stderr
    chat, out, _ = hold(["apples", "files"], system="Be brief.")
    assert result.stdout == out and len(out.splitlines()) >= 2
    assert "/reset" in result.stderr and "WARNING" not in result.stderr
