"""Generate the table of calls of the fuzz target from csrc/tinynn.h; CMake runs this script.

    python tools/fuzz/write_calls.py FOLDER

For each call that takes only numbers and handles, calls.c contains the C code that decodes the arguments, makes the
call and checks the result. array_calls.h declares the other calls, which array_calls.c must define, otherwise the
target does not link. So a new call in the header is either fuzzed or makes the build fail.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from read_header import HEADER, Argument, Call, read_header

# The C expression that decodes an argument of each type.
ARGUMENTS = {
    "tnn_tensor": "tensor_of(d)",
    "int32_t": "int32_of(d)",
    "int64_t": "int64_of(d)",
    "float": "float_of(d)",
    "double": "double_of(d)",
}
# The C function that checks the result of a call with a session, by result type.
RESULTS = {
    "tnn_tensor": "end_tensor",
    "int": "end_status",
    "int64_t": "end_count",
    "const char *": "end_text",
}
# The C statement that checks the result of a call without a session, by result type.
ANSWERS = {
    "const char *": "HOLDS({call} != NULL)",
    "int32_t": "HOLDS({call} >= 1)",
    "int64_t": "HOLDS({call} >= 0)",
}
# Calls that are written by hand in tools/fuzz/array_calls.c, although their arguments could be generated.
BY_HAND = {
    "tnn_session_new", "tnn_session_free", "tnn_session_set_n_threads", "tnn_reset_for_rebuild", "tnn_last_error",
    "tnn_last_error_code", "tnn_gemm_kernel_at", "tnn_row_size", "tnn_type_name",
}  # fmt: skip
COMPUTES = {"tnn_compute", "tnn_compute_b", "tnn_compute_backward", "tnn_continue_step"}
# Complete sequences of calls that tools/fuzz/call_sequences.c adds, because random single calls rarely form them.
CALL_SEQUENCES = ["use_session", "feed", "look", "finish_forward", "finish_backward"]


def calls_of(header: str) -> list[Call]:
    """Return every function that the header declares, in its order."""
    return read_header(header).calls


def is_generated(call: Call) -> bool:
    """Return whether the code for the call is generated.

    This is the case if the call takes only numbers and handles.
    """
    known = call.result in (RESULTS if call.of_session else ANSWERS)
    return known and call.name not in BY_HAND and all(one.type in ARGUMENTS for one in _decoded(call))


def _decoded(call: Call) -> list[Argument]:
    """Return the arguments that are decoded from the input: all arguments except the session."""
    return list(call.arguments[call.of_session :])


def body_of(call: Call) -> str:
    """Return the C function that makes a generated call."""
    numbers = _decoded(call)
    lines = [f"    {one.type} a{i} = {ARGUMENTS[one.type]};" for i, one in enumerate(numbers)]
    given = ", ".join([*(["d->here->s"] if call.of_session else []), *(f"a{i}" for i in range(len(numbers)))])
    made = f"{call.name}({given})"
    if not call.of_session:
        lines += [f"    {ANSWERS[call.result].format(call=made)};", "    d->calls++;"]
    else:
        check = "end_maybe_tensor" if call.may_be_none else RESULTS[call.result]
        made = f"{check}(d, {made});"
        lines.append(f"    if (!takes_long(d)) {made}" if call.name in COMPUTES else f"    {made}")
        lines.insert(0, f'    begin(d, "{call.name}");')
    return "\n".join([f"static void call_{call.name}(struct decoder * d) {{", *lines, "}\n"])


def table(header: str) -> list[str]:
    """Return the names of everything that an input can call, in the order of their numbers."""
    return [*(call.name for call in calls_of(header)), *CALL_SEQUENCES]


def write(header: str, folder: Path) -> None:
    """Write array_calls.h and calls.c into the folder."""
    calls = calls_of(header)
    by_hand = [*(call.name for call in calls if not is_generated(call)), *CALL_SEQUENCES]
    declared = "".join(f"void call_{name}(struct decoder * d);\n" for name in by_hand)
    (folder / "array_calls.h").write_text('#include "decoder.h"\n\n' + declared, encoding="utf-8")
    rows = "".join(f'    {{ "{name}", call_{name} }},\n' for name in table(header))
    (folder / "calls.c").write_text(
        "\n".join([
            '#include "array_calls.h"\n',
            *(body_of(call) for call in calls if is_generated(call)),
            f"const struct call CALLS[] = {{\n{rows}}};",
            "const int N_CALLS = (int) (sizeof(CALLS) / sizeof(CALLS[0]));\n",
        ]),
        encoding="utf-8",
    )  # fmt: skip


if __name__ == "__main__":
    write(HEADER.read_text(encoding="utf-8"), Path(sys.argv[1]))
