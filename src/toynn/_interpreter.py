"""Refuses to be imported by any interpreter but the process's first."""

from __future__ import annotations


def _refuse_sub_interpreter() -> None:
    """Raises ImportError in a sub-interpreter: numpy and cffi keep state that belongs to one interpreter alone.

    It comes before anything else is imported: numpy's own error there does not say what to do, and on Python 3.11 and
    earlier is a warning; and Python 3.12.1 crashes later if some extensions of its own were refused there.
    """
    try:
        import ctypes

        python = ctypes.pythonapi
    except ImportError as error:
        if "subinterpreter" in str(error):  # Python 3.12's ctypes refuses them too
            raise _refusal() from None
        return  # a Python without libffi: it cannot be asked
    python.PyInterpreterState_Get.restype = ctypes.c_void_p
    python.PyInterpreterState_GetID.argtypes = [ctypes.c_void_p]
    python.PyInterpreterState_GetID.restype = ctypes.c_int64
    if python.PyInterpreterState_GetID(python.PyInterpreterState_Get()) != 0:  # the first one's id
        raise _refusal()


def _refusal() -> ImportError:
    return ImportError(
        "toynn works in a process's main interpreter only, and this is a sub-interpreter, where numpy and cffi do not. "
        "Use threads (a compute lets other threads run) or processes instead; under mod_wsgi: "
        "WSGIApplicationGroup %{GLOBAL}"
    )


_refuse_sub_interpreter()
