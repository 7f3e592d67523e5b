"""TrainConfig: round trips through TOML, errors that name keys, and checks of values."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from paths import EXAMPLES, ROOT
from toynn import ConfigurationError, TinyNNError, TinyNNTypeError, TinyNNValueError, TrainConfig
from toynn.extras import EXTRA_OF
from toynn.model.config import RopeScaling
from toynn.model.weights import weight_shapes
from toynn.training import AdapterArgs, CheckpointArgs, EvaluationArgs, ModelArgs, OptimizerArgs, ScheduleArgs, StepArgs
from toynn.training.key_names import SYNONYMS
from toynn.training.toml_config import Key, commented_toml, differences, from_toml, keys, read_config, to_toml

pytestmark = pytest.mark.quick

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

finite = st.floats(0, 1e30)


@st.composite
def configs(draw: st.DrawFn) -> TrainConfig:
    heads = draw(st.integers(1, 4))
    scaling = draw(st.sampled_from([RopeScaling.none(), RopeScaling.llama3(8.0, 1.0, 4.0, 8192)]))
    shape = ModelArgs(
        d_model=draw(st.integers(1, 9)) * heads * 2,
        n_heads=heads,
        n_kv=1,
        ctx=draw(st.integers(1, 99)),
        untied=draw(st.booleans()),
        init_scale=draw(st.floats(1e-3, 10)),
        embedding_std=draw(st.none() | st.floats(1e-3, 10)),
        rope_scaling=scaling,
    )
    return TrainConfig(
        draw(st.sampled_from([None, shape])),
        StepArgs(draw(st.integers(1, 10**6)), 0, draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(0))
                 % 2**31),
        OptimizerArgs(draw(finite), draw(st.floats(0, 0.99)), weight_decay=draw(finite), clip=draw(finite)),
        ScheduleArgs(draw(st.sampled_from(["constant", "cosine"])), draw(st.none() | st.integers(0, 99)), 3,
                     draw(st.floats(0, 1))),
        EvaluationArgs(draw(st.integers(0, 9)), min_delta=draw(finite),
                       prompts=draw(st.sampled_from([(), ("a",), ('x = "y"', "[train]\n# z", "")]))),
        CheckpointArgs(draw(st.integers(0, 9)), draw(st.integers(1, 9)), draw(st.booleans())),
        AdapterArgs(draw(st.integers(0, 9)), targets=draw(st.sampled_from([("q",), ("v", "k", "lm_head")])),
                    init_seed=draw(st.none() | st.integers(0, 9))),
    )  # fmt: skip


@given(configs())
def test_a_configuration_is_equal_after_a_round_trip_through_toml(config: TrainConfig) -> None:
    assert from_toml(to_toml(config)) == config
    assert differences(config, from_toml(to_toml(config))) == {}
    assert from_toml(commented_toml(config)) == config


def test_omitted_keys_have_their_defaults() -> None:
    assert from_toml("") == TrainConfig()
    assert from_toml("[optimizer]\nlr = 1\n").optimizer == OptimizerArgs(lr=1.0)


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        ("[optimzer]\nlr = 1", TinyNNValueError, "unknown key 'optimzer'; did you mean 'optimizer'"),
        ("[optimizer]\nlearning = 1", TinyNNValueError, "unknown key 'optimizer.learning'; known keys are opt"),
        ("[model.rope_scaling]\nfactr = 2", TinyNNValueError, "did you mean 'model.rope_scaling.factor'"),
        ("model = 3", TinyNNTypeError, "model must be a table of keys and values, got 3"),
        ("[optimizer]\nlr = 'fast'", TinyNNTypeError, r"optimizer\.lr must be a number"),
        ("[optimizer]\nlr = -1", TinyNNValueError, r"optimizer\.lr must be"),
        ("[optimizer]\nlr = nan", TinyNNValueError, r"optimizer\.lr must be"),
        ("[train]\nsteps = 1.5", TinyNNTypeError, r"train\.steps must be an integer"),
        ("[train]\nsteps = true", TinyNNTypeError, r"train\.steps must be an integer"),
        ("[train]\nsteps = 0", TinyNNValueError, r"train\.steps must be an integer from 1"),
        ("[model]\nn_heads = 3", TinyNNValueError, r"model\.n_kv must divide"),
        ("[model]\ndonor_d_in = 3", TinyNNValueError, r"model\.donor_d_in = 3 needs untied = True"),
        ("[model]\nuntied = 1", TinyNNTypeError, r"model\.untied must be true or false, got 1"),
        ("[schedule]\nkind = 'linear'", TinyNNValueError, r"schedule\.kind must be one of 'constant'"),
        ("[schedule]\nkind = 'wsd'\ndecay = 950", TinyNNValueError, r"schedule\.warmup \+ schedule\.decay"),
        ("[schedule]\nmin_ratio = 2", TinyNNValueError, r"schedule\.min_ratio"),
        ("[checkpoint]\nkeep_last = 0", TinyNNValueError, r"checkpoint\.keep_last"),
        ("[checkpoint]\nkeep_best = 0", TinyNNTypeError, r"checkpoint\.keep_best must be true or false"),
        ("[evaluation]\nmin_delta = inf", TinyNNValueError, r"evaluation\.min_delta"),
        ("x = ", TinyNNValueError, "is not valid TOML"),
    ],
)
def test_errors_name_the_key_as_in_the_file(content: str, error: type[TinyNNError], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        from_toml(content, "run.toml")
    assert str(caught.value).startswith("run.toml")


def test_single_keys_override_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[optimizer]\nlr = 0.5\n")
    words = ["optimizer.lr=1e-3", "schedule.kind=wsd", "model.rope_scaling.kind = 'llama3'", "schedule.warmup=0"]
    config = read_config(path, words)
    assert config.optimizer.lr == 1e-3
    assert config.schedule.kind == "wsd"
    assert config.model is not None
    assert config.model.rope_scaling.kind == "llama3"
    for wrong in ("lr=3", "optimizer.lr", "optimizer..lr=1", "=", "optimizer.lr.x=1", "optimizer.lrr=1"):
        with pytest.raises(TinyNNError):
            read_config(path, [wrong])


def test_differences_are_named_by_key() -> None:
    one = TrainConfig(ModelArgs())
    other = dataclasses.replace(one, optimizer=OptimizerArgs(lr=1.0), train=StepArgs(seed=4))
    assert differences(one, other) == {"optimizer.lr": (None, 1.0), "train.seed": (0, 4)}


def test_sections_of_a_wrong_type_are_refused() -> None:
    with pytest.raises(TinyNNTypeError, match="train must be StepArgs"):
        TrainConfig(train=OptimizerArgs())  # type: ignore[arg-type]
    with pytest.raises(TinyNNTypeError, match="model must be ModelArgs or None"):
        TrainConfig({})  # type: ignore[arg-type]


def test_the_quickstart_model_has_about_a_million_parameters() -> None:
    config = read_config(EXAMPLES / "quickstart.toml")
    assert config.model is not None
    shapes = weight_shapes(config.model.shape(vocab=2048))
    assert 0.9e6 < sum(math.prod(shape) for shape in shapes.values()) < 1.2e6


# ---- the documentation of the keys ----


def row(key: Key) -> str:
    computed = {
        "schedule.warmup": "steps / 10, at most 100",
        "train.epochs": "none",
        "model.init_scale": "0.12",
        "model.embedding_std": "0.02",
        "optimizer.lr": "by width and start",
        "optimizer.kind": "by start",
        "adapter.init_seed": "train.seed",
        "data.document_attention": "true for samples, false for plain text",
    }
    default = computed[key.name] if key.default is None else tomli_w.dumps({"x": key.default})[4:].strip()
    if isinstance(key.default, tuple):  # tomli_w writes a list in several lines
        default = json.dumps(key.default)
    return f"| `{key.name}` | {default} | {key.meaning} |"


def test_the_docs_have_a_table_of_every_key_its_default_and_its_meaning() -> None:
    lines = (ROOT / "docs" / "training.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("| key | default | meaning |") + 2
    wanted = [row(key) for key in keys()]
    assert lines[start : start + len(wanted)] == wanted, "the table should be\n" + "\n".join(wanted)
    assert not lines[start + len(wanted)].startswith("|")


@given(configs())
def test_comments_do_not_change_the_configuration(config: TrainConfig) -> None:
    shown = commented_toml(config)
    assert from_toml(shown) == config
    assert all("  # " in line for line in shown.splitlines() if " = " in line and not line.startswith(" "))


@given(configs())
def test_the_commented_configuration_names_every_key_in_its_section(config: TrainConfig) -> None:
    section, names = "", []
    for line in commented_toml(config).splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif found := re.match(r"(?:# )?(\w+) = ", line):
            names.append(f"{section}.{found[1]}")
    shown = [key.name for key in keys() if config.model is not None or not key.name.startswith("model.")]
    assert sorted(names) == sorted(shown)


def test_a_key_without_a_value_is_a_comment_with_its_meaning() -> None:
    shown = commented_toml(TrainConfig())
    assert "[train]\n# epochs = ...          # passes over the training tokens" in shown
    assert "[data]\n# document_attention = ...  # a token sees only tokens of its own document" in shown


def test_a_resolved_configuration_has_every_key() -> None:
    assert flat(tomllib.loads(to_toml(TrainConfig().explicit()))) == [
        key.name for key in keys() if key.name not in ("train.epochs", "data.document_attention")
    ]


@pytest.mark.parametrize(("epochs", "windows", "steps"), [(1.0, 80, 10), (0.5, 80, 5), (3.0, 81, 31), (0.1, 10, 1)])
def test_epochs_become_the_steps_that_read_them(epochs: float, windows: int, steps: int) -> None:
    config = TrainConfig(train=StepArgs(batch=4, accumulate=2, epochs=epochs))
    assert from_toml(to_toml(config)) == config
    assert "steps" not in tomllib.loads(to_toml(config))["train"]
    made = config.with_steps(windows)
    assert (made.train.steps, made.train.epochs) == (steps, None)
    assert made.explicit().schedule.warmup == steps // 10


def test_steps_and_epochs_exclude_each_other() -> None:
    for make in (lambda: StepArgs(steps=5, epochs=2.0), lambda: from_toml("[train]\nsteps = 1000\nepochs = 2\n")):
        with pytest.raises(ConfigurationError, match=r"train\.steps.* and train\.epochs.* cannot both be given"):
            make()
    assert from_toml("[train]\nsteps = 7\n", overrides=["train.epochs=2"]).train == StepArgs(epochs=2.0)
    assert from_toml("[train]\nepochs = 7\n", overrides=["train.steps=2"]).train == StepArgs(steps=2)
    with pytest.raises(ConfigurationError, match=r"cannot both be given"):
        from_toml("", overrides=["train.epochs=2", "train.steps=2"])
    with pytest.raises(ConfigurationError, match=r"train\.epochs = 1000000000000\.0 is too large"):
        TrainConfig(train=StepArgs(epochs=1e12)).with_steps(100)
    with pytest.raises(TinyNNError, match=r"train\.epochs must be a finite number above 0"):
        StepArgs(epochs=0.0)


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("optimizer.learning_rate=1", "'optimizer.lr'"),
        ("optimizer.max_grad_norm=1", "'optimizer.clip'"),
        ("train.batch_size=1", "'train.batch'"),
        ("train.max_steps=1", "'train.steps'"),
        ("train.num_train_epochs=1", "'train.epochs'"),
        ("train.lr=1", "'optimizer.lr'"),
        ("optimizer.warmup=1", "'schedule.warmup'"),
        ("optimizer.weight-decay=1", "'optimizer.weight_decay'"),
        ("schedule.warmup_steps=1", "'schedule.warmup'"),
        ("model.hidden_size=1", "'model.d_model'"),
        ("model.rope_scaling.factr=1", "'model.rope_scaling.factor'"),
        ("optimizr.lr=1", "'optimizer'"),
        ("batch_size=1", "train.batch=1"),
        ("Weight-Decay=0.1", "optimizer.weight_decay=0.1"),
        ("lr=1", "optimizer.lr=1"),
    ],
)
def test_a_name_of_another_program_suggests_the_key(override: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"did you mean {re.escape(meant)}\?"):
        from_toml("", overrides=[override])


def test_every_synonym_belongs_to_an_existing_key_and_to_one_only() -> None:
    names = [name for synonyms in SYNONYMS.values() for name in synonyms.split()]
    assert len(names) == len(set(names))
    known = {key.name for key in keys()}
    assert SYNONYMS.keys() <= known
    assert not set(names) & {name.rpartition(".")[2] for name in known if name.count(".") == 1}


def flat(table: dict[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for key, value in table.items():
        names += flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return names


def test_every_optional_library_belongs_to_an_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    brought: dict[str, set[str]] = {}
    for extra in ("cli", "plot", "interop", "parquet", "serve", "tensorboard", "wandb", "mlflow", "mpi"):
        for requirement in extras[extra]:
            # the package mlflow-skinny contains the module mlflow
            name = re.split(r"[<>=; ]", requirement)[0].replace("-", "_").removesuffix("_skinny")
            brought.setdefault(name, set()).add(extra)
    assert EXTRA_OF.keys() == brought.keys()
    assert all(extra in brought[module] for module, extra in EXTRA_OF.items())


@pytest.mark.parametrize(
    ("wanted", "library"),
    [
        ("TrainArgs", "safetensors"),
        ("load", "tokenizers"),
        ("data.prepare.prepare", "tokenizers"),
        ("storage.checkpoint.RunFolder", "safetensors"),
        ("interop.export_gguf", "gguf"),
        ("interop.import_hf", "safetensors"),
    ],
)
def test_the_error_of_a_missing_library_names_the_extra(wanted: str, library: str) -> None:
    module, _, name = f"toynn.{wanted}".rpartition(".")
    program = f"""
import sys
sys.modules[{library!r}] = None
try:
    from {module} import {name}
except ModuleNotFoundError as error:
    print(error.name, error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    extra = "interop" if wanted.startswith("interop.") else EXTRA_OF[library]
    assert done.stdout == (
        f"{library} {library} is not installed; run pip install '.[{extra}]' in the source folder of toynn\n"
    )
