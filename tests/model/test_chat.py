"""Conversations with a model: from Python and with `toynn chat`, also in a terminal."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import pty
import re
import select
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

import toynn
from chat_models import chat_model, saved
from commands import TOYNN, assert_refused
from commands import toynn as run_toynn
from toynn import ChatReply, FileFormatError, ReplyStream, SessionError, TextModel, TinyNNTypeError, TinyNNValueError
from toynn.storage.checkpoint import Checkpoint
from toynn.text.sampling import Sampling
from toynn.text.terminal_text import terminal_text

QUESTION = {"role": "user", "content": "The cat sat on the mat."}
RAISES = "{{ raise_exception('only one message') if messages|length > 1 }}{{ messages[0]['content'] }}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(chat_model(), tmp_path_factory.mktemp("chat") / "run")


def opened(model: Any = None, **options: Any) -> TextModel:
    return TextModel(Checkpoint(Path("chat"), 0, model or chat_model(), None, {}), n_threads=1, **options)


# ---- from Python ----


def test_a_reply_continues_the_rendered_conversation() -> None:
    with opened() as model:
        text = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        expected = model.generate(text, max_tokens=20, seed=3)
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
        reply = model.chat(messages, max_tokens=20, seed=3)
        assert str(reply) == str(expected)
        assert reply.finish_reason == "max_tokens"
        assert (reply.prompt_tokens, reply.reply_tokens) == (len(model.encode(text)), 20)
        assert "".join(model.chat_stream(messages, max_tokens=20, seed=3)) == reply


def test_tokens_in_common_are_read_once_and_do_not_change_the_reply() -> None:
    with opened() as model:
        first = model.chat([QUESTION], max_tokens=30, seed=1)
        longer = [QUESTION, {"role": "assistant", "content": first}, {"role": "user", "content": "And then?"}]
        reply = model.chat(longer, max_tokens=30, seed=2)
        assert first.prompt_tokens <= reply.reused_tokens < reply.prompt_tokens
        again = model.chat(longer, max_tokens=30, seed=2)
        assert again.reused_tokens == again.prompt_tokens - 1
        model.generate("Something else", max_tokens=3)
        forgotten = model.chat(longer, max_tokens=30, seed=2)
    with opened() as fresh:
        alone = fresh.chat(longer, max_tokens=30, seed=2)
    assert reply == again == forgotten == alone
    assert forgotten.reused_tokens == alone.reused_tokens == 0


def test_a_reply_ends_at_every_end_token_and_at_a_stop_string() -> None:
    with opened() as model:
        greedy = model.chat([QUESTION], max_tokens=40, greedy=True)
        prompt = model.encode("<|im_start|>user\nThe cat sat on the mat.<|im_end|>\n<|im_start|>assistant\n")
        padding = list(range(model.tokenizer.get_vocab_size(), 512))
        model.decoder.rewind()
        ids = list(toynn.generate(model.decoder, prompt, Sampling.greedy(), 40, never=padding))
        assert model.decode(ids) == greedy
        stopped = model.chat([QUESTION], max_tokens=40, greedy=True, stop=["no such text", greedy[5:9]])
        assert (stopped, stopped.finish_reason) == (greedy[: greedy.index(greedy[5:9])], "stop_string")
    later = next(token for token in ids if ids.index(token) > 3)
    with opened(dataclasses.replace(chat_model(), other_eos_ids=(later,))) as model:
        ended = model.chat([QUESTION], max_tokens=40, greedy=True)
        assert ended.finish_reason == "end_of_text"
        assert ended == model.decode(ids[: ids.index(later)])


def test_a_reply_ends_where_the_template_ends_it_without_a_token_for_this() -> None:
    template = "{% for m in messages %}{{ m['content'] }}{{ END if m['role'] == 'assistant' }}{% endfor %}"
    with opened(chat_model(template.replace("END", "''"))) as model:
        plain = model.chat([QUESTION], max_tokens=40, greedy=True)
    assert plain.finish_reason == "max_tokens"
    end = next(plain[i : i + 3] for i in range(4, len(plain)) if re.fullmatch("[A-Za-z]{3}", plain[i : i + 3]))
    with opened(chat_model(template.replace("END", repr(end)))) as model:
        reply = model.chat([QUESTION], max_tokens=40, greedy=True)
    assert (str(reply), reply.finish_reason) == (plain[: plain.index(end)], "end_of_text")
    with opened(chat_model("always the same")) as model:
        assert model.chat([QUESTION], max_tokens=5).finish_reason == "max_tokens"


def test_a_reply_does_not_contain_the_white_space_with_which_the_template_begins_it() -> None:
    template = (
        "{% for m in messages %}{{ ('A:' + gap if m['role'] == 'assistant' else '') + m['content'] }}{% endfor %}"
        "{{ 'A:' if add_generation_prompt }}"
    )

    def reply(gap: str, question: str) -> str:
        with opened(chat_model(f"{{% set gap = {gap!r} %}}{template}")) as model:
            return str(model.chat([{"role": "user", "content": question}], max_tokens=20, greedy=True))

    replies = ((question, reply("", question)) for question in map(str, range(100)))
    question, whole = next((question, one) for question, one in replies if one.startswith(" "))
    assert reply(" ", question) == whole[1:]
    # the model does not begin its reply with this gap, so the reply stays unchanged
    for gap in ("\n", "  \n", " <think> "):
        assert reply(gap, question) == whole


def test_the_sampling_of_the_model_is_the_default() -> None:
    with opened(chat_model(temperature=0.1, top_k=5)) as model:
        assert model.sampling_defaults == Sampling(0.1, 5)
        wanted = model.chat([QUESTION], max_tokens=20, seed=4)
        assert wanted == model.chat([QUESTION], max_tokens=20, seed=4, temperature=0.1, top_k=5, top_p=0.95)
        assert wanted != model.chat([QUESTION], max_tokens=20, seed=4, temperature=3.0, top_k=0)


def test_a_long_conversation_is_refused_or_loses_its_oldest_messages() -> None:
    old = [{"role": "user", "content": "one two three " * 2}, {"role": "assistant", "content": "four five " * 2}]
    messages = [{"role": "system", "content": "Be brief."}, *old, *old, *old, *old, QUESTION]
    with opened() as model:
        with pytest.raises(TinyNNValueError, match=r"the conversation has \d+ tokens, but the context length is 256"):
            model.chat(messages)
        reply = model.chat(messages, drop_oldest=True, max_tokens=5)
        assert reply.dropped_messages in (2, 4, 6, 8)
        kept = [messages[0], *messages[1 + reply.dropped_messages :]]
        assert kept[1]["role"] == "user"
        assert reply == model.chat(kept, max_tokens=5)
        assert reply.prompt_tokens <= 192 < model.chat([*kept[:1], *old, *kept[1:]], max_tokens=0).prompt_tokens
        with pytest.raises(TinyNNValueError, match="context length is 256"):
            model.chat([{"role": "user", "content": "x y " * 300}], drop_oldest=True)
        full = model.chat([QUESTION], seed=1, temperature=3.0, stop=[])
        assert full.finish_reason in ("context_full", "end_of_text")
        assert full.prompt_tokens + full.reply_tokens <= 257


def test_a_stopped_reply_leaves_the_model_free_for_another_reply() -> None:
    with opened() as model:
        stream = model.chat_stream([QUESTION], max_tokens=100, seed=1)
        assert isinstance(stream, ReplyStream)
        first = next(stream)
        stream.stop()
        text = first + "".join(stream)
        assert stream.finish_reason == "stopped"
        assert model.chat([QUESTION], max_tokens=100, seed=1).startswith(text)
        before = model.chat_stream([QUESTION])
        before.stop()
        assert (list(before), before.finish_reason) == ([], "stopped")
        running = model.chat_stream([QUESTION], seed=1)
        next(running)
        model.chat([QUESTION], max_tokens=2)
        with pytest.raises(SessionError, match="read other tokens"):
            list(running)


def test_a_model_without_a_template_needs_the_name_of_one() -> None:
    with opened(dataclasses.replace(chat_model(""), other_eos_ids=())) as model:
        with pytest.raises(
            TinyNNValueError, match=r"chat has no chat template; give one with template=...: 'chatml', or"
        ):
            model.chat([QUESTION])
        with pytest.raises(
            FileNotFoundError, match="template: 'nothing' does not exist; give a Jinja file, a model, or"
        ):
            model.chat([QUESTION], template="nothing")
        with pytest.raises(TinyNNTypeError, match="template must be a"):
            model.chat([QUESTION], template=3)  # type: ignore[arg-type]
        named = model.chat([QUESTION], template="chatml", max_tokens=20)
    with opened() as model:
        assert named == model.chat([QUESTION], max_tokens=20)


def test_a_template_can_come_from_a_file_or_another_model(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    file.write_text("{% for m in messages %}[{{ m['content'] }}]{% endfor %}", encoding="utf-8")
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": [{"name": "default", "template": "{{ messages[0].content }}!"},
                                                    {"name": "tool_use", "template": "tools"}]}))  # fmt: skip
    with opened(chat_model(RAISES)) as model:
        for template, text in ((file, "[a][b][c]"), (str(file), "[a][b][c]"), (config, "a!")):
            talk = [{"role": role, "content": one} for role, one in (("user", "a"), ("assistant", "b"), ("user", "c"))]
            reply = model.chat(talk, template=template, max_tokens=6, seed=5)
            assert reply.prompt_tokens == len(model.encode(text))
            assert str(reply) == str(model.generate(text, max_tokens=6, seed=5))
            assert "".join(model.chat_stream(talk, template=template, max_tokens=6, seed=5)) == reply
        file.write_text("{{ messages[0]['content'] }}?", encoding="utf-8")
        assert model.chat(talk, template=file, max_tokens=0).prompt_tokens == len(model.encode("a?"))
        file.unlink()
        assert model.chat(talk, template=file, max_tokens=0).prompt_tokens == len(model.encode("a?"))
        of_run = model.chat([QUESTION], template=run, max_tokens=6)
        assert of_run == model.chat([QUESTION], template="chatml", max_tokens=6)
        config.write_text("{}")
        with pytest.raises(
            TinyNNValueError, match=r"template: .*tokenizer_config.json has no chat template; give a Jinja"
        ):
            model.chat([QUESTION], template=config)
        file.write_text("{% if %}", encoding="utf-8")
        with pytest.raises(FileFormatError, match=r"the chat template '.*jinja' is not a valid Jinja template"):
            model.chat([QUESTION], template=file)


def test_the_start_and_end_tokens_of_the_model_are_variables_of_a_template(tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    file.write_text("{{ bos_token + messages[0]['content'] + eos_token }}", encoding="utf-8")
    with opened() as model:
        assert model.start_id is not None
        assert model.end_id is not None
        start, end = (model.tokenizer.id_to_token(one) for one in (model.start_id, model.end_id))
        assert model.chat_template(file).render([QUESTION]) == f"{start}{QUESTION['content']}{end}"


def test_chat_and_generate_have_the_arguments_of_their_streams() -> None:
    for whole, stream in ((TextModel.chat, TextModel.chat_stream), (TextModel.generate, TextModel.stream)):
        assert inspect.signature(whole).parameters == inspect.signature(stream).parameters
    assert inspect.signature(TextModel.chat).return_annotation == "ChatReply"


@pytest.mark.parametrize(
    ("messages", "error", "says"),
    [
        ("Hi", TinyNNTypeError, "messages must be a list of messages, got str"),
        ([], TinyNNValueError, "messages must contain at least one message, got none"),
        (["Hi"], TinyNNTypeError, r"messages\[0\] must be a dict with the keys 'role' and 'content', got str"),
        ([{"role": "user"}], TinyNNValueError, "'content' is missing"),
        ([{"role": "user", "content": 3}], TinyNNTypeError, r"messages\[0\]\['content'\] must be a str, got int"),
        ([{**QUESTION, "name": "x"}], TinyNNValueError, "but also has 'name'"),
        ([{"role": "user", "content": "\ud800"}], TinyNNValueError, "is not Unicode text"),
        ([QUESTION, QUESTION], TinyNNValueError, "refuses these messages: only one message"),
    ],
)
def test_wrong_messages_are_refused(messages: Any, error: type[Exception], says: str) -> None:
    with opened(chat_model(RAISES)) as model, pytest.raises(error, match=says):
        model.chat(messages)


def test_a_chat_reply_is_made_from_a_stream() -> None:
    assert ChatReply(ReplyStream()) == ""
    with pytest.raises(TinyNNTypeError, match="stream must be a ReplyStream, got str"):
        ChatReply("text")  # type: ignore[arg-type]


# ---- toynn chat ----


def test_each_line_of_a_pipe_is_a_message_of_one_conversation(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    lines = f"Hi\n\n/undo\nHi\nAnd then?\n/save {file}\n/reset\nHi\n/exit\nnot read\n"
    done = run_toynn("chat", run, "-n", "10", "--seed", "2", "--system", "Be brief.", stdin=lines)
    assert (done.returncode, done.stderr.count("note:")) == (0, 4), done.stderr
    system = {"role": "system", "content": "Be brief."}
    with toynn.load(run) as model:
        talk = [system, {"role": "user", "content": "Hi"}]
        first = model.chat(talk, max_tokens=10, seed=2)
        talk += [{"role": "assistant", "content": first}, {"role": "user", "content": "And then?"}]
        second = model.chat(talk, max_tokens=10, seed=2)
    assert done.stdout == f"{first}\n{first}\n{second}\n{first}\n"
    talk.append({"role": "assistant", "content": second})
    assert json.loads(file.read_text(encoding="utf-8")) == {"messages": talk}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/nonsense", "there is no command '/nonsense'; the commands are /undo, /reset, /save, /help, /exit"),
        ("/undo", "/undo has nothing to remove"),
        ("/save", "/save needs the name of one file"),
        ("/save OLD", "exists; give the name of a new file"),
        ("word " * 300, "but the context length is 256"),
    ],
)
def test_a_wrong_line_of_a_pipe_is_an_error(line: str, says: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("x")
    done = run_toynn("chat", run, stdin=line.replace("OLD", str(tmp_path / "old")) + "\n")
    assert_refused(done, says)


def test_a_missing_or_wrong_template_is_refused_before_the_first_message(trained: Path, tmp_path: Path) -> None:
    option = "has no chat template; give one with --template: 'chatml', or the path of a Jinja file"
    assert_refused(run_toynn("chat", trained, stdin=""), option)
    (tmp_path / "wrong.jinja").write_text("{% for %}")
    wrong = run_toynn("chat", trained, "--template", tmp_path / "wrong.jinja", stdin="")
    assert_refused(wrong, "wrong.jinja' is not a valid Jinja template")
    assert_refused(run_toynn("chat", trained, "--template", "chatmi", stdin=""), "--template: 'chatmi' does not exist")
    os.mkfifo(tmp_path / "pipe")
    pipe = run_toynn("chat", trained, "--template", tmp_path / "pipe", stdin="")
    assert_refused(pipe, "pipe is neither a file nor a folder; give a Jinja file, or one of chatml")
    (tmp_path / "right.jinja").write_text("{{ messages[-1]['content'] }}")
    done = run_toynn("chat", trained, "--template", tmp_path / "right.jinja", "-n", "5", "--greedy", stdin="One\n")
    assert done.returncode == 0, done.stderr
    with toynn.load(trained) as model:
        assert done.stdout == terminal_text(model.generate("One", max_tokens=5, greedy=True)) + "\n"


def test_old_messages_that_no_longer_fit_are_left_out_with_a_note(run: Path) -> None:
    done = run_toynn("chat", run, "-n", "5", stdin="one two three four five six\n" * 7)
    assert done.returncode == 0
    assert re.search(r"note: the model no longer sees the oldest 2 messages, because the context of 256 ", done.stderr)


def test_control_characters_of_a_reply_do_not_reach_the_terminal(tmp_path: Path) -> None:
    path = saved(chat_model(), tmp_path / "run")
    done = run_toynn("chat", path, "--temperature", "50", "--top-k", "0", "--top-p", "1", "-n", "230", stdin="Hi\n")
    with toynn.load(path) as loaded:
        raw = loaded.chat([{"role": "user", "content": "Hi"}], temperature=50, top_k=0, top_p=1.0, max_tokens=230)
    assert re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", raw), "the model has said no control character"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", done.stdout)


# ---- in a terminal ----


class Terminal:
    """`toynn chat` in a pseudo-terminal."""

    def __init__(self, *arguments: str | Path) -> None:
        self._ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "dumb"}
        self.process = subprocess.Popen(
            [*TOYNN, "chat", *map(str, arguments)],
            stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.shown = ""

    def send(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def interrupt_until(self, text: str) -> None:
        """Send Ctrl-C until the output contains the text.

        Several signals are sent, because Python's `input` may not notice a signal that arrives just before `input`
        waits for a key.
        """
        while text not in self.shown:
            os.kill(self.process.pid, signal.SIGINT)
            if select.select([self._ours], [], [], 0.5)[0]:
                self.shown += os.read(self._ours, 4096).decode(errors="replace")
        self.wait_for(text)

    def wait_for(self, text: str) -> str:
        """Read the output until it contains the text. Return the output up to there."""
        while text not in self.shown:
            try:
                piece = os.read(self._ours, 4096)
            except OSError:  # the program has ended
                piece = b""
            assert piece, f"{text!r} is not in {self.shown!r}"
            self.shown += piece.decode(errors="replace")
        before, _, self.shown = self.shown.partition(text)
        return before + text


def test_ctrl_c_ends_a_reply_and_ctrl_d_ends_the_program(tmp_path: Path) -> None:
    path = saved(dataclasses.replace(chat_model(ctx=8192), eos_id=None, other_eos_ids=()), tmp_path / "run")
    terminal = Terminal(path, "--threads", "1")
    terminal.wait_for("> ")
    terminal.send("Hi\n")
    terminal.wait_for("Hi\r\n")
    while len(terminal.shown) < 20:
        terminal.shown += os.read(terminal._ours, 4096).decode(errors="replace")
    os.kill(terminal.process.pid, signal.SIGINT)
    reply = terminal.wait_for("\n> ")
    assert "the context" not in reply
    terminal.send("/undo\n")
    terminal.wait_for("\n> ")
    terminal.send("/undo\n")
    assert "/undo has nothing to remove" in terminal.wait_for("\n> ")
    terminal.interrupt_until("(Ctrl-D or /exit ends the program)")
    terminal.wait_for("> ")
    terminal.send("\x04")
    assert terminal.process.wait(60) == 0
