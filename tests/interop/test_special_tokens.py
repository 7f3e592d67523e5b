"""Special tokens of imported models: around a prompt, at the end of generation, and after a round trip."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from tokenizers import Tokenizer

from interop_models import VOCAB, make, tokenizer
from llama_cpp import LlamaCpp
from sentencepiece_models import lists_of, model_of, trained
from toynn import load, prepare, train
from toynn.interop import export_gguf, export_hf, import_gguf, import_hf
from toynn.model.foreign_settings import ForeignSettings
from toynn.model.trained_model import TrainedModel
from toynn.storage.checkpoint import load_checkpoint, write_checkpoint
from toynn.text.token_rules import TokensAround, template, tokens_around
from toynn.text.tokenizer_json import parsed_tokenizer
from toynn.training.events import Event, Started

pytestmark = pytest.mark.other_programs
PROMPT = "The cat sat"


def with_begin(before: bool = True, after: bool = False, **changes: Any) -> TrainedModel:
    """Return a model with the tokens <s> (500) and </s> (501), and rules that put these tokens around a text."""
    described = json.loads(tokenizer())
    for i, text in ((500, "<s>"), (501, "</s>")):
        described["added_tokens"].append({**described["added_tokens"][0], "id": i, "content": text})
        described["model"]["vocab"][text] = i
    described["post_processor"] = template([("<s>", 500)] * before, [("</s>", 501)] * after)
    content = json.dumps(described).encode()
    return dataclasses.replace(make("untied", tokens=content), bos_id=500, eos_id=501, **changes)


def changed_gguf(source: Path, out: Path, **values: Any) -> Path:
    """Copy a GGUF file with other values of tokenizer.ggml keys. A key with the value None is left out."""
    reader, writer = GGUFReader(source), GGUFWriter(out, "llama")
    for field in reader.fields.values():
        name = field.name.removeprefix("tokenizer.ggml.")
        if field.name.startswith("GGUF.") or field.name == "general.architecture" or name in values:
            continue
        kind = field.types[0]
        sub_type = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=sub_type)
    for name, value in values.items():
        if value is not None:
            kind = GGUFValueType.BOOL if isinstance(value, bool) else GGUFValueType.UINT32
            writer.add_key_value(f"tokenizer.ggml.{name}", value, kind)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


@pytest.mark.parametrize(("before", "after"), [(True, False), (True, True), (False, True), (False, False)])
def test_prompts_get_the_tokens_of_the_models_own_rules_as_in_llama_cpp(
    before: bool, after: bool, tmp_path: Path
) -> None:
    model = with_begin(before, after)
    export_gguf(model, tmp_path / "m.gguf")
    back = import_gguf(tmp_path / "m.gguf")
    assert back.tokenizer is not None
    assert tokens_around(parsed_tokenizer(back.tokenizer)) == TokensAround([500] * before, [501] * after)
    with LlamaCpp(tmp_path / "m.gguf") as theirs, load(tmp_path / "m.gguf", n_threads=1) as ours:
        ids = theirs.tokenize(PROMPT)
        assert (ids[0] == 500, ids[-1] == 501) == (before, after)
        assert ours.encode(PROMPT, special_tokens=True) == ids
        logits = theirs.feed(ids)[-1]
        assert int(ours.decoder.feed(ids).argmax()) == int(logits.argmax())
    export_gguf(back, tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "m.gguf").read_bytes()


def test_generate_and_evaluate_use_the_rules(tmp_path: Path) -> None:
    model = with_begin()
    bare = dataclasses.replace(model, tokenizer=tokenizer(), bos_id=None)
    write_checkpoint(tmp_path / "run", model)
    write_checkpoint(tmp_path / "bare", bare)
    with load(tmp_path / "run", n_threads=1) as ours, load(tmp_path / "bare", n_threads=1) as plain:
        ids = [500, *plain.encode(PROMPT)]
        expected: list[int] = []
        n = plain.tokenizer.get_vocab_size()  # ids without a token are not sampled
        for _ in range(8):
            plain.decoder.rewind()
            expected.append(int(plain.decoder.feed(ids + expected)[:n].argmax()))
        assert ours.generate(PROMPT, greedy=True, max_tokens=8) == ours.decode(ids + expected)[len("<s>" + PROMPT) :]
        assert ours.evaluate(PROMPT).nats == pytest.approx(float(np.sum(plain.decoder.score(ids))), rel=1e-6)
        assert ours.evaluate(PROMPT).tokens == len(ids) - 1, "the begin token is put in front once"


@pytest.mark.parametrize(("pre", "says"), [("llama-bpe", True), ("gpt-2", False)])
def test_a_gguf_file_without_add_bos_token_is_read_as_llama_cpp_reads_it(pre: str, says: bool, tmp_path: Path) -> None:
    export_gguf(make("tied", tokens=tokenizer(pre)), tmp_path / "m.gguf")
    changed = changed_gguf(tmp_path / "m.gguf", tmp_path / "n.gguf", add_bos_token=None)
    with LlamaCpp(changed) as theirs, load(changed, n_threads=1) as ours:
        assert theirs.adds_bos is says
        assert ours.encode("cat", special_tokens=True) == theirs.tokenize("cat")


def test_rules_that_llama_cpp_does_not_have_are_noted(tmp_path: Path) -> None:
    model = with_begin(after=True)
    described = json.loads(model.tokenizer or b"")
    described["post_processor"] = template([("<s>", 500), ("</s>", 501)], [])
    odd = dataclasses.replace(model, tokenizer=json.dumps(described).encode())
    (note,) = export_gguf(odd, tmp_path / "m.gguf").notes
    assert "puts the tokens [500, 501] before and [] after a text" in note


@pytest.mark.oracle_torch
@pytest.mark.parametrize("flags", [{"add_bos_token": True}, {"add_bos_token": False}, {"add_eos_token": True}, {}])
@pytest.mark.parametrize("before", [False, True])
def test_flags_of_tokenizer_config_have_the_effect_they_have_in_transformers(
    flags: dict[str, bool], before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like transformers 5, toynn takes the rules from tokenizer.json and ignores the flags."""
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    from transformers import AutoTokenizer

    export_hf(with_begin(before), tmp_path / "hf")
    path = tmp_path / "hf" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **flags}))
    theirs = AutoTokenizer.from_pretrained(str(tmp_path / "hf"))(PROMPT)["input_ids"]
    with load(tmp_path / "hf", n_threads=1) as ours:
        assert ours.encode(PROMPT, special_tokens=True) == theirs
    export_hf(import_hf(tmp_path / "hf"), tmp_path / "again")
    assert AutoTokenizer.from_pretrained(str(tmp_path / "again"))(PROMPT)["input_ids"] == theirs


