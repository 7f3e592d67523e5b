"""ChatTemplate: spans, errors, and templates that try to harm the process."""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from chat_templates import CHATML, CONVERSATIONS, TEMPLATES
from toynn import FileFormatError, SessionError, TinyNNMemoryError, TinyNNTypeError, TinyNNValueError
from toynn.text import chat_template
from toynn.text.chat_template import ChatTemplate, RenderRequest

TWO = CONVERSATIONS["two turns"]


_of_earlier_tests: set[int] = set()


def _running() -> set[int]:
    return {one.pid for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE}


@pytest.fixture(autouse=True)
def _children_of_earlier_tests() -> None:
    _of_earlier_tests.clear()
    _of_earlier_tests.update(_running())


def children() -> set[int]:
    """Return the child processes that this test has started and that still run."""
    return _running() - _of_earlier_tests


def parts(source: str, messages: list[dict[str, object]]) -> list[str]:
    with ChatTemplate(source, "<s>", "</s>") as template:
        found = template.render_with_spans(messages)
    return [found.text[start:end] for start, end in found.spans]


@pytest.mark.quick
def test_without_generation_blocks_the_spans_are_the_answers() -> None:
    assert parts(CHATML, TWO) == ["Apple \n<|im_end|>\n", "x 🍐<|im_end|>\n"]
    assert parts(TEMPLATES["system in the first user message"], TWO) == [" Apple </s>", " x 🍐 </s>"]
    assert parts(TEMPLATES["headers, dates and tools"], TWO) == ["Apple<|eot_id|>", "x 🍐<|eot_id|>"]
    assert parts(CHATML, CONVERSATIONS["one question"]) == []


def test_a_turn_that_changes_when_others_follow_is_refused() -> None:
    source = TEMPLATES["namespaces and thinking"]
    assert parts(source, CONVERSATIONS["an answer"]) == ["<think>\n\n</think>\n\n4.<|im_end|>\n"]
    with pytest.raises(TinyNNValueError, match=r"^the chat template renders the first 2 messages differently when oth"):
        parts(source, CONVERSATIONS["thinking"])
    with ChatTemplate("{{ messages | length }}") as template, pytest.raises(TinyNNValueError, match="first 1 messages"):
        template.render_with_spans(CONVERSATIONS["an answer"])


def test_the_completion_begins_after_the_generation_prompt() -> None:
    with ChatTemplate(CHATML) as template:
        (found,) = template.render_all([RenderRequest(TWO, spans="completion", prompt=4)])
    assert not isinstance(found, Exception)
    assert [found.text[start:end] for start, end in found.spans] == ["x 🍐<|im_end|>\n"]


def test_generation_blocks_in_a_macro_are_refused() -> None:
    source = "{% macro f(m) %}<{% generation %}{{ m.content }}{% endgeneration %}>{% endmacro %}{{ f(messages[1]) }}"
    with ChatTemplate(source) as template, pytest.raises(TinyNNValueError, match="generation blocks is unknown"):
        template.render_with_spans(CONVERSATIONS["an answer"])


def test_the_word_generation_in_a_text_is_not_a_generation_block() -> None:
    with ChatTemplate("{# generation #}generation {{ '{% generation %}' }}") as template:
        assert not template.has_generation_blocks
        assert template.render(TWO) == "generation {% generation %}"


@pytest.mark.parametrize(
    "source", ["{% for x in messages %}", "{{", "{{ messages | nothing }}", "{% frobnicate %}", "{{" + "(" * 100_000]
)
def test_an_invalid_template_is_refused(source: str) -> None:
    expected = pytest.raises(FileFormatError, match=r"^my\.jinja is not a valid Jinja template: \S")
    with ChatTemplate(source, name="my.jinja") as template, expected:
        template.render(TWO)
    assert not children()


@pytest.mark.quick
def test_wrong_arguments_are_refused() -> None:
    with ChatTemplate(CHATML) as template:
        for messages in ("text", None, [1], [{"content": "x"}], [{"role": 1}]):
            with pytest.raises(TinyNNTypeError, match=r"^messages"):
                template.render(messages)  # type: ignore[arg-type]
        with pytest.raises(TinyNNTypeError, match="variables must consist of texts, numbers, lists and dicts: "):
            template.render([{"role": "user", "content": object()}])
        with pytest.raises(TinyNNValueError, match="variables cannot be written as JSON: "):
            template.render([{"role": "user", "content": float("nan")}])
        with pytest.raises(TinyNNTypeError, match=r"^tools must be a sequence of dicts, got "):
            template.render(TWO, tools="x")  # type: ignore[arg-type]
        with pytest.raises(TinyNNValueError, match="makes text that is not Unicode: surrogates not allowed"):
            template.render([{"role": "user", "content": "\ud800"}])
        assert template.render(CONVERSATIONS["one question"]) == "<|im_start|>user\nHi there<|im_end|>\n"
    with pytest.raises(SessionError, match=r"^the chat template was closed; make a new ChatTemplate$"):
        template.render(TWO)
    template.close()
    with pytest.raises(TinyNNTypeError, match=r"^source must be a str"):
        ChatTemplate(None)  # type: ignore[arg-type]


