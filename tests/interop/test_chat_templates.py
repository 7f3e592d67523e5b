"""Chat templates give the text and the spans that transformers gives."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toynn
from chat_templates import CHATML, CONVERSATIONS, TEMPLATES, TOOLS
from toynn import TinyNNValueError
from toynn.data import DataFolder
from toynn.text.chat_template import ChatTemplate, RenderRequest
from training_tokenizers import byte_level_tokenizer

transformers: Any = pytest.importorskip("transformers")
rendering: Any = pytest.importorskip("transformers.utils.chat_template_utils")
pytestmark = pytest.mark.other_programs

TOKENS: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>"}
# Older releases of transformers, which Python 3.10 needs, pass the messages unchanged.
NORMALISES = hasattr(rendering, "_normalize_chat_messages")


def oracle(source: str, messages: list[dict[str, Any]], **options: Any) -> tuple[str, list[tuple[int, int]]] | None:
    """Return text and spans as transformers computes them, or None if the template raises an exception."""
    try:
        normalised = rendering._normalize_chat_messages(messages) if NORMALISES else messages
        texts, spans = rendering.render_jinja_template([normalised], chat_template=source, **TOKENS, **options)
    except Exception:  # a template can raise any error
        return None
    return texts[0], spans[0] if spans else []


@pytest.fixture(scope="module", params=TEMPLATES)
def template(request: pytest.FixtureRequest) -> Any:
    with ChatTemplate(TEMPLATES[request.param], **TOKENS) as one:
        yield one


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_rendered_text_equals_that_of_transformers(template: ChatTemplate, name: str) -> None:
    if name == "thinking" and not NORMALISES:
        pytest.skip("this release of transformers does not know the names of the reasoning")
    for prompt in (False, True):
        for tools in (None, TOOLS):
            for variables in ({}, {"enable_thinking": False, "date_string": "1 May"}):
                expected = oracle(
                    template.source, CONVERSATIONS[name], add_generation_prompt=prompt, tools=tools, **variables
                )
                arguments: Any = {"add_generation_prompt": prompt, "tools": tools, "variables": variables}
                if expected is None:
                    with pytest.raises(
                        TinyNNValueError, match=r"^the chat template (refuses|fails for) these messages: "
                    ):
                        template.render(CONVERSATIONS[name], **arguments)
                else:
                    assert template.render(CONVERSATIONS[name], **arguments) == expected[0]


def test_only_templates_that_check_their_messages_raise_errors() -> None:
    failing = {
        (name, conversation)
        for name, source in TEMPLATES.items()
        for conversation, messages in CONVERSATIONS.items()
        if oracle(source, messages) is None
    }
    assert failing == {("system in the first user message", one) for one in ("a tool", "wrong order")}


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("which", ["generation blocks", "generation blocks with tools"])
def test_spans_are_those_of_the_generation_blocks(which: str, name: str) -> None:
    with ChatTemplate(TEMPLATES[which], **TOKENS) as template:
        assert template.has_generation_blocks
        found = template.render_with_spans(CONVERSATIONS[name])
    expected = oracle(TEMPLATES[which], CONVERSATIONS[name], return_assistant_tokens_mask=True)
    assert expected is not None
    assert (found.text, found.spans) == expected
    assert bool(found.spans) == any(message["role"] == "assistant" for message in CONVERSATIONS[name])


WORDS = st.text(st.sampled_from("ab \n<>|{}%'\"\\é日🍐"), max_size=12)
CHATS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": WORDS}),
    min_size=1, max_size=6,
)  # fmt: skip


@given(CHATS, st.booleans())
@settings(max_examples=60, deadline=None)
def test_texts_of_random_conversations_are_those_of_transformers(messages: list[dict[str, str]], prompt: bool) -> None:
    for name, template in RUNNING.items():
        (found,) = template.render_all([RenderRequest(messages, add_generation_prompt=prompt, spans="none")])
        expected = oracle(TEMPLATES[name], messages, add_generation_prompt=prompt)
        if expected is None:
            assert isinstance(found, TinyNNValueError)
        else:
            assert not isinstance(found, Exception)
            assert found.text == expected[0]


RUNNING = {name: ChatTemplate(source, **TOKENS) for name, source in TEMPLATES.items()}


# ---- the tokens that count ----


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer with the special tokens of ChatML, in a folder as transformers reads it."""
    texts = [message["content"] for chat in CONVERSATIONS.values() for message in chat] * 3
    return byte_level_tokenizer(texts, tmp_path_factory.mktemp("byte-level"))


RANDOM = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": WORDS}), min_size=2, max_size=5
).map(lambda chat: [*chat, {"role": "assistant", "content": "4"}])


@pytest.mark.parametrize("most", [None, 12])
@pytest.mark.parametrize("which", ["generation blocks", "generation blocks with tools"])
@given(st.lists(RANDOM, min_size=4, max_size=8))
@settings(max_examples=10, deadline=None)
def test_the_counted_tokens_are_those_of_the_assistant_mask(
    byte_level: Path, which: str, most: int | None, chats: list[list[dict[str, str]]]
) -> None:
    """TRL uses the assistant mask of transformers for its option `assistant_only_loss`."""
    oracle_tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(byte_level / "tokenizer.json"), eos_token="<|endoftext|>", truncation_side="left"
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "chats.jsonl").write_text("\n".join(json.dumps({"messages": chat}) for chat in chats))
        (folder / "t.jinja").write_text(TEMPLATES[which])
        toynn.prepare(
            folder / "chats.jsonl", folder / "data", tokenizer=byte_level / "tokenizer.json", validation=0,
            chat_template=folder / "t.jinja", max_tokens=most, progress=False,
        )  # fmt: skip
        data = DataFolder.open(folder / "data").train
        assert data.starts is not None
        assert data.counted is not None
        samples = [np.split(part, data.starts[1:]) for part in (data.tokens, data.counted)]
        found = [(ids.tolist(), marks.tolist()) for ids, marks in zip(*samples, strict=True)]
    expected = []
    for chat in chats:
        one = oracle_tokenizer.apply_chat_template(
            chat, chat_template=TEMPLATES[which], return_dict=True, return_assistant_tokens_mask=True,
            truncation=most is not None, max_length=most,
        )  # fmt: skip
        expected.append((one["input_ids"], one["assistant_masks"]))
    assert found == expected


@pytest.mark.parametrize("name", ["an answer", "two turns", "a tool"])
def test_templates_without_generation_blocks_count_the_same_answers(name: str) -> None:
    """The spans are those of the same template with generation blocks around each answer and its end."""
    content = "message['content'] + '<|im_end|>\\n'"
    blocks = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
        "{% if message['role'] == 'assistant' %}{% generation %}{{ " + content + " }}{% endgeneration %}"
        "{% else %}{{ " + content + " }}{% endif %}{% endfor %}"
    )
    with ChatTemplate(CHATML, **TOKENS) as plain, ChatTemplate(blocks, **TOKENS) as marked:
        assert plain.render_with_spans(CONVERSATIONS[name]) == marked.render_with_spans(CONVERSATIONS[name])