def test_a_rule_with_an_id_outside_the_vocabulary_is_refused(tmp_path: Path) -> None:
    described = json.loads(tokenizer())
    described["post_processor"] = template([("x", 4_000_000)], [])
    write_checkpoint(tmp_path / "run", dataclasses.replace(make("tied"), tokenizer=json.dumps(described).encode()))
    with pytest.raises(ValueError, match=f"needs 4000001 ids, but the vocabulary of the model has only {VOCAB}"):
        load(tmp_path / "run", n_threads=1)


def test_the_rules_give_the_same_tokens_as_the_library(tmp_path: Path) -> None:
    """toynn reads the rules from the post-processor, so they must give the same tokens as the tokenizers library."""
    for before, after in ((True, False), (True, True), (False, False)):
        model = Tokenizer.from_str((with_begin(before, after).tokenizer or b"").decode())
        around = tokens_around(model)
        plain = model.encode("cat", add_special_tokens=False).ids
        assert model.encode("cat").ids == [*around.before, *plain, *around.after]


# ---- settings that a round trip keeps ----

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
FOREIGN = ForeignSettings(
    name="Tiny Cat",
    license="apache-2.0",
    chat_template=TEMPLATE,
    pad_id=3,
    tokenizer_config=json.dumps({"model_max_length": 99, "padding_side": "left"}),
    generation_config=json.dumps({"temperature": 0.6, "top_p": 0.9, "do_sample": True}),
)


