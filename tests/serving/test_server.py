"""The server over real HTTP: right answers for everybody at once, whatever some clients do."""

import asyncio
import json
import os
import signal
import socket
import threading

import pytest

from ift_jax.commands.main import main
from ift_jax.decoding import Options, Request
from ift_jax.text.rows.parse_record import parse_record
from tests import small_models
from tests.serving import served
from tests.serving.served import wait_until
from tests.training.runs import free_port

httpx = pytest.importorskip("httpx", reason="the server is asked with it")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("starlette", reason="the extra serve is not installed")

HELLO = [{"role": "user", "content": "Anna counts"}]
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
GREEDY = {"temperature": 0, "max_tokens": 8}


@pytest.fixture(scope="module")
def few_programs():
    with pytest.MonkeyPatch.context() as monkeypatch:
        served.compile_few_programs(monkeypatch)
        yield


@pytest.fixture(scope="module")
def model(few_programs):
    return served.open_model()


@pytest.fixture(scope="module")
def running(model):
    with served.no_complaints(), served.serving(model) as (_, queue, client):
        yield queue, client
        wait_until(lambda: queue.n_waiting == queue.n_running == 0)


@pytest.fixture
def client(running):
    return running[1]


def answered(client, path, **body):
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def only_choice(client, path, **body):
    [choice] = answered(client, path, **body)["choices"]
    return choice


def events(client, path, **body):
    """The events of a stream, the last of which is [DONE]."""
    with client.stream("POST", path, json={**body, "stream": True}) as response:
        assert response.status_code == 200, response.read()
        lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


# --- Answers -----------------------------------------------------------------------------------


def test_the_models_are_listed_and_the_server_is_healthy(client):
    [only] = client.get("/v1/models").json()["data"]
    assert (only["id"], only["object"], only["max_model_len"]) == ("tiny", "model", 128)
    assert client.get("/v1/models/tiny").json() == only
    assert client.get("/v1/models/other").json()["error"]["code"] == "model_not_found"
    assert client.get("/health").json() == {"status": "ok", "waiting": 0, "running": 0}


def test_a_chat_answers_as_ift_generate_does(client, model):
    formatter = model.text_generator.formatter
    record = parse_record({"inputs": "Anna counts"}, "prompt", prompt_only=True)
    ids = formatter.prompt(record).tolist()
    [output] = model.generator.complete([Request(ids, Options(8))])
    want = output.completions[0]
    answer = answered(client, CHAT, messages=HELLO, n=2, **GREEDY)
    assert [choice["message"]["content"] for choice in answer["choices"]] == [want.text.strip()] * 2
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["usage"] == {
        "prompt_tokens": len(ids),
        "completion_tokens": 2 * len(want.ids),
        "total_tokens": len(ids) + 2 * len(want.ids),
    }


def test_echoed_log_probabilities_are_the_models_own(client, model):
    prompts = [[5, 30, 7, 100, 41], [9, 8, 300]]
    answer = answered(
        client, COMPLETIONS, prompt=prompts, echo=True, logprobs=2, temperature=0, max_tokens=1
    )
    requests = [Request(ids, Options(1, logprobs=2, prompt_logprobs=2)) for ids in prompts]
    outputs = model.generator.complete(requests)
    for choice, ids, output in zip(answer["choices"], prompts, outputs, strict=True):
        [completion] = output.completions
        places = [*output.prompt_logprobs, *completion.logprobs]
        found = choice["logprobs"]
        assert found["token_logprobs"][0] is found["top_logprobs"][0] is None
        for logprob, top, place in zip(
            found["token_logprobs"][1:], found["top_logprobs"][1:], places[1:], strict=True
        ):
            assert logprob == pytest.approx(place.logprob, abs=1e-5)
            assert logprob in top.values()
            # What lm-evaluation-harness takes for "the greedy choice".
            assert (logprob == max(top.values())) == (place.id == place.top[0][0])
        assert found["tokens"] == [model.token_text(token) for token in [*ids, *completion.ids]]
        assert choice["text"] == model.text(ids) + completion.text
    scoring = {"echo": True, "logprobs": 2, "max_tokens": 0}
    scored = only_choice(client, COMPLETIONS, prompt=prompts[0], **scoring)
    whole = answer["choices"][0]["logprobs"]["token_logprobs"]
    assert scored["logprobs"]["token_logprobs"][1:] == pytest.approx(whole[1:-1], abs=1e-5)
    assert scored["finish_reason"] == "length"


