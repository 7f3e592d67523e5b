"""SmolLM2Config and RopeScaling: values, errors, and the factors of llama3 scaling."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toynn import RopeScaling, SmolLM2Config, TinyNNError
from toynn.model.shape import ModelShape

pytestmark = pytest.mark.quick

GOOD: dict[str, Any] = {
    "vocab": 100, "d_model": 24, "n_heads": 4, "n_kv": 2, "d_ff": 48, "n_layers": 2, "ctx": 16,
    "rope_base": 10000.0, "rms_eps": 1e-5,
}  # fmt: skip


def test_tiny_and_smollm2_135m_have_the_sizes_of_the_reference() -> None:
    assert SmolLM2Config.tiny() == SmolLM2Config(627, 64, 4, 4, 128, 2, 32, 10000.0, 1e-5)
    assert SmolLM2Config.smollm2_135m() == SmolLM2Config(49152, 576, 9, 3, 1536, 30, 8192, 100000.0, 1e-5)
    assert SmolLM2Config.smollm2_135m().head_dim == 64


def test_mha_sets_n_kv_to_n_heads_and_accepts_other_fields_by_name() -> None:
    scaling = RopeScaling.llama3(8.0, 1.0, 4.0, 32)
    cfg = SmolLM2Config.mha(627, 64, 4, 128, 2, 32, 10000.0, 1e-5, head_dim=6, donor_d_in=128, rope_scaling=scaling)
    assert (cfg.n_heads, cfg.n_kv, cfg.head_dim, cfg.donor_d_in) == (4, 4, 6, 128)
    assert cfg.rope_scaling == scaling
    plain = SmolLM2Config.mha(627, 64, 4, 128, 2, 32, 10000.0, 1e-5)
    assert plain == SmolLM2Config.tiny()


def test_the_head_size_is_derived_unless_given() -> None:
    assert SmolLM2Config(**GOOD).head_dim == 6
    assert SmolLM2Config(**GOOD, head_dim=10).head_dim == 10
    # with a given head_dim, n_heads = 4 need not divide d_model = 25
    assert SmolLM2Config(**{**GOOD, "d_model": 25}, head_dim=10).head_dim == 10


def test_replace_keeps_the_head_size_unless_it_must_be_derived_again() -> None:
    cfg = SmolLM2Config(**GOOD)
    assert dataclasses.replace(cfg, d_model=48).head_dim == 6
    assert dataclasses.replace(cfg, d_model=48, head_dim=0).head_dim == 12


def test_a_config_is_frozen_and_hashable() -> None:
    cfg = SmolLM2Config.tiny()
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.vocab = 3  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del cfg.head_dim
    assert {cfg: 1}[SmolLM2Config.tiny()] == 1


def test_mid_and_gqa_have_the_sizes_of_the_reference() -> None:
    assert SmolLM2Config.mid() == SmolLM2Config(4096, 256, 8, 8, 1024, 8, 256, 1e4, 1e-5)
    gqa = SmolLM2Config.gqa(49152, 576, 9, 3, 1536, 30, 8192, 1e5, 1e-5)
    assert gqa == SmolLM2Config.smollm2_135m()
    assert SmolLM2Config.gqa(23, 24, 6, 2, 20, 2, 16, 1e4, 1e-5, head_dim=8).head_dim == 8


def test_three_fields_may_be_assigned_and_are_checked() -> None:
    cfg: Any = SmolLM2Config(**GOOD)
    cfg.head_dim, cfg.donor_d_in, cfg.rope_scaling = np.int64(10), 7, RopeScaling.linear(2.0)
    assert cfg == SmolLM2Config(**GOOD, head_dim=10, donor_d_in=7, rope_scaling=RopeScaling.linear(2.0))
    assert type(cfg.head_dim) is int
    cfg.head_dim = 0
    assert cfg.head_dim == 6  # d_model / n_heads
    for field, value in (("head_dim", 5), ("donor_d_in", -1), ("rope_scaling", None), ("head_dim", "8")):
        with pytest.raises(TinyNNError, match=field):
            setattr(cfg, field, value)
    assert cfg == SmolLM2Config(**GOOD, donor_d_in=7, rope_scaling=RopeScaling.linear(2.0))
    shape: Any = ModelShape.of(cfg, untied=True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        shape.head_dim = 8


def test_numpy_numbers_become_python_numbers() -> None:
    cfg = SmolLM2Config(**{**GOOD, "vocab": np.int64(100), "rms_eps": np.float32(0.5)})
    assert type(cfg.vocab) is int
    assert type(cfg.rms_eps) is float


@pytest.mark.parametrize(
    ("field", "value", "error", "says"),
    [
        ("vocab", 0, ValueError, "vocab must be an integer from 1 to 2147483647, got 0"),
        ("d_model", -1, ValueError, "d_model must be an integer from 1"),
        ("n_layers", 2**31, ValueError, "n_layers must be an integer from 1 to 2147483647, got 2147483648"),
        ("ctx", 16.0, TypeError, "ctx must be an integer, got 16.0"),
        ("d_ff", "48", TypeError, "d_ff must be an integer, got '48'"),
        ("d_ff", None, TypeError, "d_ff must be an integer, got None"),
        ("n_heads", True, TypeError, "n_heads must be an integer, got True (bool)"),
        ("n_heads", np.True_, TypeError, "n_heads must be an integer"),
        ("n_kv", 3, ValueError, "n_kv must divide n_heads = 4, got 3"),
        ("n_kv", 8, ValueError, "n_kv must divide n_heads = 4, got 8"),
        ("n_heads", 10, ValueError, "n_heads must divide d_model = 24 when head_dim is not given, got 10"),
        ("n_heads", 8, ValueError, "head_dim must be even, because RoPE rotates pairs, got 3"),
        ("head_dim", 5, ValueError, "head_dim must be even, because RoPE rotates pairs, got 5"),
        ("head_dim", -2, ValueError, "head_dim must be an integer from 0"),
        ("head_dim", 2**30, ValueError, "n_heads * head_dim must be below 2^31, got 4 * 1073741824"),
        ("donor_d_in", -1, ValueError, "donor_d_in must be an integer from 0"),
        ("rope_base", 0.0, ValueError, "rope_base must be a finite number above 0 (as a float32), got 0.0"),
        ("rope_base", -1.0, ValueError, "rope_base"),
        ("rope_base", math.nan, ValueError, "got nan"),
        ("rope_base", math.inf, ValueError, "got inf"),
        ("rope_base", 1e39, ValueError, "got 1e+39"),
        ("rope_base", 10**400, ValueError, "rope_base must fit a 64-bit float, got 1000"),
        ("rope_base", "1e4", TypeError, "rope_base must be a number, got '1e4'"),
        ("rope_base", True, TypeError, "rope_base must be a number, got True"),
        ("rms_eps", 0, ValueError, "rms_eps must be a finite number above 0"),
        ("rms_eps", 1e-60, ValueError, "(as a float32), got 1e-60"),
        ("rope_scaling", None, TypeError, "rope_scaling must be a RopeScaling, got None"),
    ],
)
def test_the_error_of_a_wrong_field_gives_name_value_and_range(
    field: str, value: object, error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as caught:
        SmolLM2Config(**{**GOOD, field: value})
    assert says in str(caught.value)
    assert isinstance(caught.value, TinyNNError)


def test_no_scaling_is_the_default_and_has_no_factors() -> None:
    none = RopeScaling.none()
    assert SmolLM2Config.tiny().rope_scaling == none == RopeScaling()
    assert (none.freq_scale, none.ext_factor, none.attn_factor, none.beta_fast, none.beta_slow) == (1, 0, 1, 32, 1)
    assert (none.orig_max_pos, none.factor, none.low_freq_factor, none.high_freq_factor) == (0, 1, 1, 4)
    assert RopeScaling(orig_max_pos=8192) == none  # files of older versions contain only this argument
    assert none.freq_factors(16, 10000.0) is None


def llama3_factor(i: int, d_head: int, base: float, factor: float, low: float, high: float, orig: int) -> float:
    """Return the factor of one pair, computed by the definition of llama3 scaling."""
    wavelength = 2.0 * math.pi * base ** (2.0 * i / d_head)
    if wavelength < orig / high:
        return 1.0
    if wavelength > orig / low:
        return factor
    s = (orig / wavelength - low) / (high - low)
    return float((1.0 - s) * factor + s)


@settings(deadline=None)
@given(
    half=st.integers(1, 64),
    base=st.floats(2.0, 1e6),
    factor=st.floats(1.0, 64.0),
    low=st.floats(0.25, 4.0),
    wider=st.floats(0.1, 8.0),
    orig=st.integers(1, 2**17),
)
def test_llama3_factors_equal_their_definition(
    half: int, base: float, factor: float, low: float, wider: float, orig: int
) -> None:
    factors = RopeScaling.llama3(factor, low, low + wider, orig).freq_factors(2 * half, base)
    assert factors is not None
    assert factors.dtype == np.float32
    expected = [llama3_factor(i, 2 * half, base, factor, low, low + wider, orig) for i in range(half)]
    np.testing.assert_allclose(factors, np.array(expected, dtype=np.float32), rtol=2e-7)
    assert (np.diff(factors) >= 0).all()  # longer wavelengths have larger factors
    assert factors.min() >= 1.0 - 1e-6
    assert factors.max() <= np.float32(factor) * (1 + 1e-6)


@given(
    half=st.integers(1, 64),
    base=st.floats(2.0, 1e6),
    factor=st.floats(1.0, 64.0),
    low=st.floats(0.25, 4.0),
    wider=st.floats(0.1, 8.0),
    orig=st.integers(1, 2**17),
)
def test_llama3_hf_interpolates_frequencies_and_llama3_their_divisors(
    half: int, base: float, factor: float, low: float, wider: float, orig: int
) -> None:
    factors = RopeScaling.llama3_hf(factor, low, low + wider, orig).freq_factors(2 * half, base)
    assert factors is not None
    assert factors.dtype == np.float32
    for i, found in enumerate(factors):
        wavelength = 2.0 * math.pi * base ** (2.0 * i / (2 * half))
        s = min(max((orig / wavelength - low) / wider, 0.0), 1.0)
        frequency = 1.0 / wavelength  # frequencies, in turns per position
        wanted = (1.0 - s) * frequency / factor + s * frequency
        assert frequency / float(found) == pytest.approx(wanted, rel=1e-5)


def test_llama3_factors_of_a_published_model_touch_all_three_ranges() -> None:
    factors = RopeScaling.llama3(8.0, 1.0, 4.0, 8192).freq_factors(128, 500000.0)
    assert factors is not None
    assert factors.shape == (64,)
    kept, slowed = (factors == 1.0).sum(), (factors == 8.0).sum()
    assert (kept, slowed) == (29, 29)
    assert ((factors > 1.0) & (factors < 8.0)).sum() == 6


def test_the_fields_of_a_scaling_have_the_order_and_the_names_of_the_reference() -> None:
    scaling = RopeScaling("llama3", 1.0, 8192, 8.0, 1.5, 4.5, 0.0, 1.25, 31.0, 2.0)
    assert [field.name for field in dataclasses.fields(scaling)] == [
        "kind", "freq_scale", "orig_max_pos", "factor", "low_freq", "high_freq", "ext_factor", "attn_factor",
        "beta_fast", "beta_slow",
    ]  # fmt: skip
    assert dataclasses.astuple(scaling) == ("llama3", 1.0, 8192, 8.0, 1.5, 4.5, 0.0, 1.25, 31.0, 2.0)
    assert (scaling.low_freq_factor, scaling.high_freq_factor) == (1.5, 4.5)
    named = RopeScaling.llama3(8.0, low_freq_factor=1.5, high_freq_factor=4.5, orig_max_pos=8192)
    assert named == RopeScaling.llama3(8.0, 1.5, 4.5, 8192)
    assert dataclasses.replace(named, low_freq=2.0).low_freq_factor == 2.0
    assert RopeScaling() == RopeScaling.none()
    defaults = {field.name: field.default for field in dataclasses.fields(RopeScaling)}
    assert {name: getattr(RopeScaling(), name) for name in defaults} == defaults


def test_compute_llama3_freq_factors_has_the_arguments_of_the_reference() -> None:
    factors = RopeScaling.compute_llama3_freq_factors(128, 500000.0, 8192, 8.0, 1.0, 4.0)
    expected = RopeScaling.llama3(8.0, 1.0, 4.0, 8192).freq_factors(128, 500000.0)
    np.testing.assert_array_equal(factors, expected)


def test_linear_scaling_divides_all_angles_by_factor() -> None:
    scaling = RopeScaling.linear(8.0)
    assert (scaling.kind, scaling.freq_scale, scaling.factor, scaling.orig_max_pos) == ("linear", 0.125, 8.0, 0)
    assert (scaling.angle_scale, scaling.amplitude) == (0.125, 1.0)
    assert scaling.freq_factors(16, 1e4) is None
    assert RopeScaling("linear", 0.125) == scaling
    assert RopeScaling("linear", 0.125, factor=8.0) == scaling
    assert dataclasses.replace(RopeScaling.linear(4.0), factor=8.0, freq_scale=1.0) == scaling


def yarn_speed(i: int, d_head: int, base: float, scaling: RopeScaling) -> float:
    """Return the angle by which a pair turns from one position to the next, by ggml's formulas for YaRN, in float64."""
    extrapolated = base ** (-2.0 * i / d_head)
    dims = [
        d_head * math.log(scaling.orig_max_pos / (beta * 2 * math.pi)) / (2 * math.log(base))
        for beta in (scaling.beta_fast, scaling.beta_slow)
    ]
    low, high = max(0.0, math.floor(dims[0])), min(d_head - 1.0, math.ceil(dims[1]))
    ramp = 1 - min(1.0, max(0.0, (i - low) / max(0.001, high - low)))
    mix = ramp * scaling.ext_factor
    return float(scaling.freq_scale * extrapolated * (1 - mix) + extrapolated * mix)


