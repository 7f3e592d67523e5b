"""All exceptions of toynn: each is a `TinyNNError` and also the built-in class that a caller would expect."""

from __future__ import annotations


class TinyNNError(Exception):
    """Base class of all toynn errors."""


class SessionError(TinyNNError, RuntimeError):
    """A call in the wrong state or order: after close or fork, before realize, or with a stale or foreign handle."""


class UninitialisedError(SessionError, AttributeError):
    """An object whose `__init__` did not run was used, for example one that `cls.__new__(cls)` made."""


class TinyNNValueError(TinyNNError, ValueError):
    """An argument of the right type with a wrong value: a shape, a length, a range, a number that is not finite."""


class ConfigurationError(TinyNNValueError):
    """A configuration that cannot be used: an unknown key, a wrong value, or keys that contradict each other."""


class FileFormatError(TinyNNValueError):
    """A file or folder that is damaged, has another format, or was written by a newer version."""


class RunFolderError(SessionError):
    """A run folder that cannot be written: another process is writing it, or it was closed or removed."""


class TinyNNTypeError(TinyNNError, TypeError):
    """An argument of the wrong type or dtype."""


class ConfigurationTypeError(ConfigurationError, TinyNNTypeError):
    """A value of the wrong type in a configuration file or in a `section.key=VALUE` setting."""


class TinyNNMemoryError(TinyNNError, MemoryError):
    """There is not enough memory."""


class InternalError(TinyNNError, RuntimeError):
    """ggml reported a failure that the checks of toynn did not foresee: a bug in toynn, please report it."""
