"""Refuse to be imported by any interpreter except the first one of the process."""

from __future__ import annotations


def _refuse_sub_interpreter() -> None:
    """Raise ImportError in a sub-interpreter, because numpy and cffi keep state that belongs to a single interpreter.

    This runs before any other import, for two reasons. numpy's own error does not say what to do, and on Python 3.11
    and earlier numpy only prints a warning. Python 3.12.1 crashes later if one of its own extension modules could not
    be imported in a sub-interpreter.
    """
    try:
        import ctypes

        python = ctypes.pythonapi
    except ImportError as error:
        if "subinterpreter" in str(error):  # ctypes of Python 3.12 refuses to be imported in a sub-interpreter
            raise _refusal() from None
        return  # without libffi, ctypes cannot be imported, and the id of the interpreter cannot be read
    python.PyInterpreterState_Get.restype = ctypes.c_void_p
    python.PyInterpreterState_GetID.argtypes = [ctypes.c_void_p]
    python.PyInterpreterState_GetID.restype = ctypes.c_int64
    if python.PyInterpreterState_GetID(python.PyInterpreterState_Get()) != 0:  # the id of the first interpreter is 0
        raise _refusal()


def _refusal() -> ImportError:
    return ImportError(
        "toynn works in a process's main interpreter only: this is a sub-interpreter, which numpy and cffi do not "
        "support. Use threads (other threads run during a computation) or processes instead; under mod_wsgi, set "
        "WSGIApplicationGroup %{GLOBAL}"
    )


_refuse_sub_interpreter()