@settings(deadline=None)
@given(
    half=st.integers(1, 64),
    base=st.floats(2.0, 1e6),
    factor=st.floats(1.0, 64.0),
    orig=st.integers(1, 2**17),
    ext_factor=st.floats(0.01, 1.0),
    attn_factor=st.floats(0.5, 2.0),
    slow=st.floats(0.25, 8.0),
    faster=st.floats(0.5, 64.0),
)
def test_yarn_factors_give_the_angles_of_ggml(
    half: int, base: float, factor: float, orig: int, ext_factor: float, attn_factor: float, slow: float, faster: float
) -> None:
    scaling = RopeScaling.yarn(factor, orig, ext_factor, attn_factor, slow + faster, slow)
    factors = scaling.freq_factors(2 * half, base)
    assert factors is not None
    assert factors.dtype == np.float32
    found = [base ** (-i / half) * scaling.angle_scale / float(one) for i, one in enumerate(factors)]
    expected = [yarn_speed(i, 2 * half, base, scaling) for i in range(half)]
    np.testing.assert_allclose(found, expected, rtol=2e-7)
    assert scaling.amplitude == pytest.approx(attn_factor * (1 + 0.1 * math.log(1 / scaling.freq_scale)), rel=1e-6)


def test_yarn_needs_a_base_above_1() -> None:
    with pytest.raises(TinyNNError, match="rope_base must be above 1 with yarn scaling, got 1"):
        RopeScaling.yarn(4.0, 32).freq_factors(16, 1.0)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"factor": 0.5}, ValueError, "RopeScaling.factor must be a finite number, 1 or above"),
        ({"factor": math.nan}, ValueError, "RopeScaling.factor"),
        ({"low_freq": 0.0}, ValueError, "RopeScaling.low_freq must be a finite number above 0"),
        ({"high_freq": 1.0}, ValueError, "RopeScaling.high_freq must be above low_freq = 1.0, got 1.0"),
        ({"orig_max_pos": -1}, ValueError, "RopeScaling.orig_max_pos must be an integer from 0"),
        ({"orig_max_pos": 8192.0}, TypeError, "RopeScaling.orig_max_pos must be an integer, got 8192.0"),
        ({"ext_factor": 1.0}, ValueError, "RopeScaling.ext_factor must be 0 with kind 'llama3'"),
        ({"ext_factor": 1.5}, ValueError, "RopeScaling.ext_factor must be from 0 to 1"),
        ({"low_freq_factor": 1.0}, TypeError, "RopeScaling.low_freq and low_freq_factor are two names of one field"),
        ({"high_freq_factor": 2.0}, TypeError, "RopeScaling.high_freq and high_freq_factor are two names of one field"),
        ({"freq_scale": 0.0}, ValueError, "RopeScaling.freq_scale must be"),
        ({"attn_factor": math.inf}, ValueError, "RopeScaling.attn_factor must be"),
        ({"kind": "longrope"}, ValueError, "RopeScaling.kind must be one of 'none', 'linear', 'yarn', 'llama3', "),
        ({"kind": "linear", "freq_scale": 0.5}, ValueError, "RopeScaling.freq_scale must be 1 / factor = 0.125"),
        ({"kind": "linear", "factor": 1.0, "freq_scale": 2.0}, ValueError, "must be 1 / factor = 1.0"),
        (
            {"kind": "yarn", "orig_max_pos": 0},
            ValueError,
            "RopeScaling.orig_max_pos must be at least 1 with kind 'yarn'",
        ),
        (
            {"kind": "yarn", "beta_fast": 1.0},
            ValueError,
            "RopeScaling.beta_fast must be above beta_slow = 1.0, got 1.0",
        ),
    ],
)
def test_a_wrong_rope_scaling_is_refused_by_name(change: dict[str, object], error: type[Exception], says: str) -> None:
    good = {"kind": "llama3", "factor": 8.0, "low_freq": 1.0, "high_freq": 4.0, "orig_max_pos": 8192}
    with pytest.raises(error) as caught:
        RopeScaling(**{**good, **change})  # type: ignore[arg-type]
    assert says in str(caught.value)