def test_text_offsets_are_where_tokens_begin(client):
    ask = {"prompt": "Anna counts 23", "echo": True, "logprobs": 0, **GREEDY}
    choice = only_choice(client, COMPLETIONS, **ask)
    found = choice["logprobs"]
    beside = zip(found["tokens"], found["text_offset"], strict=True)
    whole = [(token, at) for token, at in beside if "\ufffd" not in token]
    assert whole and all(choice["text"][at:].startswith(token) for token, at in whole[:4])
    assert all(len(top) == 1 for top in found["top_logprobs"][1:])


def test_a_seed_gives_the_same_answers_and_its_absence_others(client):
    ask = {"prompt": "Anna", "max_tokens": 12, "n": 2}
    first, again, other = (
        [choice["text"] for choice in answered(client, COMPLETIONS, **ask, seed=seed)["choices"]]
        for seed in (5, 5, 6)
    )
    assert first == again != other and first[0] != first[1]
    free = [answered(client, COMPLETIONS, **ask)["choices"][0]["text"] for _ in range(2)]
    assert free[0] != free[1]


def test_a_stop_string_ends_an_answer_before_it(client):
    ask = {"prompt": "Anna", "seed": 1, "max_tokens": 24}
    free = only_choice(client, COMPLETIONS, **ask)
    stop = free["text"][4:6]
    stopped = only_choice(client, COMPLETIONS, **ask, stop=stop)
    assert stopped["text"] == free["text"].partition(stop)[0]
    assert (free["finish_reason"], stopped["finish_reason"]) == ("length", "stop")
    streamed = events(client, COMPLETIONS, **ask, stop=stop)
    assert "".join(event["choices"][0]["text"] for event in streamed) == stopped["text"]


def joined_chat(streamed):
    """The answers that the events of a chat give together."""
    answers = {}
    for event in streamed:
        assert event["object"] == "chat.completion.chunk"
        for choice in event["choices"]:
            whole = answers.setdefault(choice["index"], {"content": "", "logprobs": []})
            whole["content"] += choice["delta"].get("content", "")
            whole["logprobs"] += choice["logprobs"]["content"]
            whole["role"] = choice["delta"].get("role", whole.get("role"))
            whole["finish_reason"] = choice["finish_reason"]
    return answers


def test_a_stream_is_the_answer_in_parts(client):
    ask = {"messages": HELLO, "n": 2, "max_tokens": 30, "seed": 3, "logprobs": True}
    ask["top_logprobs"] = 3
    whole = answered(client, CHAT, **ask)
    *streamed, usage = events(client, CHAT, **ask, stream_options={"include_usage": True})
    assert len(streamed) > 4 and usage["choices"] == [] and usage["usage"] == whole["usage"]
    for index, got in joined_chat(streamed).items():
        want = whole["choices"][index]
        assert got["content"] == want["message"]["content"] and got["role"] == "assistant"
        assert got["finish_reason"] == want["finish_reason"]
        assert same_places(got["logprobs"], want["logprobs"]["content"])

    ask = {"prompt": ["Anna counts", "So it is"], "echo": True, "logprobs": 2, "seed": 4}
    whole = answered(client, COMPLETIONS, **ask)["choices"]
    texts = ["", ""]
    logprobs = [{key: [] for key in choice["logprobs"]} for choice in whole]
    for event in events(client, COMPLETIONS, **ask):
        for choice in event["choices"]:
            texts[choice["index"]] += choice["text"]
            for key, values in choice["logprobs"].items():
                logprobs[choice["index"]][key] += values
    for text, found, want in zip(texts, logprobs, whole, strict=True):
        assert text == want["text"]
        assert found["tokens"] == want["logprobs"]["tokens"]
        assert found["text_offset"] == want["logprobs"]["text_offset"]


def same_places(got, want):
    """Whether places have the same tokens, with log-probabilities to float32's rounding."""
    logprobs = [[place["logprob"] for place in places] for places in (got, want)]
    tokens = [[(place["token"], place["bytes"]) for place in places] for places in (got, want)]
    return tokens[0] == tokens[1] and logprobs[0] == pytest.approx(logprobs[1], abs=1e-4)


# --- Many clients ------------------------------------------------------------------------------

