"""All exceptions of toynn.

Each is a `TinyNNError`, and also an instance of the built-in class that a caller would expect.
"""

from __future__ import annotations


class TinyNNError(Exception):
    """Base class of all toynn errors."""


class SessionError(TinyNNError, RuntimeError):
    """A call was made in the wrong state or order: after close or fork, before realize, or with a stale handle."""


class UninitialisedError(SessionError, AttributeError):
    """An object whose `__init__` did not run was used, for example one that `cls.__new__(cls)` made."""


class TinyNNValueError(TinyNNError, ValueError):
    """An argument of the right type has a wrong value: a wrong shape or length, or a number out of range."""


class ConfigurationError(TinyNNValueError):
    """A configuration cannot be used: it has an unknown key, a wrong value, or keys that contradict each other."""


class FileFormatError(TinyNNValueError):
    """A file or folder is damaged, has another format, or was written by a newer version of toynn."""


class RunFolderError(SessionError):
    """A run folder cannot be written: another process is writing it, or it was closed or removed."""


class ProcessError(TinyNNError, RuntimeError):
    """A job of several processes cannot go on: a process failed, or the processes do not fit together."""


class MappedFileError(TinyNNError, OSError):
    """A mapped file became shorter, was changed, or could not be read while its tensors were in use."""


class TinyNNTypeError(TinyNNError, TypeError):
    """An argument has the wrong type or dtype."""


class ConfigurationTypeError(ConfigurationError, TinyNNTypeError):
    """A value in a configuration file, or in a `section.key=VALUE` setting, has the wrong type."""


class TinyNNMemoryError(TinyNNError, MemoryError):
    """There is not enough memory."""


class InternalError(TinyNNError, RuntimeError):
    """ggml reported a failure that toynn's checks did not foresee. This is a bug in toynn; please report it."""
