"""Runs with optimizer.moments = "bf16": resumed runs, threads, batches, stored types, and refused changes."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path

import pytest

from small_runs import config, evaluations, final_bytes, losses
from toynn import TinyNNValueError, TrainArgs, train
from toynn.errors import ConfigurationError
from toynn.training import AdapterArgs, Event, OptimizerArgs, StepArgs, Stepped, StopTraining, TrainConfig


def bf16(steps: int, kind: str = "adamw", batch: int = 2, accumulate: int = 1, moments: str = "bf16") -> TrainConfig:
    return config(
        steps,
        train=StepArgs(steps=steps, batch=batch, accumulate=accumulate, t_seq=15),
        optimizer=OptimizerArgs(lr=1e-2, kind=kind, moments=moments),
    )


def stop_after_three(event: Event) -> None:
    if isinstance(event, Stepped) and event.step == 3:
        raise StopTraining


def stored_types(run: Path) -> dict[str, str]:
    """Return the type of each moment in the latest checkpoint."""
    content = (run / "checkpoints" / (run / "latest").read_text().strip() / "moments.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    assert header.pop("__metadata__", None) is None
    return {name: one["dtype"] for name, one in header.items()}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_resumed_run_has_the_bytes_of_an_uninterrupted_run(kind: str, data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "whole", bf16(6, kind), n_threads=1))
    train(TrainArgs(data, tmp_path / "parts", bf16(6, kind), n_threads=2), [stop_after_three])
    train(TrainArgs(data, tmp_path / "parts", resume=True))
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert evaluations(tmp_path / "parts") == evaluations(tmp_path / "whole")
    assert final_bytes(tmp_path / "parts") == final_bytes(tmp_path / "whole")
    types = stored_types(tmp_path / "parts")
    assert {name for name, dtype in types.items() if dtype == "F32"} == {name for name in types if "norm" in name}
    assert set(types.values()) == {"F32", "BF16"}
    assert all(name.endswith(".m") for name in types if kind == "muon" and "attn_q.weight" in name)


def test_rounding_changes_the_losses_a_little(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "f32", bf16(12, moments="f32")))
    train(TrainArgs(data, tmp_path / "bf16", bf16(12)))
    first, second = (float.fromhex(losses(tmp_path / name)[-1]) for name in ("f32", "bf16"))
    assert first != second
    assert second == pytest.approx(first, rel=1e-2)


def test_batch_and_accumulate_do_not_change_any_byte(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "one", bf16(3, batch=4)))
    train(TrainArgs(data, tmp_path / "four", bf16(3, batch=1, accumulate=4)))
    assert losses(tmp_path / "one") == losses(tmp_path / "four")
    assert final_bytes(tmp_path / "one") == final_bytes(tmp_path / "four")


def test_an_adapter_can_have_bfloat16_moments_and_an_average(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "base", config(2)))
    chosen = bf16(4)
    chosen = dataclasses.replace(
        chosen, model=None, adapter=AdapterArgs(rank=2), optimizer=dataclasses.replace(chosen.optimizer, ema=0.5)
    )
    for name, callbacks in (("whole", []), ("parts", [stop_after_three])):
        train(TrainArgs(data, tmp_path / name, chosen, base=tmp_path / "base"), callbacks)
    train(TrainArgs(data, tmp_path / "parts", resume=True, base=tmp_path / "base"))
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    types = stored_types(tmp_path / "parts")
    assert {types[name] for name in types if not name.endswith(".w")} == {"BF16"}
    assert {types[name] for name in types if name.endswith(".w")} == {"F32"}


@pytest.mark.parametrize(("of_run", "resumed"), [("f32", "bf16"), ("bf16", "f32")])
def test_the_type_cannot_change_when_a_run_is_resumed(of_run: str, resumed: str, data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "run", bf16(2, moments=of_run)))
    says = rf"optimizer\.moments is '{resumed}', but the run has '{of_run}'.*without kind, moments and ema"
    with pytest.raises(ConfigurationError, match=says):
        train(TrainArgs(data, tmp_path / "run", bf16(4, moments=resumed), resume=True))


def test_an_unknown_type_is_refused_by_name() -> None:
    with pytest.raises(TinyNNValueError, match=r"optimizer\.moments must be one of 'f32', 'bf16', got 'f16'"):
        OptimizerArgs(moments="f16")
