"""RecipeOptions: defaults, errors, and the sequence length that must be set."""

from __future__ import annotations

import math

import pytest

from toynn import RecipeOptions

pytestmark = pytest.mark.quick


def test_the_defaults_are_those_of_the_reference() -> None:
    opts = RecipeOptions()
    assert (opts.t_seq, opts.t_batch, opts.weight_dtype, opts.untied, opts.qkv_bias) == (0, 1, 0, False, False)
    assert (opts.seed, opts.init_scale, opts.init_stream, opts.n_threads) == (0, 1.0, "lcg31", None)
    assert opts.embedding_std == 0.02


def test_only_validate_refuses_a_missing_t_seq() -> None:
    opts = RecipeOptions()
    with pytest.raises(ValueError, match="t_seq must be the length of a sequence in tokens, at least 1, got 0"):
        opts.validate()
    opts.t_seq = 32
    opts.validate()


@pytest.mark.parametrize(
    ("field", "value", "error", "says"),
    [
        ("t_seq", -1, ValueError, "t_seq must be an integer from 0"),
        ("t_seq", 32.0, TypeError, "t_seq must be an integer, got 32.0"),
        ("t_batch", 0, ValueError, "t_batch must be an integer from 1"),
        ("weight_dtype", 2, ValueError, "weight_dtype must be one of 0 (F32), 1 (F16), 30 (BF16), got 2"),
        ("weight_dtype", True, TypeError, "weight_dtype must be an integer, got True (bool)"),
        ("untied", 1, TypeError, "untied must be True or False, got 1"),
        ("qkv_bias", None, TypeError, "qkv_bias must be True or False, got None"),
        ("seed", 1.5, TypeError, "seed must be an integer, got 1.5"),
        ("seed", 2**63, ValueError, "seed must be an integer from -9223372036854775808 to 9223372036854775807"),
        ("init_scale", 0.0, ValueError, "init_scale must be a finite number above 0"),
        ("init_scale", math.nan, ValueError, "init_scale must be a finite number above 0 (as a float32), got nan"),
        ("embedding_std", -0.1, ValueError, "embedding_std must be a finite number above 0 (as a float32), got -0.1"),
        ("init_stream", "mt19937", ValueError, "init_stream must be one of 'lcg31', 'xorshift64', got 'mt19937'"),
        ("init_stream", 31, ValueError, "init_stream must be one of"),
        ("n_threads", 0, ValueError, "n_threads must be an integer from 1"),
        ("n_threads", "2", TypeError, "n_threads must be an integer, got '2'"),
    ],
)
def test_a_wrong_option_is_an_error_at_construction_and_at_assignment(
    field: str, value: object, error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as given:
        RecipeOptions(**{"t_seq": 8, field: value})  # type: ignore[arg-type]
    assert says in str(given.value)
    opts = RecipeOptions(t_seq=8)
    setattr(opts, field, value)
    with pytest.raises(error) as assigned:
        opts.validate()
    assert str(assigned.value) == str(given.value)


@pytest.mark.parametrize("weight_dtype", [0, 1, 30])
@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, -(2**63)])
def test_every_weight_type_and_64_bit_seed_is_accepted(weight_dtype: int, seed: int) -> None:
    RecipeOptions(t_seq=8, weight_dtype=weight_dtype, seed=seed).validate()


def test_a_misspelt_option_is_an_error() -> None:
    opts = RecipeOptions()
    with pytest.raises(AttributeError):
        opts.tseq = 32  # type: ignore[attr-defined]


def test_a_step_with_2_to_the_31_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match=r"t_seq \* t_batch must be below 2\^31, got 65536 \* 32768"):
        RecipeOptions(t_seq=2**16, t_batch=2**15).validate()
