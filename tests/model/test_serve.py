"""`toynn serve`: the API of OpenAI, used by OpenAI's own client, and the limits of the server."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toynn
from chat_models import chat_model, saved
from commands import TOYNN, assert_refused
from commands import toynn as run_toynn
from http_servers import ask, raw_request, running
from toynn import Sampling, TextModel
from toynn.api.reply_stream import ReplyStream
from toynn.serve import model_app
from toynn.serve.api_error import ApiError
from toynn.serve.guards import LOCAL_NAMES
from toynn.serve.limits import Limits
from toynn.serve.model_app import ModelApp
from toynn.serve.request_fields import body_object, chat_request, completion_request
from toynn.storage.checkpoint import Checkpoint

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MESSAGES: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "The cat sat on the mat."}]
SECONDS = 60  # time limit in seconds for events that normally happen at once


@pytest.fixture(scope="module")
def model() -> Iterator[TextModel]:
    with TextModel(Checkpoint(Path("chat"), 0, chat_model(), None, {}), n_threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def port(model: TextModel) -> Iterator[int]:
    served = ModelApp(model, "chat", limits=Limits(queue=100, body=10_000), hosts=LOCAL_NAMES)
    with running(served.app) as found:
        yield found
    served.close()


@pytest.fixture(scope="module")
def client(port: int) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as found:
        yield found


# ---- the API, with OpenAI's client ----


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [one.id for one in client.models.list()] == ["chat"]
    assert client.models.retrieve("chat").owned_by == "toynn"
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt'; this server has the model 'chat'"):
        client.models.retrieve("gpt")


def test_a_completion_is_the_text_of_generate(client: openai.OpenAI, model: TextModel) -> None:
    prompt = "The cat sat"
    found = client.completions.create(
        model="chat", prompt=prompt, max_tokens=20, seed=3, temperature=0.9, top_p=0.8,
        extra_body={"top_k": 7, "min_p": 0.01},
    )  # fmt: skip
    text = model.generate(prompt, max_tokens=20, seed=3, temperature=0.9, top_p=0.8, top_k=7, min_p=0.01)
    assert found.choices[0].text == text
    assert (found.object, found.model, found.choices[0].finish_reason) == ("text_completion", "chat", "length")
    assert found.usage is not None
    counts = (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens)
    assert counts == (len(model.encode(prompt)), 20, len(model.encode(prompt)) + 20)
    by_ids = client.completions.create(model="chat", prompt=model.encode(prompt), max_tokens=20, seed=3, temperature=0)
    assert by_ids.choices[0].text == model.generate(prompt, max_tokens=20, greedy=True)
    assert client.completions.create(model="chat", prompt=prompt).usage.completion_tokens <= 16  # type: ignore[union-attr]


def test_a_chat_completion_is_the_reply_of_chat(client: openai.OpenAI, model: TextModel) -> None:
    found = client.chat.completions.create(model="chat", messages=MESSAGES, max_tokens=20, seed=3)
    reply = model.chat(MESSAGES, max_tokens=20, seed=3)
    assert found.choices[0].message.content == reply
    assert (found.object, found.choices[0].message.role, found.choices[0].finish_reason) == (
        "chat.completion",
        "assistant",
        "length",
    )
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (reply.prompt_tokens, 20)
    stop = reply[4:6]
    for limit in ({"max_tokens": 20}, {"max_completion_tokens": 20}):
        ended = client.chat.completions.create(model="chat", messages=MESSAGES, seed=3, stop=stop, extra_body=limit)
        assert ended.choices[0].message.content == reply[: reply.index(stop)]
        assert ended.choices[0].finish_reason == "stop"
    again = client.chat.completions.create(model="chat", messages=MESSAGES, seed=3, max_tokens=1)
    assert again.usage is not None
    assert again.usage.prompt_tokens_details is not None
    assert again.usage.prompt_tokens_details.cached_tokens == reply.prompt_tokens - 1


def test_a_conversation_can_be_sent_back_as_the_client_has_it(client: openai.OpenAI, model: TextModel) -> None:
    found = client.chat.completions.create(model="chat", messages=MESSAGES, max_tokens=5, seed=3)
    parts = {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "then?"}]}
    history: Any = [*MESSAGES, found.choices[0].message.model_dump(), parts]
    again = client.chat.completions.create(model="chat", messages=history, max_tokens=5, seed=3)
    content = found.choices[0].message.content or ""
    plain = [*MESSAGES, {"role": "assistant", "content": content}, {"role": "user", "content": "And then?"}]
    assert again.choices[0].message.content == model.chat(plain, max_tokens=5, seed=3)


def test_a_stream_has_the_same_text_the_reason_and_the_usage(client: openai.OpenAI, model: TextModel) -> None:
    reply = model.chat(MESSAGES, max_tokens=20, seed=3)
    chunks = list(
        client.chat.completions.create(
            model="chat", messages=MESSAGES, max_tokens=20, seed=3, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(one.choices[0].delta.content or "" for one in chunks[:-1]) == reply
    assert [one.choices[0].finish_reason for one in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == reply.prompt_tokens + 20
    assert len({one.id for one in chunks}) == 1
    assert len(chunks) > 10
    texts = client.completions.create(model="chat", prompt="The cat", max_tokens=9, seed=1, stream=True)
    assert "".join(one.choices[0].text for one in texts) == model.generate("The cat", max_tokens=9, seed=1)


def test_a_request_without_seed_gets_a_random_seed_that_is_reported(client: openai.OpenAI) -> None:
    found = [client.completions.create(model="chat", prompt="The", temperature=2) for _ in range(4)]
    assert len({one.choices[0].text for one in found}) > 1
    seed = (found[0].model_extra or {})["seed"]
    again = client.completions.create(model="chat", prompt="The", temperature=2, seed=seed)
    assert again.choices[0].text == found[0].choices[0].text


def test_simultaneous_requests_get_the_replies_that_they_would_get_alone(
    client: openai.OpenAI, model: TextModel
) -> None:
    prompts = [f"The {word}" for word in ("cat", "mat", "day", "cat sat", "name", "end")]
    alone = [model.generate(prompt, max_tokens=15, seed=i) for i, prompt in enumerate(prompts)]

    def text(i: int) -> str:
        if i % 2:
            stream = client.completions.create(model="chat", prompt=prompts[i], max_tokens=15, seed=i, stream=True)
            return "".join(one.choices[0].text for one in stream)
        return client.completions.create(model="chat", prompt=prompts[i], max_tokens=15, seed=i).choices[0].text

    with ThreadPoolExecutor(len(prompts)) as pool:
        assert list(pool.map(text, range(len(prompts)))) == alone


# ---- wrong requests ----


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "says"),
    [
        (COMPLETIONS, b"{", 400, None, "the request body must be JSON in UTF-8"),
        (COMPLETIONS, b"\xff", 400, None, "the request body must be JSON in UTF-8"),
        (COMPLETIONS, b"[" * 9000, 400, None, "the request body must be JSON"),
        (COMPLETIONS, b'{"prompt": NaN}', 400, None, "NaN is not a JSON number"),
        (COMPLETIONS, b'{"seed": ' + b"9" * 6000 + b"}", 400, None, "the request body must be JSON"),
        (COMPLETIONS, [], 400, None, "the request body must be a JSON object, got list"),
        (COMPLETIONS, b" " * 10_001, 413, None, "the request body must have at most 10000 bytes"),
        (COMPLETIONS, {}, 400, "prompt", "prompt is missing; give a text or a list of token ids"),
        (COMPLETIONS, {"prompt": ["a", "b"]}, 400, "prompt", "prompt must be one text, got a list of 2"),
        (COMPLETIONS, {"prompt": [600]}, 400, None, "prompt[0] must be an integer from 0 to 511, got 600"),
        (COMPLETIONS, {"prompt": "x " * 400}, 400, None, "but the context length is 256; shorten the prompt"),
        (COMPLETIONS, {"prompt": "a\ud800"}, 400, None, "prompt is not Unicode text"),
        (COMPLETIONS, {"prompt": "a", "n": 2}, 400, "n", "n is not supported; leave it out, or give 1"),
        (COMPLETIONS, {"prompt": "a", "echo": True}, 400, "echo", "echo is not supported"),
        (COMPLETIONS, {"prompt": "a", "foo": 1}, 400, "foo", "there is no field 'foo' in this request"),
        (COMPLETIONS, {"prompt": "a", "model": "b"}, 404, "model", "there is no model 'b'"),
        (COMPLETIONS, {"prompt": "a", "top_p": 0}, 400, "top_p", "top_p must be above 0 and at most 1"),
        (COMPLETIONS, {"prompt": "a", "stop": [""]}, 400, "stop", "stop[0] must not be empty"),
        (COMPLETIONS, {"prompt": "a", "stream_options": {"include_usage": True}}, 400, "stream_options", "needs str"),
        (CHAT, {}, 400, "messages", "messages is missing; give a list of messages"),
        (CHAT, {"messages": []}, 400, "messages", "messages must be a list of at least one message, got an empty"),
        (CHAT, {"messages": [{"role": "tool", "content": ""}]}, 400, "messages", "messages[0].role is 'tool'"),
        (CHAT, {"messages": [{"role": "user"}]}, 400, "messages", "messages[0].content is of type NoneType"),
        (CHAT, {"messages": [{**MESSAGES[1], "x": 1}]}, 400, "messages", "messages[0] has 'x'"),
        (CHAT, {"messages": MESSAGES, "tools": [{}]}, 400, "tools", "tools is not supported; leave it out"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages", "only text"),
    ],
)  # fmt: skip
def test_a_wrong_request_gets_an_error_that_names_the_field(
    path: str, body: object, status: int, param: str | None, says: str, port: int
) -> None:
    answer = ask(port, "POST", path, body)
    assert answer.status == status, answer.body
    assert says in answer.error["message"]
    assert answer.error["param"] == param
    assert answer.error["type"] == "invalid_request_error"


def test_a_prompt_that_is_too_long_has_a_code_for_programs(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "x " * 400}])
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/v1/embeddings", 404), ("GET", CHAT, 405), ("DELETE", "/v1/models", 405)],
)
def test_an_unknown_path_or_method_gets_an_error_of_the_same_shape(
    method: str, path: str, status: int, port: int
) -> None:
    answer = ask(port, method, path)
    assert answer.status == status
    assert answer.error["type"] == "invalid_request_error"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "prompt",
    "messages",
    "model",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "n",
    "logprobs",
    "tools",
    "response_format",
    "user",
    "logit_bias",
]
MESSAGE = st.dictionaries(st.sampled_from(["role", "content", "name", "tool_calls"]), VALUES | st.just("user"))


@given(
    st.sampled_from([completion_request, chat_request]),
    st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), VALUES, max_size=4),
    st.none() | st.lists(MESSAGE, max_size=3),
)
@settings(max_examples=300, deadline=None)
def test_any_json_is_a_request_or_an_error_of_the_client(
    read: Any, fields: dict[str, Any], messages: list[Any] | None
) -> None:
    whole = {"prompt": "a", "messages": MESSAGES if messages is None else messages, **fields}
    whole.pop("messages" if read is completion_request else "prompt")
    body = body_object(json.dumps(whole).encode())
    refused = None
    try:
        request = read(body, 256, Sampling())
    except ApiError as error:
        refused = error
    if refused is not None:
        assert refused.status == 400
        assert refused.response().body
    else:
        assert request.options.max_tokens <= 256
        assert (request.prompt is None) != (request.messages is None)


@pytest.mark.parametrize("field", [*FIELDS, "content", "role"])
def test_a_value_of_a_wrong_type_never_fails_in_the_server(field: str, port: int) -> None:
    path = COMPLETIONS if field == "prompt" else CHAT
    values: list[Any] = [0, -1, 1e300, True, "x", "", [], [[]], [None], {}, {"a": {}}, 2**70, ["\ud800"]]
    for value in values:
        body: dict[str, Any] = {"messages": MESSAGES} if path == CHAT else {"prompt": "a"}
        body["max_tokens"] = 1
        if field in ("content", "role"):
            body["messages"] = [{**MESSAGES[1], field: value}]
        else:
            body[field] = value
        answer = ask(port, "POST", path, body)
        assert answer.status in (200, 400, 404), (value, answer.body)
        if answer.status != 200:
            assert answer.error["message"]


def test_a_fault_in_the_server_is_one_line_on_stderr_and_a_status_500(
    port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> ReplyStream:
        raise RuntimeError("secret")

    monkeypatch.setattr(model_app, "continuation", broken)
    answer = ask(port, "POST", COMPLETIONS, {"prompt": "a"})
    assert (answer.status, answer.error["type"]) == (500, "server_error")
    assert b"secret" not in answer.body
    assert capsys.readouterr().err == "toynn: RuntimeError while a request was answered: secret\n"


# ---- access to the server ----


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1234"}, 200),
        ({"Host": "[::1]:1"}, 200),
        ({"Host": "LOCALHOST"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:8080"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "user@localhost"}, 403),
        ({"Host": "localhost:port"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Host": "localhost:8080", "Origin": "http://localhost:8080"}, 200),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),
    ],
)
def test_requests_of_foreign_web_pages_are_refused(headers: dict[str, str], status: int, port: int) -> None:
    answer = ask(port, "GET", "/v1/models", **headers)
    assert answer.status == status
    if status == 403:
        assert answer.error["type"] == "permission_error"
        assert "access-control-allow-origin" not in answer.headers


def test_a_request_needs_the_key_and_another_origin_is_refused(model: TextModel) -> None:
    origin = "http://localhost:3000"
    served = ModelApp(model, "chat", limits=Limits(), key="open sesame", hosts=None, origins=[origin])
    with running(served.app) as port:
        assert ask(port, "GET", "/v1/models").status == 401
        assert ask(port, "GET", "/v1/models", Authorization="Bearer no").error["code"] == "invalid_api_key"
        allowed = ask(port, "GET", "/v1/models", Authorization="Bearer open sesame", Origin=origin, Host="any.example")
        assert allowed.status == 200
        assert allowed.headers["access-control-allow-origin"] == origin
        asked = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,x-other"}
        preflight = ask(port, "OPTIONS", CHAT, Origin=origin, **asked)
        assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (200, origin)
        assert ask(port, "OPTIONS", CHAT, Origin="http://evil.example", **asked).status == 403
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="open sesame") as client:
            assert client.models.list().data[0].id == "chat"
    served.close()


# ---- limits, with a reply that never ends ----


class Endless:
    """Replies that end only when they are stopped. started, stopped: events."""

    def __init__(self, piece: str = "x") -> None:
        self.started, self.stopped = threading.Event(), threading.Event()
        self._piece = piece

    def __call__(self, *_: object, **__: object) -> ReplyStream:
        stream = ReplyStream()

        def pieces() -> Iterator[str]:
            self.started.set()
            pause = threading.Event()
            while not stream._stopped:
                yield self._piece
                pause.wait(0.001)
            self.stopped.set()

        stream._pieces = pieces()
        return stream


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> Endless:
    made = Endless()
    monkeypatch.setattr(model_app, "continuation", made)
    return made


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_disconnects_stops_the_reply(stream: bool, model: TextModel, endless: Endless) -> None:
    served = ModelApp(model, "chat", limits=Limits(queue=1), hosts=LOCAL_NAMES)
    with running(served.app) as port:
        body = json.dumps({"prompt": "a", "stream": stream}).encode()
        first = raw_request(port, body)
        assert endless.started.wait(SECONDS)
        if stream:
            assert first.recv(15) == b"HTTP/1.1 200 OK"
        waiting = raw_request(port, body)
        assert not endless.stopped.wait(0.05)
        waiting.close()
        first.close()
        assert endless.stopped.wait(SECONDS)
        served.close()  # waits for the worker, which must not start the request that waited
        assert not served._jobs


def test_a_full_queue_and_too_many_connections_are_refused(model: TextModel, endless: Endless) -> None:
    limits = Limits(queue=1, connections=3)
    served = ModelApp(model, "chat", limits=limits, hosts=LOCAL_NAMES)
    with running(served.app, limits) as port:
        body = json.dumps({"prompt": "a", "stream": True}).encode()
        first = raw_request(port, body)
        assert endless.started.wait(SECONDS)
        second = raw_request(port, body)
        while len(served._jobs) < 2:
            threading.Event().wait(0.01)
        refused = ask(port, "POST", COMPLETIONS, {"prompt": "a"})
        assert (refused.status, refused.error["code"]) == (429, "queue_full")
        assert refused.headers["retry-after"] == "1"
        third = socket.create_connection(("127.0.0.1", port))
        assert ask(port, "GET", "/health").status == 503
        for connection in (first, second, third):
            connection.close()
    served.close()


def test_a_reply_that_takes_too_long_ends_with_an_error(model: TextModel, endless: Endless) -> None:
    served = ModelApp(model, "chat", limits=Limits(seconds=0.2), hosts=LOCAL_NAMES)
    with running(served.app) as port:
        answer = ask(port, "POST", COMPLETIONS, {"prompt": "a"})
        assert (answer.status, answer.error["code"]) == (504, "timeout")
        assert "the reply took longer than 0.2 seconds" in answer.error["message"]
        assert endless.stopped.wait(SECONDS)
        with (
            openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client,
            pytest.raises(openai.APIError, match="the reply took longer"),
        ):
            list(client.completions.create(model="chat", prompt="a", stream=True))
    served.close()


def test_slow_clients_are_disconnected(model: TextModel, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = Endless("x" * 100_000)
    monkeypatch.setattr(model_app, "continuation", endless)
    limits = Limits(client_seconds=0.2)
    served = ModelApp(model, "chat", limits=limits, hosts=LOCAL_NAMES)
    with running(served.app, limits) as port:
        silent = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        silent.sendall(b"GET /v1/models HTTP/1.1\r\nHost: local")
        with contextlib.suppress(ConnectionError):  # the connection may also be closed without an error
            assert silent.recv(100) == b""
        slow = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert slow.recv(12) == b"HTTP/1.1 408"
        deaf = raw_request(port, json.dumps({"prompt": "a", "stream": True}).encode())
        assert endless.started.wait(SECONDS)
        assert endless.stopped.wait(SECONDS)  # the client reads nothing, so its connection is closed
        for connection in (silent, slow, deaf):
            connection.close()
    served.close()


# ---- the command ----


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(chat_model(), tmp_path_factory.mktemp("serve") / "story-run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_a_signal(number: signal.Signals, run: Path) -> None:
    command = [*TOYNN, "serve", str(run), "--port", "0", "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"serving story-run on (http://127\.0\.0\.1:\d+/v1) \(Ctrl-C ends the server\)\n", line)
    assert found, line
    with openai.OpenAI(base_url=found[1], api_key="none", max_retries=0) as client:
        text = client.completions.create(model="story-run", prompt="The cat", max_tokens=9, seed=5).choices[0].text
    process.send_signal(number)
    assert process.communicate(timeout=SECONDS) == ("the server has ended\n", "")
    assert process.returncode == 0
    generated = run_toynn("generate", run, "-p", "The cat", "-n", "9", "--seed", "5", "--json")
    assert json.loads(generated.stdout)["text"] == text


def test_another_address_needs_a_key(run: Path) -> None:
    refused = run_toynn("serve", run, "--host", "0.0.0.0", "--port", "0")
    assert_refused(refused, "--host 0.0.0.0 lets other machines use the server; set a key with --api-key or in")
    assert_refused(run_toynn("serve", run, "--host", "no.such.host.example"), "cannot be used:")
    assert_refused(run_toynn("serve", run, "--api-key", ""), "must consist of printable ASCII characters")


def test_a_port_in_use_is_an_error(run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        done = run_toynn("serve", run, "--port", str(used.getsockname()[1]))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert re.search(r"toynn: cannot listen on 127.0.0.1 port \d+: Address already in use", done.stderr)


def test_the_server_of_a_model_without_template_still_completes_texts(trained: Path) -> None:
    with toynn.load(trained, n_threads=1) as model:
        served = ModelApp(model, "run", limits=Limits(), hosts=LOCAL_NAMES)
        with running(served.app) as port:
            refused = ask(port, "POST", CHAT, {"messages": MESSAGES})
            assert (refused.status, "has no chat template" in refused.error["message"]) == (400, True)
            answer = ask(port, "POST", COMPLETIONS, {"prompt": "the", "seed": 2, "max_tokens": 5})
            assert answer.json["choices"][0]["text"] == model.generate("the", seed=2, max_tokens=5)
        served.close()


def test_the_server_uses_a_template_from_a_file_also_after_it_was_removed(trained: Path, tmp_path: Path) -> None:
    file, talk = tmp_path / "template.jinja", [{"role": "user", "content": "the"}]
    file.write_text("{% for m in messages %}{{ m['content'] }} {% endfor %}", encoding="utf-8")
    with toynn.load(trained, n_threads=1) as model:
        served = ModelApp(model, "run", limits=Limits(), template=file, hosts=LOCAL_NAMES)
        with running(served.app) as port:
            for _ in range(2):
                answer = ask(port, "POST", CHAT, {"messages": talk, "seed": 2, "max_tokens": 5})
                assert answer.status == 200
                reply = answer.json["choices"][0]["message"]["content"]
                assert reply == model.chat(talk, template=file, seed=2, max_tokens=5)
                file.unlink(missing_ok=True)
        served.close()
    assert_refused(run_toynn("serve", trained, "--template", file), "--template: ")