def test_a_gguf_file_keeps_all_settings_of_an_imported_model(tmp_path: Path) -> None:
    model = with_begin(other_eos_ids=(7, 9), foreign=FOREIGN)
    export_gguf(model, tmp_path / "m.gguf")
    back = import_gguf(tmp_path / "m.gguf")
    assert (back.end_ids, back.bos_id, back.foreign) == ((501, 7, 9), 500, FOREIGN)
    with LlamaCpp(tmp_path / "m.gguf") as theirs:
        assert all(theirs.is_end(token) for token in (7, 9, 501))
    more = dataclasses.replace(model, other_eos_ids=(7, 9, 11))
    assert "[11] are left out" in export_gguf(more, tmp_path / "n.gguf").notes[0]


SAMPLING = {
    "temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.05, "penalty_repeat": 1.1, "penalty_last_n": 32,
    "mirostat": 2, "mirostat_tau": 5.0, "mirostat_eta": 0.1, "xtc_probability": 0.5, "xtc_threshold": 0.1,
    "sequence": "kpt",
}  # fmt: skip


def test_sampling_defaults_are_written_for_llama_cpp_and_read_from_its_files(tmp_path: Path) -> None:
    others = {"do_sample": True, "repetition_penalty": 1.2}
    foreign = dataclasses.replace(FOREIGN, generation_config=json.dumps({**SAMPLING, **others}))
    export_gguf(with_begin(foreign=foreign), tmp_path / "m.gguf")
    with LlamaCpp(tmp_path / "m.gguf") as theirs:
        assert float(theirs.value("general.sampling.temp") or "") == pytest.approx(0.6)
        assert theirs.value("general.sampling.top_k") == "20"
        assert theirs.value("general.sampling.sequence") == "kpt"
    assert json.loads(import_gguf(tmp_path / "m.gguf").foreign.generation_config) == {**SAMPLING, **others}
    changed = changed_gguf(tmp_path / "m.gguf", tmp_path / "n.gguf", **{"toynn.generation_config": None})
    # the changed file is like a file from the converter of llama.cpp, without keys of toynn
    model = import_gguf(changed)
    assert json.loads(model.foreign.generation_config) == SAMPLING
    export_hf(model, tmp_path / "hf")
    written = json.loads((tmp_path / "hf" / "generation_config.json").read_text())
    assert {key: written[key] for key in SAMPLING} == SAMPLING


@pytest.mark.parametrize(
    ("config", "left_out"),
    [
        ({"temperature": "hot", "top_k": 2.5, "top_p": True, "sequence": 1}, ("temp", "top_k", "top_p", "sequence")),
        ({"top_k": 2**40, "temperature": 10**400, "min_p": float("nan")}, ("top_k", "temp", "min_p")),
    ],
)
def test_sampling_defaults_of_other_types_are_kept_but_not_written_for_llama_cpp(
    config: dict[str, Any], left_out: tuple[str, ...], tmp_path: Path
) -> None:
    foreign = dataclasses.replace(FOREIGN, generation_config=json.dumps(config))
    export_gguf(with_begin(foreign=foreign), tmp_path / "m.gguf")
    fields = GGUFReader(tmp_path / "m.gguf").fields
    assert not [key for key in left_out if f"general.sampling.{key}" in fields]
    assert import_gguf(tmp_path / "m.gguf").foreign == foreign


def test_a_gguf_file_contains_its_name_size_and_license(tmp_path: Path) -> None:
    export_gguf(with_begin(), tmp_path / "cat.gguf")
    fields = GGUFReader(tmp_path / "cat.gguf").fields
    assert fields["general.name"].contents() == "cat"
    assert fields["general.size_label"].contents() == "135K"
    assert "general.license" not in fields
    export_gguf(with_begin(foreign=FOREIGN), tmp_path / "named.gguf", name="Other")
    fields = GGUFReader(tmp_path / "named.gguf").fields
    assert (fields["general.name"].contents(), fields["general.license"].contents()) == ("Other", "apache-2.0")