def test_a_wrong_request_among_others_has_its_own_error() -> None:
    good, bad = RenderRequest(CONVERSATIONS["an answer"]), RenderRequest(CONVERSATIONS["wrong order"])
    with ChatTemplate(TEMPLATES["system in the first user message"], "<s>", "</s>") as template:
        nan = RenderRequest([{"role": "user", "content": float("inf")}])
        found = template.render_all([nan, good, bad, good])
    assert [type(one).__name__ for one in found] == ["TinyNNValueError", "RenderedChat"] * 2
    assert str(found[2]) == (
        "the chat template refuses these messages: Conversation roles must alternate user/assistant/user/assistant/..."
    )
    assert "JSON" in str(found[0])


ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}"  # noqa: E501


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (ENDLESS, TinyNNValueError, "needs more than 0.4 seconds for these messages"),
        ("{% set n = messages | length %}{{ 7 ** (7 ** (n + 7)) }}", TinyNNValueError, "needs more than 0.4 seconds"),
        # jinja2 computes constant expressions when it compiles a template
        ("{{ 9 ** (9 ** 9) }}", FileFormatError, "it needs too much time"),
        ("{{ 'a' * messages | length * 10 ** 10 }}", TinyNNMemoryError, "needs more than 1024 MiB of memory"),
        ("{{ [0] * messages | length * 10 ** 10 }}", TinyNNMemoryError, "needs more than 1024 MiB of memory"),
        ("{{ 'a' * messages | length * 10 ** 7 }}", TinyNNValueError, "makes a text of more than 16777216 characters"),
        ("{{ range(10 ** 6) }}", TinyNNValueError, "fails for these messages: OverflowError: Range too big"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", TinyNNValueError, "the template calls itself too often"),
        ("{{ ''.__class__.__mro__ }}", TinyNNValueError, "SecurityError: access to attribute '__class__'"),
        ("{{ messages.append(1) }}", TinyNNValueError, "SecurityError: access to attribute 'append'"),
        ("{{ messages[0].update(a=1) }}", TinyNNValueError, "SecurityError: access to attribute 'update'"),
        ("{{ raise_exception.__globals__.x }}", TinyNNValueError, "SecurityError"),
        ("{{ cycler.__init__.__globals__.os.system('touch hit') }}", TinyNNValueError, "SecurityError"),
        ("{{ dict.__init__.__globals__ }}", TinyNNValueError, "SecurityError"),
        ("{{ '{0.__class__.x}'.format(1) }}", TinyNNValueError, "SecurityError"),
        ("{{ '{a.__init__.__globals__}'.format_map({'a': dict}) }}", TinyNNValueError, "SecurityError"),
        ("{% set n = namespace() %}{% set n.__class__ = 1 %}", TinyNNValueError, "must not begin with _"),
        ("{{ namespace(__init__=1) }}", TinyNNValueError, "must not begin with _, got '__init__'"),
        ("{% include '/etc/passwd' %}", TinyNNValueError, "fails for these messages: TypeError"),
        ("{% import 'os' as os %}", TinyNNValueError, "fails for these messages: TypeError"),
    ],
)  # fmt: skip
def test_a_hostile_template_is_an_error_and_does_no_harm(
    source: str, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chat_template, "_SECONDS", 0.4)
    with ChatTemplate(source) as template:
        with pytest.raises(error, match=r"^the chat template ") as caught:
            template.render(TWO)
        assert message in str(caught.value)
        with pytest.raises(error):  # after an error, the template can be used again
            template.render(CONVERSATIONS["an answer"])
    assert not children()
    assert not list(tmp_path.iterdir())


def test_only_the_request_that_needs_too_much_time_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "_SECONDS", 0.4)
    with ChatTemplate("{% if messages[0].content == 'long' %}" + ENDLESS + "{% endif %}ok") as template:
        requests = [RenderRequest([{"role": "user", "content": one}]) for one in ("a", "long", "b")]
        found = template.render_all(requests)
    assert [getattr(one, "text", None) for one in found] == ["ok", None, "ok"]
    assert str(found[1]) == "the chat template needs more than 0.4 seconds for these messages"


def test_the_time_of_earlier_requests_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "_SECONDS", 0.2)
    with ChatTemplate(CHATML) as template:
        template.render(TWO)
        (child,) = children()
        for _ in range(300):  # all requests together need more than 0.2 seconds
            template.render(TWO * 20)
        assert children() == {child}


def test_the_process_ends_with_its_template() -> None:
    template = ChatTemplate(CHATML)
    assert not children()
    template.render(TWO)
    assert len(children()) == 1
    del template
    gc.collect()
    assert not children()


def test_a_process_that_was_killed_is_reported_and_started_again() -> None:
    with ChatTemplate(CHATML) as template:
        expected = template.render(TWO)
        (child,) = children()
        psutil.Process(child).kill()
        deadline = time.monotonic() + 10
        while children() and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(TinyNNValueError, match="makes its process end: exit status -9"):
            template.render(TWO)
        assert template.render(TWO) == expected


def test_threads_and_forks_share_a_template() -> None:
    with ChatTemplate(CHATML) as template:
        expected = template.render(TWO)
        found: list[str] = []
        threads = [
            threading.Thread(target=lambda: found.extend(template.render(TWO) for _ in range(20))) for _ in "abc"
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert found == [expected] * 60
        fork = os.fork()
        if fork == 0:
            os._exit(0 if template.render(TWO) == expected else 1)
        assert os.waitpid(fork, 0)[1] == 0
        assert template.render(TWO) == expected
