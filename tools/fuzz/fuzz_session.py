"""Run one fuzz round: calls of the session API in random order with valid, boundary and hostile arguments.

A round depends only on its seed. A call must raise only toynn's own exceptions. After a round the session must be
closed or still able to compute. Results must have the same bytes with any number of threads, with every node kept in
memory, and if the graph is computed node by node. `run` plays each round in two such variants and compares the results.
fuzz_rounds.py runs many rounds in a child process, so that it can report a crash.
"""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fuzz_arguments import Arguments, mapped_files
from fuzz_operators import LARGEST, fitting_call
from toynn import InternalError, Session, TinyNNError, TinyNNMemoryError
from toynn import tinynn as nn

# Functions that create or free a session, and functions without a session argument.
_OTHERS = {"tnn_session_new", "tnn_session_new_on", "tnn_session_free", "tnn_random_seed", "tnn_random_gaussian"}
HYPER_PARAMETERS = [0.01, 0.9, 0.95, 1e-8, 0.1, 0.9, 0.95]  # hyperparameters for AdamW


@dataclass(frozen=True)
class Variant:
    """The settings of a round. The bits of the results must not depend on these settings."""

    n_threads: int = 1
    pinned: bool = False  # whether every node of the last graph is an output
    profiled: bool = False  # whether the last graph is computed node by node


PLAIN = Variant()
VARIANTS = [Variant(2), Variant(3), Variant(pinned=True), Variant(2, pinned=True), Variant(profiled=True)]


class DifferenceError(Exception):
    """Two variants of a round gave different numbers, or a session computes wrong numbers."""