def test_a_hugging_face_folder_keeps_all_settings_through_a_run(tmp_path: Path) -> None:
    export_hf(with_begin(other_eos_ids=(7,), foreign=FOREIGN), tmp_path / "Tiny Cat")
    (tmp_path / "Tiny Cat" / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Cat\n")
    imported = import_hf(tmp_path / "Tiny Cat")
    write_checkpoint(tmp_path / "run", imported)
    kept = load_checkpoint(tmp_path / "run").model
    assert kept.foreign.license == "apache-2.0"
    assert (kept.end_ids, kept.foreign) == (imported.end_ids, imported.foreign)
    export_hf(kept, tmp_path / "again")
    for name in ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_text() == (tmp_path / "Tiny Cat" / name).read_text(), name
    generation = json.loads((tmp_path / "again" / "generation_config.json").read_text())
    assert generation == {
        "temperature": 0.6, "top_p": 0.9, "do_sample": True,
        "bos_token_id": 500, "eos_token_id": [501, 7], "pad_token_id": 3,
    }  # fmt: skip
    tokens = json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())
    assert tokens["chat_template"] == TEMPLATE
    assert (tokens["bos_token"], tokens["eos_token"], tokens["add_bos_token"]) == ("<s>", "</s>", True)
    with load(tmp_path / "run", n_threads=1) as model:
        assert model.end_ids == (501, 7)
        model.save(tmp_path / "saved", format="hf")
    assert (tmp_path / "saved" / "config.json").read_text() == (tmp_path / "again" / "config.json").read_text()


def test_the_template_in_its_own_file_and_end_tokens_only_for_generation_are_read(tmp_path: Path) -> None:
    export_hf(with_begin(), tmp_path / "hf")
    (tmp_path / "hf" / "chat_template.jinja").write_text(TEMPLATE)
    path = tmp_path / "hf" / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": [7, 501]}))
    model = import_hf(tmp_path / "hf")
    assert (model.foreign.chat_template, model.end_ids) == (TEMPLATE, (501, 7))
    path.write_text(json.dumps({"eos_token_id": 512}))
    with pytest.raises(ValueError, match=r"generation_config\.json: eos_token_id must be an integer from 0 to 511"):
        import_hf(tmp_path / "hf")


# ---- settings that training keeps ----


@pytest.mark.parametrize("kind", ["byte level", "sentencepiece"])
def test_all_settings_survive_import_training_and_export_in_both_formats(kind: str, tmp_path: Path) -> None:
    """The model of a GGUF file is written to a folder and trained. The result is written to a GGUF file and to a
    folder.
    """
    if kind == "byte level":
        base = with_begin(other_eos_ids=(7, 9), foreign=FOREIGN)
    else:
        base = dataclasses.replace(model_of(lists_of(trained())), other_eos_ids=(300, 301), foreign=FOREIGN)
    settings = dataclasses.replace(FOREIGN, name="")
    export_gguf(base, tmp_path / "m.gguf")
    imported = import_gguf(tmp_path / "m.gguf")
    export_hf(imported, tmp_path / "hf")
    data = tmp_path / "data"
    (tmp_path / "t.txt").write_text("The cat sat on the mat.\n<|endoftext|>\n" * 300)
    prepare([tmp_path / "t.txt"], data, tokenizer=tmp_path / "hf", eos="</s>", separator="<|endoftext|>")
    train(data, tmp_path / "run", init=tmp_path / "hf", steps=1, batch=1, t_seq=16, progress=False)
    with load(tmp_path / "run", n_threads=1) as model:
        model.save(tmp_path / "again.gguf")
        model.save(tmp_path / "again", format="hf")
    for back in (import_gguf(tmp_path / "again.gguf"), import_hf(tmp_path / "again")):
        assert (back.tokenizer, back.bos_id, back.end_ids) == (imported.tokenizer, base.bos_id, base.end_ids)
        kept = dataclasses.replace(back.foreign, name="", license=settings.license)
        ours, theirs = (json.loads(one.generation_config) for one in (kept, settings))
        assert ours == theirs
        assert json.loads(kept.tokenizer_config).items() >= json.loads(settings.tokenizer_config).items()
        assert (kept.chat_template, kept.pad_id) == (settings.chat_template, settings.pad_id)


