"""The sweep of training recipes: its settings, its table, and the recipes of other programs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from benchmarks import torch_chat
from benchmarks.recipe_sweep import (
    PEERS,
    POINTS,
    RESULTS,
    SIZES,
    Result,
    center_of,
    markdown,
    missing,
    settings_of,
)
from benchmarks.result_files import read_results
from benchmarks.torch_peers import Shape, trained

from toynn.training.toml_config import keys


def test_the_center_has_the_defaults_and_each_point_changes_known_keys() -> None:
    center, known = center_of("2M"), {key.name for key in keys()}
    assert (center["optimizer.kind"], center["optimizer.lr"]) == ("muon", pytest.approx(1.28 / 192))
    for point in POINTS:
        settings = settings_of("2M", point)
        assert settings.keys() <= known
        changed = {key for key, value in center.items() if settings[key] != value}
        if not point.startswith(("adamw", "wsd", "cosine")):
            assert len(changed) == (point != "center"), point
    assert settings_of("2M", "lr x 2")["optimizer.lr"] == 2 * center["optimizer.lr"]
    assert settings_of("2M", "muon_lr x 0.5")["optimizer.muon_lr"] == 0.01
    assert settings_of("2M", "adamw")["optimizer.lr"] == 0.64 / 192


def test_the_recorded_runs_have_the_settings_of_their_points() -> None:
    """If a default changes, the runs around the old default must be repeated or removed."""
    results = read_results(Result, RESULTS)
    assert len(results) > 50
    for one in results:
        if one.point not in PEERS:
            assert one.settings == settings_of(one.size, one.point), (one.corpus, one.size, one.point)
    assert len({(one.corpus, one.size, one.point) for one in results}) == len(results)


def test_the_table_compares_with_the_lowest_loss_of_a_column() -> None:
    rows = [
        Result("stories", "0.5M", "center", 3.0, 2.9),
        Result("stories", "0.5M", "lr x 2", 2.0, 1.9),
        Result("stories", "0.5M", "adamw", None, None),
        Result("stories", "0.5M", "nanochat's recipe", 4.0, 3.9),
    ]
    assert markdown(rows).splitlines() == [
        "| setting | stories, 0.5M |",
        "| :-- | --: |",
        "| center | 3.000 (+50.0 %) |",
        "| lr x 2 | 2.000 (+0.0 %) |",
        "| adamw | diverged |",
        "| nanochat's recipe | 4.000 (+100.0 %) |",
    ]
    assert list(missing(rows, ["stories"], ["0.5M"], ["center", "lr x 0.5"])) == [("stories", "0.5M", "lr x 0.5")]
    assert len(SIZES) == 3


def test_the_model_of_nanochat_starts_at_the_uniform_loss_and_sees_only_earlier_tokens() -> None:
    torch.manual_seed(0)
    model = torch_chat.ChatGPT(vocab=50, width=16, heads=2, layers=2, context=8)
    assert sum(one.numel() for one in model.parameters()) == 2 * 16 * 50 + 2 * 12 * 16 * 16
    ids = torch.randint(50, (3, 8))
    with torch.no_grad():
        assert float(model(ids, ids.roll(-1, 1))) == pytest.approx(math.log(50), rel=1e-6)
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight))
        changed = ids.clone()
        changed[:, -1] = (ids[:, -1] + 1) % 50
        targets = torch.full_like(ids, -100)
        targets[:, :-1] = ids[:, 1:]
        assert float(model(ids, targets)) == pytest.approx(float(model(changed, targets)), rel=1e-6)
        swapped = ids.clone()
        swapped[:, [0, 1]] = ids[:, [1, 0]]
        targets[:, :3] = -100
        assert float(model(ids, targets)) != pytest.approx(float(model(swapped, targets)), rel=1e-4)


def test_the_rates_of_nanochat_are_scaled_by_the_width_and_fall_to_zero() -> None:
    muon, adamw = torch_chat.optimizers_of(torch_chat.ChatGPT(vocab=50, width=192, heads=2, layers=1, context=8))
    assert [group["lr"] for group in adamw.param_groups] == [pytest.approx(0.008), pytest.approx(0.4)]
    assert muon.param_groups[0]["lr"] == 0.02
    factors = [torch_chat.rate_factor(step, 250) for step in range(250)]
    assert set(factors[:201]) == {1.0}
    assert factors[225] == pytest.approx(0.5)
    assert factors[-1] == pytest.approx(1 / 50)
    assert [torch_chat.momentum(step) for step in (0, 150, 300, 999)] == pytest.approx([0.85, 0.9, 0.95, 0.95])


@pytest.mark.parametrize("recipe", ["nanogpt", "nanochat"])
def test_the_recipes_of_other_programs_learn_a_text(data: Path, recipe: str) -> None:
    loss, training_loss = trained(recipe, data, Shape(16, 2, 1, 16), 60, 4)
    assert 0 < loss < math.log(280) - 0.2
    assert 0 < training_loss < math.log(280) - 0.2
    assert trained(recipe, data, Shape(16, 2, 1, 16), 60, 4) == (loss, training_loss)