class Round(Arguments):
    """A sequence of calls: a session, the tensors created so far, and a stream of random choices."""

    def __init__(self, seed: int, variant: Variant = PLAIN) -> None:
        super().__init__(random.Random(seed), Session(n_threads=variant.n_threads, oversubscribe=True))
        self.variant = variant
        # for each parameter, the weight and its two moments
        self.parameters: list[tuple[nn.Tensor, nn.Tensor, nn.Tensor]] = []
        self.calls = 0
        self.refused = 0
        self.computed = 0
        self.kept = False  # whether the gradients of the graph are outputs
        self.succeeded: set[str] = set()  # names of the functions whose calls succeeded
        self.numbers: list[Any] = []  # all results, to compare the variants
        self.attempt(nn.tnn_session_set_graph_capacity, self.session, self.random.choice([40, 100, 512, 512, 2000]))

    # ---- valid first calls, so that the round can build graphs ----

    def start(self) -> None:
        """Declare some weights and inputs."""
        s, pick = self.session, self.random
        d = pick.choice([4, 8])
        for _ in range(pick.randint(1, 4)):
            self.weight(d, pick.choice([3, d, 12]))
        self.weight(d)
        if pick.random() < 0.3:
            self.map_weights(d)
        if pick.random() < 0.9:
            nn.tnn_finalize_weights(s)
            self.tensors += [nn.tnn_input_2d_f32(s, 3, d), nn.tnn_input_1d_i32(s, 3), nn.tnn_input_1d_f32(s, 7)]
            self.tensors += [nn.tnn_input_1d_i32(s, 1)]

    def map_weights(self, d: int) -> None:
        """Declare weights of several dtypes and shapes. Some of the weights are mapped from files."""
        s, pick = self.session, self.random
        floats, blocks = pick.choice([nn.TNN_F32, nn.TNN_F16, nn.TNN_BF16]), pick.choice([2, 3, 6, 7, 8, 20, 39])
        made = [self.attempt(nn.tnn_input_2d_persistent_typed, s, 3, d, floats)]
        made += [
            self.attempt(nn.tnn_input_4d_f32_persistent, s, 1, 2, 3, d),
            self.attempt(nn.tnn_input_3d_f32_persistent, s, 2, 3, d),
            self.attempt(nn.tnn_input_1d_i32_persistent, s, 3),
            self.attempt(nn.tnn_rope_freq_factors_alloc, s, d),
        ]
        for file in mapped_files()[:2]:
            self.attempt(nn.tnn_session_attach_weight_mmap, s, file)
            made.append(self.attempt(nn.tnn_input_1d_persistent_mmap, s, d, nn.TNN_F32, 4 * pick.randrange(100)))
            made.append(self.attempt(nn.tnn_input_2d_persistent_mmap, s, 3, d, floats, 1024))
            made.append(self.attempt(nn.tnn_input_2d_persistent_mmap, s, 2, 32, blocks, 2 * pick.randrange(100)))
            made.append(self.attempt(nn.tnn_input_3d_persistent_mmap, s, 2, 3, d, nn.TNN_F32, 0))
        self.tensors += [one for one in made if isinstance(one, nn.Tensor)]
        self.attempt(nn.tnn_tensor_set_interleaved, self.tensors[-2], 2)
        if pick.random() < 0.3:
            self.attempt(nn.tnn_tensor_set_bf16_products, pick.choice(self.tensors))

    def start_fused(self) -> None:
        """Build a model of the fused operators, sometimes with a wrong operand."""
        s, pick = self.session, self.random
        d_head, n_kv, group = pick.choice([2, 4, 6, 16]), pick.choice([1, 2, 3]), pick.choice([1, 2])
        heads, t_seq, batch = n_kv * group, pick.choice([1, 2, 5, 9]), pick.choice([1, 1, 2, 3])
        d, d_ff, vocab, rows = pick.choice([4, 9, 24]), pick.choice([3, 8, 17]), pick.choice([5, 16, 33]), t_seq * batch
        table, gamma, head = self.weight(d, vocab), self.weight(d), self.weight(d, vocab)
        norms = [self.weight(d_head) for _ in range(2)] if pick.random() < 0.3 else None
        q, k, v = (self.weight(d, n * d_head) for n in (heads, n_kv, n_kv))
        bias = [self.weight(n * d_head) for n in (heads, n_kv, n_kv)] if pick.random() < 0.5 else None
        out, gate, up, down = (self.weight(*size) for size in ((heads * d_head, d), (d, d_ff), (d, d_ff), (d_ff, d)))
        cache_rows, cache_type = rows + pick.choice([0, 3]), pick.choice([nn.TNN_F32, nn.TNN_F16])
        cache = self.attempt(nn.tnn_kv_cache, s, cache_rows, 2 * n_kv * d_head, cache_type)
        nn.tnn_finalize_weights(s)
        self.attempt(nn.tnn_resize_kv_caches, s, pick.choice([0, cache_rows, cache_rows + 5, 2**40]))
        ids, positions, targets, starts = (nn.tnn_input_1d_i32(s, rows) for _ in range(4))
        hp, clip, n_past = nn.tnn_input_1d_f32(s, 7), nn.tnn_input_1d_f32(s, 2), nn.tnn_input_1d_i32(s, 1)
        each_past, first_rows = nn.tnn_input_1d_i32(s, batch), nn.tnn_input_1d_i32(s, batch)
        self.tensors += [cache, ids, positions, targets, starts, hp, clip, n_past, each_past, first_rows]

        def made(function: Callable[..., nn.Tensor], *arguments: Any, **options: Any) -> nn.Tensor:
            """Create a node, sometimes with another tensor in place of an operand."""
            arguments = tuple(self.tensor() if a is not None and pick.random() < 0.01 else a for a in arguments)
            result = self.attempt(function, s, *arguments, **options)
            self.tensors += [result] if isinstance(result, nn.Tensor) else []
            return self.tensors[-1]

        x = made(nn.tnn_get_rows, table, ids)
        if pick.random() < 0.3:
            x = made(nn.tnn_fused_scale, x, 1.5)
        turn = made(nn.tnn_fused_rope_table, positions, None, d_head, 10000.0, 1.0, 1.0)
        for _ in range(pick.choice([0, 1, 1, 2])):
            h = made(nn.tnn_fused_rms_norm, x, gamma, 1e-5)
            qkv = made(nn.tnn_fused_linear, h, [q, k, v], bias)
            if norms is not None:
                qkv = made(nn.tnn_fused_head_norm, qkv, *norms, heads, n_kv, 1e-5)
            options: dict[str, Any] = {"window": pick.choice([0, 0, 1, 3, 2**63 - 1]), "scale": pick.choice([0.0, 0.5])}
            if pick.random() < 0.3:
                past = n_past if batch == 1 else each_past
                options |= {} if batch == 1 else {"n_ctx": pick.choice([0, t_seq]), "first_rows": first_rows}
                a = made(nn.tnn_fused_attention_cached, qkv, turn, cache, past, heads, n_kv, **options)
            else:
                options["starts"] = starts if pick.random() < 0.3 else None
                a = made(nn.tnn_fused_attention, qkv, turn, heads, n_kv, t_seq, **options)
            x = made(nn.tnn_fused_linear, a, [out], None, x)
            h = made(nn.tnn_fused_rms_norm, x, gamma, 1e-5)
            gated = pick.choice([nn.tnn_fused_swiglu, nn.tnn_fused_geglu])
            h = made(gated, made(nn.tnn_fused_linear, h, [gate, up]))
            x = made(nn.tnn_add, x, made(nn.tnn_fused_linear, h, [down]))
            if pick.random() < 0.3:
                self.attempt(nn.tnn_set_recompute, x)
        output = head if pick.random() < 0.5 else table
        if pick.random() < 0.5:
            loss = made(nn.tnn_fused_output_loss, x, output, targets, -1, None, pick.randint(1, 8))
        else:
            loss = made(nn.tnn_fused_cross_entropy, made(nn.tnn_fused_linear, x, [output]), targets, -1)
        if pick.random() < 0.3:
            self.attempt(nn.tnn_set_z_loss, s, loss, pick.choice([0.0, 1e-4, -1.0]))
        if batch == 2:
            pairs = loss, nn.tnn_input_2d_f32(s, 2, batch), nn.tnn_input_1d_f32(s, 3)
            of_pairs = self.attempt(nn.tnn_fused_preference_loss, s, *pairs, kind=t_seq % 3)
            loss = of_pairs if isinstance(of_pairs, nn.Tensor) else loss
        self.step = nn.TrainStep(ids, targets, hp, loss)

    def weight(self, *ne: int) -> nn.Tensor:
        """Declare a weight of shape [ne0] or [ne0, ne1] with its moments, usually as a parameter."""
        s = self.session
        make = nn.tnn_input_1d_f32_persistent if len(ne) == 1 else nn.tnn_input_2d_f32_persistent
        w, m, v = (make(s, *ne[::-1]) for _ in range(3))
        self.succeeded.add(make.__name__)
        if self.random.random() < 0.7:
            nn.tnn_set_param(w)
            self.parameters.append((w, m, v))
        self.tensors.append(w)
        return w

    def grow(self) -> None:
        """Add a node of a ggml operator whose operands have fitting shapes."""
        s = self.session
        known = [(t, t.ne, nn.tnn_tensor_dtype(t)) for t in self.tensors if self.alive(t)]
        small = [(t, ne, dtype) for t, ne, dtype in known if math.prod(ne) <= LARGEST]
        if not any(dtype == nn.TNN_F32 for _, _, dtype in small):
            return
        function, *arguments = fitting_call(self.random, small)
        made = self.attempt(function, s, *arguments)
        if isinstance(made, nn.Tensor):
            self.tensors = [*self.tensors[-60:], made]

    def alive(self, tensor: nn.Tensor) -> bool:
        try:
            return nn.tnn_tensor_nelements(tensor) > 0
        except TinyNNError:
            return False

    # ---- calls ----

    def call(self, function: Callable[..., Any]) -> Any:
        """Call a function with random arguments and keep the returned tensor.

        Exceptions that are not toynn's are raised unchanged.
        """
        arguments, options = self.arguments(function)
        result = self.attempt(function, *arguments, **options)
        if isinstance(result, nn.Tensor) and result.session is self.session:
            self.tensors = [*self.tensors[-60:], result]
        return result

    def attempt(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Return the result or the TinyNNError. Keep numbers for the comparison of variants."""
        self.calls += 1
        try:
            result = function(*arguments, **options)
        except InternalError:
            raise
        except TinyNNError as error:
            self.refused += 1
            return error
        self.succeeded.add(function.__name__)
        if isinstance(result, np.ndarray) and result.dtype.itemsize == 4:
            self.numbers.append(result.tobytes())
        return result

    def run_graph(self) -> None:
        """Realize a forward graph or a training graph, upload inputs and compute, in any state of the session."""
        s, pick, attempt = self.session, self.random, self.attempt
        if not self.tensors:
            return
        end = self.tensors[-1] if pick.random() < 0.7 else pick.choice(self.tensors)
        backward = pick.random() < 0.6
        attempt(nn.tnn_set_output, end)
        if self.variant.pinned:
            for tensor in self.tensors:
                attempt(nn.tnn_set_output, tensor)
        if pick.random() < 0.2:
            attempt(nn.tnn_add_to_graph, s, pick.choice(self.tensors))
        realized = self.training_graph(end) if backward else attempt(nn.tnn_realize, s, end)
        self.feed()
        for _ in range(pick.choice([1, 2])):
            attempt(nn.tnn_graph_reset if pick.random() < 0.5 else nn.tnn_graph_reset_grads_only, s)
            whole = nn.tnn_compute_backward if backward else nn.tnn_compute
            # tnn_compute_profiled accepts both kinds of graph, so it can accept a graph that the call `whole` refuses.
            profiled = self.variant.profiled and realized is None
            done = attempt(nn.tnn_compute_profiled if profiled else whole, s)
            self.computed += not isinstance(done, TinyNNError)
            self.record_contents()
        if backward and self.step is not None:
            self.train(self.step)
            self.record_contents()
        elif not backward and pick.random() < 0.4:
            self.second_graph()

    def second_graph(self) -> None:
        """Build a second forward graph, which may use nodes that were added after the first graph.

        Compute both in turn.
        """
        s, pick, attempt = self.session, self.random, self.attempt
        for _ in range(pick.randint(0, 4)):
            self.grow()
        if self.variant.pinned:
            for tensor in self.tensors:
                attempt(nn.tnn_set_output, tensor)
        attempt(nn.tnn_realize_b, s, self.tensors[-1])
        turns = [(nn.tnn_switch_b, nn.tnn_compute_b), (nn.tnn_switch_a, nn.tnn_compute)]
        for switch, compute in turns * pick.choice([1, 2]):
            # If the switch fails, tnn_compute_profiled could compute the other graph.
            profiled = attempt(switch, s) is None and self.variant.profiled
            self.feed()
            done = attempt(nn.tnn_compute_profiled if profiled else compute, s)
            self.computed += not isinstance(done, TinyNNError)
            self.record_contents()

    def training_graph(self, loss: nn.Tensor) -> Any:
        """Build and realize a training graph for the loss. Return None, or the error."""
        s, attempt = self.session, self.attempt
        if self.step is not None:
            attempt(nn.tnn_set_output, self.step.loss)
        attempt(nn.tnn_set_loss, loss)
        attempt(nn.tnn_build_forward_only, s, loss)
        attempt(nn.tnn_build_backward, s)
        self.optimizers()
        if self.variant.pinned:
            attempt(nn.tnn_pin_all_graph_b_nodes, s)
        return attempt(nn.tnn_realize_backward, s)

    def train(self, step: nn.TrainStep) -> None:
        """Train one step of the fused model on the current training graph."""
        pick, n = self.random, math.prod(step.ids.ne) if self.alive(step.ids) else 3
        ids, targets = ([pick.randrange(4) for _ in range(n)] for _ in range(2))
        options = {name: pick.random() < 0.3 for name in ("reset_moments", "accumulate", "update")}
        # If this graph does not keep its gradients, a step with accumulate succeeds only in a variant that pins all
        # nodes. The results of the variants would then differ.
        options["accumulate"] &= self.kept
        # A variant that pins all nodes keeps the gradients. After a step without an update, this variant adds the
        # windows of the next step to the kept gradients. The other variants add in another order, so the results would
        # differ.
        options["update"] |= not self.kept
        if pick.random() < 0.3 and self.kept:
            self.attempt(nn.tnn_reserve_batches, self.session, 2)
        result = self.attempt(nn.tnn_train_step, self.session, step, ids, targets, HYPER_PARAMETERS, **options)
        if not isinstance(result, TinyNNError):
            self.numbers.append(np.array(result, dtype=float).tobytes())  # loss and norm; a missing norm is NaN
        if self.kept and not options["update"]:
            self.window_sums()
        if self.kept:
            self.train_in_parts(step, ids, targets)

    def train_in_parts(self, step: nn.TrainStep, ids: list[int], targets: list[int]) -> None:
        """Begin a batch without an update, and complete it up to a random parameter, to its end, or not at all."""
        pick, attempt = self.random, self.attempt
        attempt(nn.tnn_begin_step, self.session, step, ids, targets, HYPER_PARAMETERS, accumulate=pick.random() < 0.3)
        for w in (pick.choice(self.parameters)[0], None)[: pick.choice((0, 1, 2, 2))]:
            attempt(nn.tnn_continue_step, self.session, w)
            self.window_sums()

    def window_sums(self) -> None:
        """Download a part of the gradient of each parameter in the first window of an unfinished step."""
        for w, _, _ in self.parameters:
            self.attempt(nn.tnn_gradient_parts, self.session, w)
            place = self.attempt(nn.tnn_gradient_place, self.session, w, 0)
            if isinstance(place, int):
                self.attempt(nn.tnn_download_window_sum, self.session, 0, 0, place, 1)

    def optimizers(self) -> None:
        """Add an optimizer step of any kind for most parameters, with or without a gradient norm.

        Keep some gradients.
        """
        s, pick, attempt = self.session, self.random, self.attempt
        grads = [(w, attempt(nn.tnn_tensor_grad, s, w), m, v) for w, m, v in self.parameters]
        grads = [one for one in grads if isinstance(one[1], nn.Tensor)]
        hp, clip, norm = attempt(nn.tnn_input_1d_f32, s, 7), attempt(nn.tnn_input_1d_f32, s, 2), None
        self.kept = keep = pick.random() < 0.5
        if pick.random() < 0.5 and grads:
            norm = attempt(nn.tnn_fused_grad_norm, s, [grad for _, grad, _, _ in grads], clip)
            attempt(nn.tnn_set_output, norm)
        for w, grad, m, v in grads:
            if keep or self.variant.pinned:
                attempt(nn.tnn_set_output, grad)
            given_norm = norm if isinstance(norm, nn.Tensor) else None
            if pick.random() < 0.2 and isinstance(hp, nn.Tensor):
                step = attempt(nn.tnn_fused_muon, s, w, grad, m, attempt(nn.tnn_view_1d, s, hp, 3, 0), given_norm)
            elif given_norm is not None or pick.random() < 0.7:
                step = attempt(nn.tnn_fused_adamw, s, w, grad, m, v, hp, given_norm)
            elif pick.random() < 0.8:
                step = attempt(nn.tnn_opt_step_adamw, s, w, grad, m, v, hp)
            else:
                step = attempt(nn.tnn_opt_step_sgd, s, w, grad, clip)  # hp of SGD has two elements, like clip
            if isinstance(step, nn.Tensor):
                attempt(nn.tnn_extend_backward_graph, s, step)
        if self.step is not None and isinstance(hp, nn.Tensor):
            self.step = replace(self.step, hp=hp, norm=norm if isinstance(norm, nn.Tensor) else None)
        self.tensors += [t for t in (hp, clip, norm, *(grad for _, grad, _, _ in grads)) if isinstance(t, nn.Tensor)]

    def feed(self) -> None:
        """Upload values to every input. Most of the values are valid."""
        s = self.session
        numbers = np.random.default_rng(self.random.randrange(2**32))
        for tensor in self.tensors:
            try:
                if nn.tnn_tensor_op_name(tensor) != "NONE":
                    continue
                n = nn.tnn_tensor_nelements(tensor)
                if n > LARGEST:
                    nn.tnn_zero_tensor(s, tensor)
                elif nn.tnn_tensor_dtype(tensor) == nn.TNN_I32:
                    nn.tnn_upload_from_int_array(s, tensor, numbers.integers(0, numbers.choice([1, 3]), n))
                elif n == 7:
                    nn.tnn_upload_from_float_array(s, tensor, HYPER_PARAMETERS)
                else:
                    nn.tnn_upload_from_float_array(s, tensor, numbers.standard_normal(n))
            except TinyNNError:
                self.refused += 1

    def record_contents(self) -> None:
        """Append the contents of every tensor to the numbers."""
        weights = [one for three in self.parameters for one in three]
        self.numbers.append([self.contents(tensor) for tensor in (*self.tensors, *weights)])

    def contents(self, tensor: nn.Tensor) -> bytes | None:
        """Return the bytes of a tensor, or None if it cannot be downloaded."""
        s = self.session
        try:
            integers = nn.tnn_tensor_dtype(tensor) == nn.TNN_I32
            return (nn.tnn_download_to_int_array if integers else nn.tnn_download)(s, tensor).tobytes()
        except TinyNNError:
            return None

    def finish(self) -> None:
        """Check that the session still computes if it is open. Then close both sessions."""
        if not self.session.closed:
            finalized = self.attempt(nn.tnn_finalize_weights, self.session)
            if not isinstance(finalized, TinyNNMemoryError):
                nn.tnn_reset_for_rebuild(self.session)
                nn.tnn_session_set_graph_capacity(self.session, 512)
                computes(self.session)
        self.session.close()
        self.other.close()


def computes(s: Session) -> None:
    """Check the result of a small computation on a finalized session."""
    x = nn.tnn_input_2d_f32(s, 3, 4)
    y = nn.tnn_scale(s, x, 2.0)
    nn.tnn_set_output(y)
    nn.tnn_realize(s, y)
    nn.upload_row_major(s, x, np.ones((3, 4)))
    nn.tnn_compute(s)
    if not (nn.download_row_major(s, y, 3, 4) == 2).all():
        raise DifferenceError("a session computes wrong numbers")


def functions() -> list[Callable[..., Any]]:
    """Return every function of toynn.tinynn whose first parameter is a session or a tensor."""
    found: list[Callable[..., Any]] = []
    for name in nn.__all__:
        function = getattr(nn, name)
        if inspect.isfunction(function) and name not in _OTHERS and name == function.__name__:  # aliases are left out
            parameters = list(inspect.signature(function).parameters.values())
            if parameters and parameters[0].annotation in ("Session", "Tensor"):
                found.append(function)
    return found


def play(seed: int, variant: Variant, every: list[Callable[..., Any]]) -> Round:
    """Play one round in one variant, and return its results.

    Raises:
        Exception: a call raised an exception that is not a TinyNNError, or a session computes wrong numbers.
    """
    one = Round(seed, variant)
    pick = one.random
    fused = pick.random() < 0.4
    (one.start_fused if fused else one.start)()
    makers = [f for f in every if str(inspect.signature(f).return_annotation).startswith("Tensor")]
    wild = pick.choice([0.0, 0.2, 0.9])
    for _ in range(pick.choice([0, 0, 1, 5] if fused else [5, 20, 60])):
        if pick.random() < wild:
            one.call(pick.choice(makers if pick.random() < 0.8 else every))
        else:
            one.grow()
    one.run_graph()
    if not variant.pinned:
        for _ in range(pick.choice([0, 10, 20])):
            one.call(pick.choice(every))
    one.finish()
    return one


def run(seed: int, every: list[Callable[..., Any]]) -> Round:
    """Play one round in the plain variant and in another variant. Raise DifferenceError if the numbers differ."""
    variant = VARIANTS[random.Random(f"variant of {seed}").randrange(len(VARIANTS))]
    one, two = play(seed, PLAIN, every), play(seed, variant, every)
    for place, (a, b) in enumerate(zip(one.numbers, two.numbers, strict=variant.pinned is False)):
        same = a == b
        if isinstance(a, list) and isinstance(b, list):
            same = all(x is None or y is None or x == y for x, y in zip(a, b, strict=True))
        if not same:
            raise DifferenceError(f"seed {seed}: number {place} differs between {PLAIN} and {variant}")
    one.calls, one.refused = one.calls + two.calls, one.refused + two.refused
    one.succeeded |= two.succeeded
    return one