def test_training_replaces_no_special_token_and_notes_what_it_adds(tmp_path: Path) -> None:
    model = with_begin(other_eos_ids=(7,), foreign=FOREIGN)
    write_checkpoint(tmp_path / "base", model)
    (tmp_path / "t.txt").write_text("".join(f"The cat sat on mat {i}.\n<|endoftext|>\n" for i in range(400)))
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_without_rules(model))
    for eos, ends in (("</s>", (501, 7)), ("<|endoftext|>", (501, 7, 0))):
        data, run = tmp_path / f"data{len(ends)}", tmp_path / f"run{len(ends)}"
        prepare([tmp_path / "t.txt"], data, tokenizer=tmp_path / "tokenizer.json", eos=eos,
                separator="<|endoftext|>")  # fmt: skip
        events: list[Event] = []
        train(data, run, init=tmp_path / "base", steps=1, batch=1, t_seq=16, progress=False, callbacks=[events.append])
        notes = " ".join(next(event for event in events if isinstance(event, Started)).notes)
        assert ("generation will stop at both" in notes) is (len(ends) == 3)
        assert "puts '<s>' before a prompt, but the documents of the data do not begin with it" in notes
        assert (
            "exported files will have the name of the run, not 'Tiny Cat', the name of the model before training"
            in notes
        )
        trained = load_checkpoint(run).model
        assert (trained.bos_id, trained.eos_id, trained.end_ids) == (500, 501, ends)
        assert trained.tokenizer == model.tokenizer
        assert trained.foreign == dataclasses.replace(FOREIGN, name="")
        train(data, run, resume=True, steps=2, progress=False)
        assert load_checkpoint(run).model.end_ids == ends


def test_tokens_that_the_tokenizer_of_the_data_adds_enlarge_the_model(tmp_path: Path) -> None:
    larger = Tokenizer.from_str(tokenizer().decode())
    size = larger.get_vocab_size()
    larger.add_special_tokens(["<|new0|>", "<|new1|>"])
    larger.save(str(tmp_path / "tokenizer.json"))
    described = json.loads(tokenizer())
    described["post_processor"] = template([("<|endoftext|>", 0)], [])
    model = make("untied", tokens=json.dumps(described).encode(), vocab=size)
    write_checkpoint(tmp_path / "base", model)
    (tmp_path / "t.txt").write_text("The cat sat <|new1|> on the mat.\n" * 300)
    prepare([tmp_path / "t.txt"], tmp_path / "data", tokenizer=tmp_path / "tokenizer.json")
    events: list[Event] = []
    train(tmp_path / "data", tmp_path / "run", init=tmp_path / "base", steps=1, batch=1, t_seq=16, progress=False,
          callbacks=[events.append])  # fmt: skip
    notes = " ".join(next(event for event in events if isinstance(event, Started)).notes)
    assert "has 2 more tokens than the tokenizer of the model ('<|new0|>', '<|new1|>')" in notes
    assert (
        f"the vocabulary grows from {size} to {size + 2}, and each new row of the embedding is the mean of the old rows"
        in notes
    )
    with load(tmp_path / "run", n_threads=1) as trained:
        assert trained.shape.vocab == size + 2
        assert trained.encode("<|new1|>", special_tokens=True) == [0, size + 1]
    train(tmp_path / "data", tmp_path / "run", resume=True, steps=2, progress=False)


def notes_of(data: Path, run: Path, init: Path | None) -> str:
    """Train for a step, and return the notes of the run."""
    events: list[Event] = []
    sizes: dict[str, Any] = {} if init else {"d_model": 32, "n_layers": 1, "n_heads": 2, "n_kv": 2, "d_ff": 32}
    train(data, run, init=init, steps=1, batch=1, t_seq=16, progress=False, callbacks=[events.append], **sizes)
    return " ".join(next(event for event in events if isinstance(event, Started)).notes)


