"""How processes divide a step: the windows of each process, slices of the weights, and AdamW on slices."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from engines import realized
from oracle.variants import Variant
from toynn import AdamW, ConfigurationError, SmolLM2Config, TinyNNValueError
from toynn import tinynn as nn
from toynn.errors import SessionError
from toynn.llm.labels import IGNORE_ID
from toynn.llm.window_sums import largest_nodes, sum_of_nodes, tree_sum
from toynn.training.config import StepArgs
from toynn.training.optimizer import StepValues
from toynn.training.sharded_adamw import ShardedAdamW, norm_and_factor, squares_of_piece
from toynn.training.shares import PARTS, buckets_of, buckets_of_matrices, share_of

F32 = npt.NDArray[np.float32]
Arrays = dict[str, F32]

TIED = Variant(SmolLM2Config(127, 40, 4, 2, 72, 2, 512, 10000.0, 1e-5, head_dim=10), 7)
UNTIED = Variant(SmolLM2Config(61, 48, 6, 2, 96, 1, 512, 10000.0, 1e-5, head_dim=12), 33, 1, True, True)


@pytest.mark.quick
@pytest.mark.parametrize("windows", [1, 2, 6, 7, 24, 30])
def test_the_nodes_of_all_processes_add_up_to_the_tree_of_a_single_process(windows: int) -> None:
    draw = np.random.default_rng(windows)
    values = (draw.standard_normal(windows) * 10.0 ** draw.integers(-4, 4, windows)).tolist()
    divisors = [n for n in range(1, windows + 1) if windows % n == 0]
    for n in divisors:
        nodes = {}
        for rank in range(n):
            share = share_of(StepArgs(batch=windows), rank, n)
            for start, level in share.nodes:
                nodes[start, level] = np.array([tree_sum(values[start : start + (1 << level)])])
        assert sum_of_nodes(nodes, windows)[0] == tree_sum(values)


@pytest.mark.quick
def test_a_share_has_batches_of_at_most_train_batch_windows() -> None:
    train = StepArgs(batch=8, accumulate=3)
    got = {n: (share_of(train, 1, n).first, share_of(train, 1, n).batch) for n in (2, 3, 4, 6, 8, 12, 24)}
    assert got == {2: (12, 6), 3: (8, 8), 4: (6, 6), 6: (4, 4), 8: (3, 3), 12: (2, 2), 24: (1, 1)}
    assert largest_nodes(3, 5) == [(3, 0), (4, 2)]
    with pytest.raises(
        ConfigurationError, match=r"5 processes cannot divide the 24 windows .* start 1, 2, 3, 4, 6, 8, 12 or 24"
    ):
        share_of(train, 0, 5)
    with pytest.raises(ConfigurationError, match=r"the one window of a step; set train\.batch to a multiple of 2"):
        share_of(StepArgs(batch=1), 0, 2)


@pytest.mark.quick
@pytest.mark.parametrize("limit", [1, 5000, 1 << 22])
@pytest.mark.parametrize("n", [1, 2, 3, 8, 100])
def test_slices_cover_each_weight_once_in_whole_parts(n: int, limit: int) -> None:
    sizes = {"a": 4096, "norm": 40, "b": 3 * 64 * 17, "c": 1}
    covered = {name: np.zeros(size, dtype=int) for name, size in sizes.items()}
    parts = dict.fromkeys(sizes, 0)
    buckets = buckets_of(sizes, n, limit)
    assert [name for bucket in buckets for name in bucket.sizes] == list(sizes)
    assert sum(sum(bucket.counts()) for bucket in buckets) == sum(sizes.values())
    for bucket in buckets:
        for pieces in bucket.slices:
            for piece in pieces:
                covered[piece.name][piece.begin : piece.end] += 1
                assert piece.begin == sizes[piece.name] * piece.parts[0] // PARTS
                parts[piece.name] += piece.parts[1] - piece.parts[0]
    assert all((one == 1).all() for one in covered.values())
    assert set(parts.values()) == {PARTS}
    largest = max(buckets, key=lambda bucket: sum(bucket.sizes.values()))
    total = sum(largest.sizes.values())
    if n <= 8 and total > 4000:
        assert max(largest.counts()) <= total / n + total / PARTS


@pytest.mark.quick
@pytest.mark.parametrize("limit", [1, 3000, 1 << 22])
@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_each_matrix_belongs_to_one_process_and_the_work_is_divided_equally(n: int, limit: int) -> None:
    layer = {"q": (40, 40), "k": (20, 40), "v": (20, 40), "o": (40, 40), "gate_up": (144, 40), "down": (40, 72)}
    shapes = {f"blk.{i}.{name}": shape for i in range(12) for name, shape in layer.items()}
    buckets = buckets_of_matrices(shapes, n, limit)
    pieces = [piece for bucket in buckets for pieces in bucket.slices for piece in pieces]
    assert sorted(piece.name for piece in pieces) == sorted(shapes)
    assert all((one.begin, one.end, one.parts) == (0, math.prod(shapes[one.name]), (0, PARTS)) for one in pieces)
    assert [piece.name for piece in pieces] == [name for bucket in buckets for name in bucket.sizes]
    assert all(sum(bucket.sizes.values()) <= limit or len(bucket.sizes) == 1 for bucket in buckets)
    work = [
        sum(math.prod(shapes[piece.name]) * min(shapes[piece.name]) for one in buckets for piece in one.slices[rank])
        for rank in range(n)
    ]
    assert max(work) < 1.25 * sum(work) / n
    assert buckets_of_matrices({}, n) == []


WINDOWS, MAX_NORM = 6, 0.05
HP = AdamW(lr=0.01, weight_decay=0.1, bias_correct=True)


def windows_of(variant: Variant) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return ids and targets (WINDOWS, T). Some targets are ignored."""
    draw = np.random.default_rng(5)
    ids = draw.integers(0, variant.cfg.vocab // 2, (WINDOWS, variant.t_seq)).astype(np.int32)
    targets = np.roll(ids, -1, axis=1)
    targets[draw.random(targets.shape) < 0.2] = IGNORE_ID
    return ids, targets


def gradients_of_parts(variant: Variant, weights: Arrays, n: int) -> tuple[Arrays, dict[str, int]]:
    """Compute the parts of a step with n engines.

    Return each gradient as a flat array, and for each gradient the number of sums that form it.
    """
    ids, targets = windows_of(variant)
    counted, own = int((targets != IGNORE_ID).sum()), WINDOWS // n
    sums: dict[tuple[str, int], dict[tuple[int, int], F32]] = {}
    places: dict[str, tuple[int, ...]] = {}
    for rank in range(n):
        with realized(variant.cfg, **{**variant.options, "t_batch": own, "optimizer": "none"}) as e:
            for name, values in weights.items():
                e.upload_weight(name, values)
            e.build_training_step(first_window=rank * own)
            part = slice(rank * own, (rank + 1) * own)
            e.add_gradients(ids[part].ravel(), targets[part].ravel(), counted)
            places = e.gradient_places()
            for name, at in places.items():
                for place in at:
                    of_place = sums.setdefault((name, place), {})
                    for node in largest_nodes(rank * own, own):
                        of_place[node] = e.window_sum(*node, place, weights[name].size)
    gradients = {}
    for name, at in places.items():
        first, *others = (sum_of_nodes(sums[name, place], WINDOWS) for place in at)
        gradients[name] = first
        for second in others:
            gradients[name] = np.where(second == 0, gradients[name], gradients[name] + second)
    return gradients, {name: len(at) for name, at in places.items()}


def step_in_slices(shards: list[ShardedAdamW], gradients: Arrays, step: int) -> float:
    """Update all slices, and return the norm of the gradients."""
    sizes = {name: values.size for name, values in gradients.items()}
    squares = {name: np.zeros(PARTS) for name in gradients}
    for shard in shards:
        for piece in shard.pieces:
            part = gradients[piece.name][piece.begin : piece.end]
            squares[piece.name] += squares_of_piece(piece, sizes[piece.name], part)
    norm, factor = norm_and_factor(np.concatenate(list(squares.values())), MAX_NORM)
    for shard in shards:
        flat = [gradients[piece.name][piece.begin : piece.end] for piece in shard.pieces]
        shard.gradient[:] = np.concatenate(flat)
        shard.step(StepValues(HP.hp(step), None), factor)
    return norm


def whole(shards: list[ShardedAdamW], like: Arrays) -> Arrays:
    """Return the weights and moments of all slices."""
    got = {name + end: np.zeros(one.size, np.float32) for name, one in like.items() for end in ("", ".m", ".v")}
    for shard in shards:
        for piece, place in shard.places():
            for end, values in {"": shard.weights, **{end: shard.moment(end) for end in shard.ends}}.items():
                got[piece.name + end][piece.begin : piece.end] = values[place]
    return {
        name: values.reshape(like[name.removesuffix(".m").removesuffix(".v")].shape) for name, values in got.items()
    }


@pytest.mark.parametrize(("variant", "n"), [(TIED, 3), (UNTIED, 2)], ids=["tied", "untied"])
def test_gradients_in_parts_and_sharded_adamw_have_the_bytes_of_one_engine(variant: Variant, n: int) -> None:
    ids, targets = windows_of(variant)
    feed, counted = (ids.ravel(), targets.ravel()), int((targets != IGNORE_ID).sum())
    with realized(variant.cfg, **{**variant.options, "t_batch": WINDOWS}, seed=3, init_scale=1.5) as e:
        e.build_training_step(clip=True, decay_vectors=False)
        weights = {one.name: e.download_weight(one.name) for one in e.trained_weights()}
        decays = {one.name: one.decays for one in e.trained_weights()}
        norms = [e.train_step(*feed, HP.hp(i), max_norm=MAX_NORM, loss_divisor=counted)[1] for i in (1, 2)]
        want = {name + end: e.download_weight(name + end).tobytes() for name in weights for end in ("", ".m", ".v")}
    bucket = buckets_of({name: values.size for name, values in weights.items()}, 3)[0]
    shards = [ShardedAdamW(list(pieces), False, decays) for pieces in bucket.slices]
    for shard in shards:
        for piece, place in shard.places():
            shard.weights[place] = weights[piece.name].reshape(-1)[piece.begin : piece.end]
    for step in (1, 2):
        gradients, parts = gradients_of_parts(variant, weights, n)
        assert {name for name, one in parts.items() if one == 2} == (
            set() if variant is UNTIED else {"token_embd.weight"}
        )
        norm = step_in_slices(shards, gradients, step)
        assert norm == norms[step - 1]
        assert norm > MAX_NORM
        got = whole(shards, weights)
        weights = {name: got[name] for name in weights}
    assert {name: values.tobytes() for name, values in got.items()} == want


def test_an_engine_without_an_optimizer_computes_gradients_only() -> None:
    ids = list(range(7))
    with realized(TIED.cfg, **{**TIED.options, "optimizer": "none"}) as e:
        assert e.moment_names() == []
        e.forward(ids)
        with pytest.raises(SessionError, match="add_gradients needs a training graph"):
            e.add_gradients(ids, ids, 7)
        with pytest.raises(TinyNNValueError, match="clip must be False"):
            e.build_training_step(clip=True)
        e.build_training_step()
        with pytest.raises(SessionError, match="this model has optimizer='none'; call add_gradients"):
            e.train_step(ids, ids, AdamW().hp(1))
        with pytest.raises(SessionError, match="there is no unfinished step"):
            e.window_sum(0, 0, 0, 1)
        e.add_gradients(ids, ids, 7)
        name = "blk.0.ffn_down.weight"
        place, values = e.gradient_places()[name][0], e.gradient(name)
        assert values.any()
        assert e.window_sum(0, 0, place, values.size).tobytes() == values.tobytes()
        for first, level, at, n, wrong in [
            (0, 1, 0, 1, "must name a node of the tree over the windows 0 to 0"),
            (0, 99, 0, 1, "must name a node"),
            (0, 0, 10**9, 1, "must lie within the"),
            (0, 0, -1, 1, "must lie within the"),
        ]:
            with pytest.raises(TinyNNValueError, match=wrong):
                e.window_sum(first, level, at, n)
        weight = e.weights[name]
        with pytest.raises(TinyNNValueError, match="part = 1 must be between 0 and 0"):
            nn.tnn_gradient_place(e.sess, weight, 1)
        with pytest.raises(TinyNNValueError, match="must be a parameter that fused operators use"):
            nn.tnn_gradient_parts(e.sess, e.t_seq_token_ids)
        e.forward(ids)
        with pytest.raises(SessionError, match="known only after tnn_realize_backward"):
            nn.tnn_gradient_parts(e.sess, weight)


def test_a_node_that_is_added_to_its_parent_cannot_be_downloaded() -> None:
    ids, targets = windows_of(TIED)
    with realized(TIED.cfg, **{**TIED.options, "t_batch": WINDOWS, "optimizer": "none"}) as e:
        e.build_training_step()
        e.add_gradients(ids.ravel(), targets.ravel(), 7)
        with pytest.raises(
            TinyNNValueError, match=r"first = 2 and level = 0 name a node whose parent .* 0 to 5; .* window 2"
        ):
            e.window_sum(2, 0, 0, 1)
        assert e.window_sum(4, 1, 0, 1).size == e.window_sum(0, 2, 0, 1).size == 1
