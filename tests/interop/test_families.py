"""Models of each architecture compared with transformers' own classes: logits, gradients, and refused models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from engines import realized
from interop_models import ROPE_PARAMETERS, VOCAB, assert_same_model, change_config, logits_of, make
from toynn import AdamW, LlamaSeqEngine, RopeScaling, TinyNNValueError, labels
from toynn.interop import GgufBase, export_gguf, export_hf, export_toy, import_hf
from toynn.interop.families import FAMILIES
from toynn.llm.layouts import to_fused, to_per_head
from toynn.model.shape import ARCHITECTURES
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import weights_of

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")
pytestmark = [pytest.mark.other_programs, pytest.mark.oracle_torch]

BOUND = 5e-4  # allowed difference of logits, which reach about 10
IDS = np.random.default_rng(0).integers(0, VOCAB, 200).tolist()
T_SEQ, T_BATCH = 23, 2

OWN_HEADS: dict[str, Any] = {"n_heads": 6, "n_kv": 3, "head_dim": 10, "untied": True}
# For each architecture except llama, the models to test. A model is the name of a shape in `interop_models`, and the
# fields of this shape that the test replaces.
MODELS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "qwen2": [("qwen2", {}), ("qwen2", OWN_HEADS)],
    "qwen3": [("qwen3", {})],
    "smollm3": [("smollm3", {}), ("smollm3", {"no_rope_interval": 2, "untied": True})],
    "gemma3": [("gemma3", {}), ("gemma3", {"query_pre_attn_scalar": 9, "global_interval": 6, "untied": False})],
}
# Values that a configuration of transformers needs besides the sizes.
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen3": {"head_dim": 20},
    "smollm3": {"no_rope_layer_interval": 2},
    "gemma3": {"head_dim": 20, "sliding_window": 50, "sliding_window_pattern": 2, "query_pre_attn_scalar": 33},
}

each_model = pytest.mark.parametrize(("name", "changes"), [model for models in MODELS.values() for model in models])
each_architecture = pytest.mark.parametrize("architecture", MODELS)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep transformers from using the network and from showing progress."""
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    monkeypatch.setitem(os.environ, "HF_HUB_DISABLE_PROGRESS_BARS", "1")


def test_every_architecture_is_tested_here() -> None:
    assert list(FAMILIES) == list(ARCHITECTURES) == ["llama", *MODELS]


# ---- transformers' own classes ----


def gradients_of_transformers(
    model: TrainedModel, folder: Path, ids: npt.NDArray[np.int32], targets: npt.NDArray[np.int32]
) -> tuple[float, dict[str, npt.NDArray[np.float64]]]:
    """Return the loss and the gradients by toynn's names, computed by transformers' class in float64."""
    export_hf(model, folder)
    return gradients_in(folder, FAMILIES[model.shape.architecture].hf_class, model, ids, targets)


def gradients_in(
    folder: Path, hf_class: str, model: TrainedModel, ids: npt.NDArray[np.int32], targets: npt.NDArray[np.int32]
) -> tuple[float, dict[str, npt.NDArray[np.float64]]]:
    """Return the loss and the gradients of the folder's model, which this class of transformers computes."""
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").double()
    assert type(theirs).__name__ == hf_class
    logits = theirs(torch.tensor(ids.reshape(T_BATCH, T_SEQ).astype(np.int64))).logits
    wanted = torch.tensor(targets.astype(np.int64))
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, VOCAB), wanted, ignore_index=-1)
    loss.backward()
    by_name = dict(theirs.named_parameters())
    return float(loss.detach()), {
        weight.name: by_name[weight.hf_name].grad.numpy() for weight in weights_of(model.shape)
    }


@each_model
@pytest.mark.parametrize("layout", ["fused", "per_head"])
def test_loss_and_every_gradient_agree_with_transformers_in_float64(
    name: str, changes: dict[str, Any], layout: str, tmp_path: Path
) -> None:
    model = make(name, **changes)
    ids = np.array(IDS[: T_SEQ * T_BATCH], dtype=np.int32)
    targets = labels.targets(ids, VOCAB, T_SEQ, T_BATCH)
    check_gradients(model, layout, ids, targets, gradients_of_transformers(model, tmp_path / "hf", ids, targets))