MIXED = [
    (COMPLETIONS, {"prompt": "Anna counts", **GREEDY}),
    (COMPLETIONS, {"prompt": "The user", "seed": 1, "max_tokens": 20}),
    (COMPLETIONS, {"prompt": "Nobody sorts", "seed": 2, "max_tokens": 30, "stop": ["e", "a"]}),
    (
        COMPLETIONS,
        {"prompt": [5, 6, 200], "echo": True, "logprobs": 2, "max_tokens": 1, "seed": 3},
    ),
    (COMPLETIONS, {"prompt": ["So", "it is"], "n": 2, "seed": 4}),
    (CHAT, {"messages": HELLO, "seed": 5, "max_tokens": 20}),
    (CHAT, {"messages": [{"role": "user", "content": "apples"}], **GREEDY}),
    (CHAT, {"messages": HELLO, "seed": 6, "max_tokens": 25, "stream": True}),
    (COMPLETIONS, {"prompt": "x", "max_tokens": 1000}),
    (COMPLETIONS, {"prompt": "x", "unheard_of": 1}),
]


def without_identity(content):
    """A response without its number and time, log-probabilities rounded."""

    def cleaned(value):
        if isinstance(value, float):
            return round(value, 3)
        if isinstance(value, list):
            return [cleaned(item) for item in value]
        if isinstance(value, dict):
            return {k: cleaned(v) for k, v in value.items() if k not in ("id", "created")}
        return value

    if content.startswith(b"data: "):
        lines = [line[6:] for line in content.decode().split("\n\n") if line]
        parts = [json.loads(line) for line in lines[:-1]]
        # How much an event has depends on the batch's blocks, so they are joined.
        return "".join(part["choices"][0]["delta"].get("content", "") for part in parts), lines[-1]
    return cleaned(json.loads(content))


def test_a_hundred_requests_at_once_are_each_answered_as_alone(running):
    queue, client = running
    alone = [without_identity(client.post(path, json=body).content) for path, body in MIXED]

    async def ask_all():
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=client.base_url, timeout=60, limits=limits) as many:
            asked = [many.post(path, json=body) for path, body in MIXED * 10]
            return [without_identity(one.content) for one in await asyncio.gather(*asked)]

    assert asyncio.run(ask_all()) == alone * 10
    assert queue.n_waiting == queue.n_running == 0


def test_what_is_no_request_is_answered_with_an_error_in_openais_shape(client):
    huge = b'{"prompt": "' + b"x" * (17 << 20) + b'"}'
    for status, response in [
        (400, client.post(COMPLETIONS, content=b"{", headers={"content-type": "application/json"})),
        (415, client.post(COMPLETIONS, content=b"{}")),
        (413, client.post(CHAT, content=huge, headers={"content-type": "application/json"})),
        (405, client.get(CHAT)),
        (404, client.post("/v1/embeddings", json={})),
    ]:
        assert response.status_code == status
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


# --- Clients that go away, and servers that end ------------------------------------------------


def raw_post(address, path, body, *, receive_buffer=0):
    """A connection that has sent a request and read nothing."""
    host, port = address.removeprefix("http://").split(":")
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect((host, int(port)))
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


def test_a_dropped_connection_frees_its_place(running, model):
    queue, client = running
    address = str(client.base_url).rstrip("/")
    # The rows of each fill a batch, so one runs and two wait.
    ask = {"prompt": "Anna", "n": served.BATCH_SIZE, "seed": 1}
    want = without_identity(client.post(COMPLETIONS, json=ask).content)
    with model.generator.closed():
        first = raw_post(address, COMPLETIONS, ask)
        wait_until(lambda: queue.n_running == 1)
        second = raw_post(address, COMPLETIONS, {**ask, "stream": True})
        wait_until(lambda: queue.n_waiting == 1)
        third = threading.Thread(target=lambda: got.append(client.post(COMPLETIONS, json=ask)))
        got = []
        third.start()
        wait_until(lambda: queue.n_waiting == 2)
        second.close()
        wait_until(lambda: queue.n_waiting == 1)
        first.close()
        wait_until(lambda: queue.n_running == 0)
    third.join(60)
    assert without_identity(got[0].content) == want


def test_a_full_queue_is_told_with_the_time_to_try_again(model):
    with served.no_complaints(), served.serving(model, max_waiting=1) as (server, queue, client):
        ask = {"prompt": "Anna", "n": served.BATCH_SIZE, "seed": 1}
        with model.generator.closed():
            first = raw_post(server.address, COMPLETIONS, ask)
            wait_until(lambda: queue.n_running == 1)
            second = raw_post(server.address, COMPLETIONS, ask)
            wait_until(lambda: queue.n_waiting == 1)
            refused = client.post(COMPLETIONS, json=ask)
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "queue_full"
        for connection in (first, second):
            assert b"200 OK" in connection.recv(1 << 16)
            connection.close()