def with_rules(content: bytes, before: list[tuple[str, int]], after: list[tuple[str, int]]) -> bytes:
    return json.dumps({**json.loads(content), "post_processor": template(before, after)}).encode()


def prepared(folder: Path, content: bytes) -> Path:
    """Make a data folder with this tokenizer."""
    folder.with_suffix(".json").write_bytes(content)
    folder.with_suffix(".txt").write_text("The cat sat on the mat.\n<|endoftext|>\n" * 300)
    prepare([folder.with_suffix(".txt")], folder, tokenizer=folder.with_suffix(".json"))
    return folder


@pytest.mark.parametrize("added", [[], ["<new>"]])
def test_a_begin_rule_of_the_data_that_the_model_does_not_have_is_noted(added: list[str], tmp_path: Path) -> None:
    theirs = Tokenizer.from_str(tokenizer().decode())
    theirs.add_special_tokens(["<s>", "</s>"])
    size = theirs.get_vocab_size()
    base = with_rules(theirs.to_str().encode(), [], [("</s>", size - 1)])
    write_checkpoint(tmp_path / "base", make("untied", tokens=base, vocab=size))
    theirs.add_special_tokens(added)
    rules = with_rules(theirs.to_str().encode(), [("<s>", size - 2)], [])
    data = prepared(tmp_path / "data", rules)
    notes = notes_of(data, tmp_path / "run", tmp_path / "base")
    assert (
        "the tokenizer of the data puts '<s>' before and nothing after a text, but the model's tokenizer puts nothing "
        "before and '</s>' after it; the run keeps the rule of the model" in notes
    )
    assert ("has 1 more token than the tokenizer of the model" in notes) is bool(added)
    trained = load_checkpoint(tmp_path / "run").model
    assert tokens_around(parsed_tokenizer(trained.tokenizer or b"")) == TokensAround([], [size - 1])
    same = prepared(tmp_path / "same", with_rules(rules, [], [("</s>", size - 1)]))
    assert "keeps the rule" not in notes_of(same, tmp_path / "run2", tmp_path / "base")


def test_a_run_from_random_weights_begins_its_texts_with_the_token_of_the_rules(tmp_path: Path) -> None:
    data = prepared(tmp_path / "data", with_rules(tokenizer(), [("<s>", 7)], []))
    meta = json.loads((data / "meta.json").read_text())
    assert (meta["bos_id"], meta["eos_id"]) == (7, 0)
    notes = notes_of(data, tmp_path / "run", None)
    assert re.search("the tokenizer of the data puts .* before a prompt, but the documents of the data do not", notes)
    plain = prepared(tmp_path / "plain", tokenizer())
    assert json.loads((plain / "meta.json").read_text())["bos_id"] == 0
    assert "puts" not in notes_of(plain, tmp_path / "run2", None)
    ended = prepared(tmp_path / "ended", with_rules(tokenizer(), [("<|endoftext|>", 0)], []))
    assert "do not begin" not in notes_of(ended, tmp_path / "run3", None), "each follows the end of the one before"
    with load(tmp_path / "run", n_threads=1) as model:
        model.save(tmp_path / "m.gguf")
        assert model.start_id == 7
        nats = model.evaluate(PROMPT).nats
    with load(tmp_path / "m.gguf", n_threads=1) as back:
        assert back.start_id == 7
        assert back.evaluate(PROMPT).nats == nats