def check_gradients(
    model: TrainedModel, layout: str, ids: npt.NDArray[np.int32], targets: npt.NDArray[np.int32],
    expected: tuple[float, dict[str, npt.NDArray[np.float64]]],
) -> None:  # fmt: skip
    """Compare the loss and the gradients of a model in this layout with the expected ones."""
    want_loss, want = expected
    fused = layout == "fused"
    with realized(model.shape, t_seq=T_SEQ, t_batch=T_BATCH, layout=layout) as engine:
        for weight, start in (model.weights if fused else to_per_head(model.weights, model.shape)).items():
            engine.upload_weight(weight, start)
        engine.build_training_step(pin=not fused, keep_gradients=fused)
        loss, _ = engine.train_step(ids, targets, AdamW(lr=0.0).hp(1))
        found = {weight: engine.gradient(weight) for weight in engine.param_names()}
    assert loss == pytest.approx(want_loss, rel=2e-6)
    gradients = found if fused else to_fused(found, model.shape)
    assert set(gradients) == set(want)
    for weight, values in want.items():
        bound = 5e-5 * np.abs(values).max()
        np.testing.assert_allclose(gradients[weight], values, rtol=0, atol=bound, err_msg=weight)


@each_architecture
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rope", ROPE_PARAMETERS)
def test_a_model_saved_by_transformers_is_imported_with_the_same_logits(
    architecture: str, tied: bool, rope: str, tmp_path: Path
) -> None:
    family, parameters = FAMILIES[architecture], dict(ROPE_PARAMETERS[rope])
    if family.windows:
        local = {"rope_theta": 30.0, "rope_type": "default"}
        parameters = {"full_attention": parameters, "sliding_attention": local}
    config = transformers.AutoConfig.for_model(
        family.model_type or architecture, vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-4,
        tie_word_embeddings=tied, rope_parameters=parameters, bos_token_id=None, eos_token_id=None,
        pad_token_id=None, **CONFIGS[architecture],
    )  # fmt: skip
    torch.manual_seed(1)
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.normal_(float("norm" in name and not family.norms_without_one), 0.25)
        expected = theirs(torch.tensor([IDS])).logits[0].numpy()
    theirs.save_pretrained(tmp_path / "hf")
    back = import_hf(tmp_path / "hf")
    assert (back.shape.architecture, back.shape.untied) == (architecture, not tied)
    assert np.abs(expected).max() > 5, "the logits are too small for a meaningful comparison"
    np.testing.assert_allclose(logits_of(back, IDS), expected, rtol=0, atol=BOUND)


@each_architecture
def test_a_mapped_file_has_the_logits_of_the_model(architecture: str, tmp_path: Path) -> None:
    model, ids = make(architecture), IDS[:T_SEQ]
    export_gguf(model, tmp_path / "m.gguf")
    with GgufBase(tmp_path / "m.gguf") as base, LlamaSeqEngine() as engine:
        assert base.shape == model.shape
        engine.realize_for_mmap(base, base.shape, T_SEQ, base.shape.untied, base.shape.qkv_bias)
        np.testing.assert_allclose(engine.forward(ids), logits_of(model, ids), rtol=0, atol=BOUND)


# ---- mistral folders, which are read as llama models ----


def mistral_folder(model: TrainedModel, folder: Path, **changes: Any) -> Path:
    export_hf(model, folder)
    kind: dict[str, Any] = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "attention_bias": ...}
    change_config(folder, **{**kind, "mlp_bias": ..., "sliding_window": None, **changes})
    return folder


def test_the_class_of_mistral_computes_a_llama_model(tmp_path: Path) -> None:
    model = make("head_dim of its own", untied=True)
    folder = mistral_folder(model, tmp_path / "hf")
    back = import_hf(folder)
    assert_same_model(back, model)
    ids = np.array(IDS[: T_SEQ * T_BATCH], dtype=np.int32)
    targets = labels.targets(ids, VOCAB, T_SEQ, T_BATCH)
    check_gradients(back, "fused", ids, targets, gradients_in(folder, "MistralForCausalLM", model, ids, targets))


@pytest.mark.parametrize("window", [None, 64])
def test_a_mistral_model_saved_by_transformers_is_imported_unless_it_has_a_window(
    window: int | None, tmp_path: Path
) -> None:
    config = transformers.MistralConfig(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=10, max_position_embeddings=256, rms_norm_eps=1e-4, sliding_window=window,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(2)
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.25)
        expected = theirs(torch.tensor([IDS])).logits[0].numpy()
    theirs.save_pretrained(tmp_path / "hf")
    if window is not None:
        with pytest.raises(TinyNNValueError, match="sliding_window is 64, but toynn supports only None"):
            import_hf(tmp_path / "hf")
        return
    back = import_hf(tmp_path / "hf")
    assert (back.shape.architecture, back.shape.untied, back.shape.head_dim) == ("llama", True, 10)
    np.testing.assert_allclose(logits_of(back, IDS), expected, rtol=0, atol=BOUND)