def test_an_answer_that_takes_too_long_is_an_error_and_frees_its_place(model):
    # Long enough for the bodies to be read on a busy machine: they must not be what is too late.
    with served.no_complaints(), served.serving(model, timeout=3) as (_, queue, client):
        ask = {"prompt": "Anna", "n": served.BATCH_SIZE, "seed": 1}
        with model.generator.closed():
            for streams in (False, True):  # Nothing was sent of either, so both get a status.
                response = client.post(COMPLETIONS, json={**ask, "stream": streams})
                assert response.status_code == 504
                assert response.json()["error"]["code"] == "timeout"
            assert queue.n_waiting == queue.n_running == 0


def test_a_slow_reader_holds_up_nobody_and_loses_its_connection(running, model, monkeypatch):
    monkeypatch.setattr("ift_jax.serving.http_answer._GRACE", 0.1)
    # Log-probabilities make the answer larger than all buffers.
    large = {"prompt": "Anna", "logprobs": 4, "max_tokens": 120, "seed": 1, "stream": True, "n": 4}
    small = {"prompt": "Anna", **GREEDY}
    for ask in (large, small):  # Compiles their programs, which would take the time below.
        running[1].post(COMPLETIONS, json=ask)
    with served.serving(model, timeout=4, send_buffer=2048) as (server, queue, client):
        with model.generator.closed():
            slow = raw_post(server.address, COMPLETIONS, large, receive_buffer=2048)
            wait_until(lambda: queue.n_running == 1)
        wait_until(lambda: queue.n_running == 0)
        assert client.post(COMPLETIONS, json=small).status_code == 200
        wait_until(lambda: not server._server.server_state.tasks)  # Its time is over.
        slow.settimeout(60)
        received = b""
        with pytest.raises((ConnectionError, EOFError)):  # noqa: PT012
            while True:
                part = slow.recv(1 << 16)
                if not part:
                    raise EOFError
                received += part
        assert received and b"[DONE]" not in received
        slow.close()


def test_sigterm_finishes_what_was_asked_and_ends_with_status_0(tmp_path, capsys, monkeypatch):
    workdir = small_models.write_workdir(tmp_path)
    port = free_port()
    threads_before = set(threading.enumerate())
    got = []

    def ask():
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            wait_until(lambda: is_up(client), 60)
            body = {"messages": HELLO, "max_tokens": 100, "seed": 1, "stream": True}
            with client.stream("POST", CHAT, json=body) as response:
                lines = response.iter_lines()
                got.append(next(lines))
                os.kill(os.getpid(), signal.SIGTERM)
                got.extend(line for line in lines if line)

    thread = threading.Thread(target=ask)
    thread.start()
    assert main(["serve", "--workdir", workdir, "--port", str(port), "--name", "tiny"]) == 0
    thread.join(60)
    assert got[-1] == "data: [DONE]"
    printed = capsys.readouterr()
    assert "serving 'tiny' (" in printed.out and f"http://127.0.0.1:{port}" in printed.out
    assert printed.err == "stopping: 1 prompt to finish\n"
    wait_until(lambda: set(threading.enumerate()) <= threads_before)


def is_up(client):
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def test_a_port_that_is_taken_is_told_before_the_weights_are_read(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["serve", "--workdir", str(tmp_path), "--port", port]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --host 127.0.0.1 --port {port}: cannot be served (")
    assert error.count("\n") == 1


def test_the_openai_client_understands_all_of_it(client):
    openai = pytest.importorskip("openai", reason="OpenAI's own client is compared with HTTP")
    url = str(client.base_url).rstrip("/") + "/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as official:
        ask = {"model": "tiny", "seed": 5, "max_tokens": 20}
        chat = official.chat.completions.create(messages=HELLO, **ask)
        want = answered(client, CHAT, messages=HELLO, **ask)["choices"][0]["message"]["content"]
        assert chat.choices[0].message.content == want
        with official.chat.completions.create(messages=HELLO, **ask, stream=True) as parts:
            assert "".join(part.choices[0].delta.content or "" for part in parts) == want
        scored = official.completions.create(prompt=[5, 6], echo=True, logprobs=1, **ask)
        assert scored.choices[0].logprobs.token_logprobs[0] is None
        with pytest.raises(openai.BadRequestError) as error:
            official.completions.create(prompt="x", **ask, presence_penalty=1)
        assert error.value.param == "presence_penalty"
        with pytest.raises(openai.NotFoundError):
            official.models.retrieve("other")
