"""Fine-tuning on a mapped GGUF file: the bits are those of fine-tuning on the dequantized model, for every type."""

from __future__ import annotations

from pathlib import Path

import pytest
from gguf import GGMLQuantizationType

from gguf_bytes import of_toy, tiny
from interop_models import SHAPES, decoder_of, make
from quantized import TYPES, quantized_base
from toynn import AdamW, LlamaDecoder, LlamaSeqEngine, RecipeOptions
from toynn import tinynn as nn
from toynn.interop import GgufBase, export_gguf, import_gguf
from toynn.llm.adapters.spec import AdapterSpec
from toynn.llm.options import PRECISIONS
from toynn.model.trained_model import TrainedModel

IDS = [0, 3, 1, 5, 2, 4, 4, 0]  # two sequences of four tokens
TARGETS = [3, 1, 5, 2, 4, 4, 0, 3]
SPEC = AdapterSpec(3, 6.0, False, ("q", "k", "v", "o", "gate", "up", "down"))


def trained(
    base: GgufBase | TrainedModel, n_threads: int, spec: AdapterSpec = SPEC, precision: str = "f32"
) -> tuple[object, ...]:
    """Return the losses of three steps, the adapter after them, and the logits."""
    options = RecipeOptions(4, 2, n_threads=n_threads, layout="fused", seed=5, precision=precision)
    with LlamaSeqEngine() as engine:
        engine.realize_with_adapter(base, spec, options, oversubscribe=True)
        types = {nn.tnn_tensor_dtype(one) for one in engine.weights.values()}
        assert len(types) > 1 or isinstance(base, TrainedModel)
        engine.build_training_step()
        hp = AdamW(lr=0.01)
        losses = [engine.train_step(IDS, TARGETS, hp.hp(i + 1), reset_moments=i == 0)[0] for i in range(3)]
        values = {name: engine.download_weight(name).tobytes() for name in engine.param_names()}
        assert set(values) == {one.name for one in spec.weights(base.shape)}
        return losses, values, engine.forward(IDS).tobytes()


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind.name != "F32"], ids=lambda kind: str(kind.name))
def test_training_on_a_quantized_file_has_the_bits_of_training_on_its_values(
    tmp_path: Path, kind: GGMLQuantizationType
) -> None:
    path = tmp_path / "base.gguf"
    path.write_bytes(quantized_base(kind, rotated=True).build())
    content = path.read_bytes()
    results = []
    for precision in PRECISIONS:
        want = trained(import_gguf(path), 1, precision=precision)
        with GgufBase(path) as base:
            for n_threads in (1, 3):
                assert trained(base, n_threads, precision=precision) == want
        results.append(want)
    assert results[0] != results[1]
    assert path.read_bytes() == content


@pytest.mark.parametrize("by_head", [False, True])
def test_files_of_toy_are_bases_too(tmp_path: Path, by_head: bool) -> None:
    """If the file has a tensor for each head, these tensors are joined; they cannot be mapped as one matrix."""
    path = tmp_path / "base.gguf"
    path.write_bytes(of_toy(by_head=by_head).build())
    spec = AdapterSpec(2, 6.0, True, ("q", "v"))
    with GgufBase(path) as base, LlamaSeqEngine() as engine, LlamaSeqEngine() as imported:
        for one, source in ((engine, base), (imported, import_gguf(path))):
            one.realize_with_adapter(source, spec, RecipeOptions(4, layout="fused", n_threads=1))
        assert engine.forward(IDS[:4]).tobytes() == imported.forward(IDS[:4]).tobytes()


def test_interleaved_rows_are_used_in_order(tmp_path: Path) -> None:
    path = tmp_path / "base.gguf"
    path.write_bytes(tiny().build())
    spec = AdapterSpec(1, 1.0, False, ("q",))
    with GgufBase(path) as base, LlamaSeqEngine() as engine, LlamaSeqEngine() as imported:
        for one, source in ((engine, base), (imported, import_gguf(path))):
            one.realize_with_adapter(source, spec, RecipeOptions(4, layout="fused", n_threads=1))
        assert engine.forward(IDS[:4]).tobytes() == imported.forward(IDS[:4]).tobytes()


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if not shape.get("donor_d_in")])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_models_of_each_family_are_decoded_from_a_mapped_file(tmp_path: Path, name: str, dtype: str) -> None:
    path = tmp_path / "base.gguf"
    export_gguf(make(name), path, dtype)
    model = import_gguf(path)
    ids = list(range(2, 12))
    with GgufBase(path) as base, LlamaDecoder.on_base(base, n_threads=2) as mapped, decoder_of(model) as decoder:
        assert mapped.feed(ids).tobytes() == decoder.feed(ids).tobytes()
        assert mapped.score(ids).tobytes() == decoder.score(ids).tobytes()
        for weight, values in mapped.download_weights().items():
            assert values.tobytes() == model.weights[weight].tobytes(), weight