@pytest.mark.parametrize(
    ("changes", "mentions"),
    [
        # a missing key means the default of the class, which is a window
        ({"sliding_window": ...}, "sliding_window is 4096, but toynn supports only None"),
        ({"attention_bias": True}, "attention_bias is True, but toynn supports only False"),
        ({"num_key_value_heads": ...}, "the key num_key_value_heads is missing"),
        ({"architectures": ["LlamaForCausalLM"]}, "model_type is 'mistral', whose class is 'MistralForCausalLM'; both"),
    ],
)
def test_an_unsupported_config_of_mistral_is_refused(changes: dict[str, Any], mentions: str, tmp_path: Path) -> None:
    folder = mistral_folder(make("gqa"), tmp_path / "hf", **changes)
    with pytest.raises(TinyNNValueError, match=mentions):
        import_hf(folder)


# ---- refused models ----


COMMON: list[tuple[dict[str, Any], str]] = [
    ({"hidden_act": "gelu"}, "hidden_act is 'gelu', but toynn supports only 'silu'"),
    ({"attention_dropout": 0.1}, "attention_dropout is 0.1, but toynn supports only 0.0"),
    ({"use_sliding_window": True}, "use_sliding_window is True, but toynn supports only False"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types contains 'sliding_attention', but toynn"),
    ({"layer_types": "full_attention"}, "layer_types must be a list, got 'full_attention'"),
    ({"num_key_value_heads": ...}, "the key num_key_value_heads is missing"),
    ({"architectures": ["LlamaForCausalLM"]}, r"architectures is \['LlamaForCausalLM'\], but model_type is '"),
]
REFUSED: dict[str, list[tuple[dict[str, Any], str]]] = {
    "qwen2": [*COMMON],
    "smollm3": [
        *COMMON,
        ({"no_rope_layers": [1, 1, 1, 1, 1]}, r"no_rope_layers\[3\] is 1, but toynn supports only lists that follow f"),
        ({"no_rope_layers": [1, 1, 1, 0]}, "no_rope_layers must be a list with a number for each layer, got"),
        ({"no_rope_layer_interval": 3}, r"no_rope_layers\[2\] is 1, but"),
        ({"no_rope_layer_interval": 0}, "no_rope_interval must be at least 1 with architecture = 'smollm3', got 0"),
        ({"no_rope_layer_interval": 2.0}, "no_rope_layer_interval must be an integer"),
        ({"mlp_bias": True}, "mlp_bias is True, but toynn supports only False"),
    ],
    "qwen3": [*COMMON, ({"attention_bias": True}, "attention_bias is True, but toynn supports only False")],
    "gemma3": [
        ({"model_type": "gemma3"}, "model_type is 'gemma3', but toynn supports only .*'gemma3_text'"),
        ({"hidden_activation": "gelu"}, "hidden_activation is 'gelu', but toynn supports only 'gelu_pytorch_tanh'"),
        ({"attn_logit_softcapping": 50.0}, r"attn_logit_softcapping is 50\.0, but toynn supports only None"),
        ({"final_logit_softcapping": 30.0}, r"final_logit_softcapping is 30\.0, but toynn supports only None"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention is True, but toynn supports only False"),
        ({"attention_bias": True}, "attention_bias is True, but toynn supports only False"),
        ({"attention_dropout": 0.1}, r"attention_dropout is 0\.1, but toynn supports only 0\.0"),
        ({"sliding_window": None}, "the key sliding_window is missing"),
        ({"sliding_window": 0}, "sliding_window must be an integer from 1 to 2147483647, got 0"),
        ({"sliding_window": 2.5}, "sliding_window must be an integer"),
        ({"query_pre_attn_scalar": 0}, "query_pre_attn_scalar must be an integer from 1 to 2147483647, got 0"),
        ({"rope_local_base_freq": -1.0}, "local_rope_base"),
        (
            {"layer_types": ["full_attention"] * 3 + ["sliding_attention"]},
            r"layer_types\[3\] is 'sliding_attention', b",
        ),
        ({"layer_types": ["sliding_attention"] * 3}, "layer_types must have an entry for each of 4 layers, got 3"),
        ({"layer_types": ["sliding_attention"] * 3 + ["chunked"]}, r"layer_types\[3\] is 'chunked', but"),
        ({"layer_types": "full_attention"}, "layer_types must be a list, got 'full_attention'"),
        (
            {"layer_types": ..., "sliding_window_pattern": 0},
            "sliding_window_pattern must be an integer from 1 to 2147483647, got 0",
        ),
        (
            {"rope_parameters": {"rope_theta": 1e6}},
            "rope_parameters contains 'rope_theta', but in gemma3 it may contain",
        ),
        ({"rope_parameters": {"full_attention": 3}}, "rope_parameters must have a JSON object for each kind of layer"),
        (
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            "rope_parameters.sliding_attention.rope_type is 'linear', but toynn supports only 'default' in loc",
        ),
        (
            {"rope_parameters": {"sliding_attention": {"rope_theta": 7.0}}},
            r"rope_local_base_freq is 500\.0, but rope_parameters.sliding_attention.rope_theta is 7\.0",
        ),
    ],
}


@pytest.mark.parametrize(
    ("architecture", "changes", "mentions"),
    [(one, *case) for one, cases in REFUSED.items() for case in cases],
)
def test_an_unsupported_config_is_refused_by_the_name_of_its_key(
    architecture: str, changes: dict[str, Any], mentions: str, tmp_path: Path
) -> None:
    export_hf(make(architecture), tmp_path / "hf")
    change_config(tmp_path / "hf", **changes)
    with pytest.raises(TinyNNValueError, match=mentions):
        import_hf(tmp_path / "hf")


@pytest.mark.parametrize("architecture", [name for name in MODELS if not FAMILIES[name].windows])
def test_a_window_that_is_not_used_is_accepted(architecture: str, tmp_path: Path) -> None:
    """Configurations of published models contain sizes of attention windows, but these models use no windows."""
    model = make(architecture)
    export_hf(model, tmp_path / "hf")
    layers = ["full_attention"] * model.shape.n_layers
    change_config(
        tmp_path / "hf", sliding_window=4096, max_window_layers=1, use_sliding_window=False, layer_types=layers
    )
    assert import_hf(tmp_path / "hf").shape == model.shape


@each_architecture
def test_scaling_that_llama_cpp_lacks_is_refused_in_gguf_files_but_exported_to_a_folder(
    architecture: str, tmp_path: Path
) -> None:
    scaling = RopeScaling.llama3_hf(8.0, 1.0, 4.0, 64)
    model = make(architecture, rope_scaling=scaling, rope_base=100.0)
    with pytest.raises(TinyNNValueError, match=f"'llama', not for '{architecture}'; export a Hug"):
        export_gguf(model, tmp_path / "m.gguf")
    assert list(tmp_path.iterdir()) == []
    export_hf(model, tmp_path / "hf")
    assert import_hf(tmp_path / "hf").shape == model.shape


@each_architecture
def test_only_llama_models_are_exported_for_toy(architecture: str, tmp_path: Path) -> None:
    with pytest.raises(TinyNNValueError, match=f"architecture '{architecture}' cannot be exported for toy"):
        export_toy(make(architecture), tmp_path / "m.gguf")


def test_a_size_of_heads_that_llama_cpp_lacks_is_refused_in_gguf_files(tmp_path: Path) -> None:
    with pytest.raises(TinyNNValueError, match=r"head_dim = 10 cannot be exported .* d_model / n_heads = 10\.6667; ex"):
        export_gguf(make("qwen2", **OWN_HEADS), tmp_path / "m.gguf")
    assert list(tmp_path.iterdir()) == []


def test_another_interval_of_layers_without_rope_is_refused_in_gguf_files(tmp_path: Path) -> None:
    with pytest.raises(
        TinyNNValueError, match=r"no_rope_interval = 2 cannot be exported .* llama\.cpp always uses 4; exp"
    ):
        export_gguf(make("smollm3", no_rope_interval=2), tmp_path / "m.gguf")
    assert list(tmp_path.iterdir()) == []


def test_the_interval_alone_says_which_layers_have_no_rope(tmp_path: Path) -> None:
    export_hf(make("smollm3"), tmp_path / "hf")
    change_config(tmp_path / "hf", no_rope_layers=..., no_rope_layer_interval=...)
    shape = import_hf(tmp_path / "hf").shape
    assert [shape.has_rope(layer) for layer in range(5)] == [True, True, True, False, True]
