"""Initialised: an object whose `__init__` did not run raises UninitialisedError. Other objects behave as usual."""

from __future__ import annotations

import copy
import pickle

import pytest

from toynn import AdamW, LlamaDecoder, RecipeOptions, Session, SessionError, SmolLM2Config, Tensor, TrainingBatch
from toynn.errors import UninitialisedError
from toynn.tinynn import tnn_download

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("kind", "name"),
    [(AdamW, "lr"), (LlamaDecoder, "n_past"), (SmolLM2Config, "vocab"), (Tensor, "ne"), (TrainingBatch, "seq_ids")],
)
def test_the_error_names_the_class_and_is_a_session_error_and_an_attribute_error(kind: type, name: str) -> None:
    empty: object = object.__new__(kind)
    with pytest.raises(UninitialisedError, match=f" because __init__ of this {kind.__name__} did not run") as raised:
        getattr(empty, name)
    assert isinstance(raised.value, SessionError)
    assert not hasattr(empty, name)


def test_an_attribute_that_does_not_exist_is_an_attribute_error() -> None:
    for value in (AdamW(), SmolLM2Config.tiny(), RecipeOptions()):
        with pytest.raises(AttributeError, match=r"object has no attribute 'learning_rate'") as raised:
            _ = value.learning_rate  # type: ignore[union-attr]
        assert not isinstance(raised.value, UninitialisedError)
        assert (raised.value.name, raised.value.obj) == ("learning_rate", value)


def test_objects_can_be_copied_and_pickled() -> None:
    for value in (AdamW(lr=0.5), SmolLM2Config.tiny(), RecipeOptions(t_seq=3)):
        assert copy.copy(value) == copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == value


def test_a_subclass_that_does_not_call_init_of_its_base_raises_the_error() -> None:
    class Batch(TrainingBatch):
        def __init__(self) -> None:
            pass

    with pytest.raises(UninitialisedError, match="__init__ of this Batch did not run"):
        Batch().fill([1, 2])


def test_a_tensor_without_init_is_refused_by_calls() -> None:
    with Session(n_threads=1) as session, pytest.raises(SessionError, match="t is a tensor of another session"):
        tnn_download(session, object.__new__(Tensor))