@pytest.mark.parametrize("bos", [None, 5])
@pytest.mark.parametrize("rules", [[], [("<s>", 500)], [("<s>", 500), ("</s>", 501)]])
@pytest.mark.parametrize("has_tokenizer", [True, False])
def test_the_begin_token_is_the_same_after_gguf(
    bos: int | None, rules: list[tuple[str, int]], has_tokenizer: bool, tmp_path: Path
) -> None:
    model = dataclasses.replace(with_begin(), bos_id=bos)
    content = with_rules(model.tokenizer or b"", rules, []) if has_tokenizer else None
    model = dataclasses.replace(model, tokenizer=content)
    export_gguf(model, tmp_path / "m.gguf")
    back = import_gguf(tmp_path / "m.gguf")
    assert (back.bos_id, back.eos_id) == (bos, 501)
    if has_tokenizer:
        assert tokens_around(parsed_tokenizer(back.tokenizer or b"")).before == [token for _, token in rules]
    with LlamaCpp(tmp_path / "m.gguf") as theirs:
        if has_tokenizer:
            assert theirs.tokenize(PROMPT)[0] == (500 if len(rules) == 1 else parsed_ids(model, PROMPT)[0])


@pytest.mark.parametrize(
    ("key", "kind", "value", "mentions"),
    [
        ("before", GGUFValueType.ARRAY, [VOCAB], "before must be an integer from 0 to 511, got 512"),
        ("after", GGUFValueType.ARRAY, [-1], "after must be an integer from 0 to 511, got -1"),
        ("normalizes", GGUFValueType.UINT32, 1, "normalizes must be true or false, got 1"),
        ("normalized", GGUFValueType.STRING, "1", "normalized must be an array of integers, got '1'"),
    ],
)
def test_wrong_values_of_the_keys_of_toynn_are_refused(
    key: str, kind: GGUFValueType, value: object, mentions: str, tmp_path: Path
) -> None:
    class Writer(GGUFWriter):
        def add_tokenizer_pre(self, pre: str) -> None:
            super().add_tokenizer_pre(pre)
            self.add_key_value(f"toynn.tokenizer.{key}", value, kind, sub_type=GGUFValueType.INT32)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toynn.interop.gguf_export.GGUFWriter", Writer)
        export_gguf(make("tied"), tmp_path / "m.gguf")
    with pytest.raises(ValueError, match=rf"m\.gguf: .*toynn\.tokenizer\.{mentions}"):
        import_gguf(tmp_path / "m.gguf")


def parsed_ids(model: TrainedModel, text: str) -> list[int]:
    ids: list[int] = Tokenizer.from_str((model.tokenizer or b"").decode()).encode(text, add_special_tokens=False).ids
    return ids


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
@pytest.mark.parametrize("form", ["gguf", "hf", "larger"])
def test_data_fits_the_model_in_each_of_its_forms(pre: str, form: str, tmp_path: Path) -> None:
    """Files of one tokenizer can differ, so toynn compares the rules: for words, tokens and normalization."""
    theirs = Tokenizer.from_str(tokenizer(pre).decode())
    theirs.add_tokens(["<a b>"])  # this token is in the list of added tokens, but not in the vocabulary of the model
    described = json.loads(theirs.to_str())
    described["decoder"]["add_prefix_space"] = False
    described["model"].update(continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=True)
    described["normalizer"] = None
    content = json.dumps(described).encode()
    size = theirs.get_vocab_size()
    model = make("tied", tokens=content, vocab=size)
    data = prepared(tmp_path / "data", content)
    out = tmp_path / ("m.gguf" if form != "hf" else "hf")
    if form == "hf":
        export_hf(model, out)
    else:
        export_gguf(model, out)
        assert load_bytes(out) != content
    if form == "larger":
        theirs.add_special_tokens(["<new>"])
        data = prepared(tmp_path / "data2", json.dumps({**json.loads(theirs.to_str()), "normalizer": None}).encode())
    notes = notes_of(data, tmp_path / "run", out)
    assert ("has 1 more token than" in notes) is (form == "larger")
    assert load_checkpoint(tmp_path / "run").model.shape.vocab == size + (form == "larger")


def load_bytes(path: Path) -> bytes:
    return import_gguf(path).tokenizer or b""


def tokenizer_without_rules(model: TrainedModel) -> bytes:
    return json.dumps({**json.loads(model.tokenizer or b""), "post_processor": None}).encode()
