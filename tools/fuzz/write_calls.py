"""Generate the table of calls of the fuzz target from csrc/tinynn.h; CMake runs this script.

    python tools/fuzz/write_calls.py FOLDER

For each call that takes only numbers and handles, calls.c contains the C code that decodes the arguments, makes the
call and checks the result. array_calls.h declares the other calls, which array_calls.c must define, otherwise the
target does not link. So a call that is added to the header is fuzzed, or the build fails.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from pycparser import c_ast, c_parser

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from paths import CSRC

sys.path.insert(0, str(CSRC))

from build_cffi import declarations

HEADER = CSRC / "tinynn.h"

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
# Calls whose arguments could be generated, but which tools/fuzz/array_calls.c makes.
BY_HAND = {
    "tnn_session_new", "tnn_session_free", "tnn_session_set_n_threads", "tnn_reset_for_rebuild", "tnn_last_error",
    "tnn_last_error_code", "tnn_gemm_kernel_at",
}  # fmt: skip
MAY_BE_NONE = {"tnn_tensor_src"}
COMPUTES = {"tnn_compute", "tnn_compute_backward"}
# Complete sequences of calls that tools/fuzz/journeys.c adds, because random single calls rarely form them.
JOURNEYS = ["use_session", "feed", "look", "finish_forward", "finish_backward"]


@dataclass(frozen=True)
class Call:
    """A function of tinynn.h: what it returns and takes, by C type."""

    name: str
    result: str
    arguments: list[str]

    @property
    def of_session(self) -> bool:
        return bool(self.arguments) and self.arguments[0] in ("tnn_session *", "const tnn_session *")

    @property
    def generated(self) -> bool:
        """Whether the code for the call is generated: it takes only numbers and handles."""
        numbers = self.arguments[1:] if self.of_session else self.arguments
        known = self.result in (RESULTS if self.of_session else ANSWERS)
        return known and self.name not in BY_HAND and all(one in ARGUMENTS for one in numbers)


def _spelled(node: c_ast.Node) -> str:
    if isinstance(node, c_ast.PtrDecl):
        return f"{_spelled(node.type)} *".replace("* *", "**")
    return " ".join([*node.quals, *node.type.names])


def calls_of(header: str) -> list[Call]:
    """Return every function that the header declares, in its order."""
    plain = re.sub(r"/\*.*?\*/", "", declarations(header), flags=re.DOTALL)
    types = "".join(f"typedef int {name};\n" for name in ("int32_t", "int64_t", "uint64_t"))
    found = []
    for node in c_parser.CParser().parse(types + plain).ext:
        if isinstance(node, c_ast.Decl) and isinstance(node.type, c_ast.FuncDecl):
            arguments = [_spelled(one.type) for one in node.type.args.params]
            found.append(Call(node.name, _spelled(node.type.type), [one for one in arguments if one != "void"]))
    return found


def body_of(call: Call) -> str:
    """Return the C function that makes a generated call."""
    numbers = call.arguments[1:] if call.of_session else call.arguments
    lines = [f"    {kind} a{i} = {ARGUMENTS[kind]};" for i, kind in enumerate(numbers)]
    given = ", ".join([*(["d->here->s"] if call.of_session else []), *(f"a{i}" for i in range(len(numbers)))])
    made = f"{call.name}({given})"
    if not call.of_session:
        lines += [f"    {ANSWERS[call.result].format(call=made)};", "    d->calls++;"]
    else:
        check = "end_maybe_tensor" if call.name in MAY_BE_NONE else RESULTS[call.result]
        made = f"{check}(d, {made});"
        lines.append(f"    if (!takes_long(d)) {made}" if call.name in COMPUTES else f"    {made}")
        lines.insert(0, f'    begin(d, "{call.name}");')
    return "\n".join([f"static void call_{call.name}(struct decoder * d) {{", *lines, "}\n"])


def table(header: str) -> list[str]:
    """Return the names of everything that an input can call, in the order of their numbers."""
    return [*(call.name for call in calls_of(header)), *JOURNEYS]


def write(header: str, folder: Path) -> None:
    """Write array_calls.h and calls.c into the folder."""
    calls = calls_of(header)
    by_hand = [*(call.name for call in calls if not call.generated), *JOURNEYS]
    declared = "".join(f"void call_{name}(struct decoder * d);\n" for name in by_hand)
    (folder / "array_calls.h").write_text('#include "decoder.h"\n\n' + declared, encoding="utf-8")
    rows = "".join(f'    {{ "{name}", call_{name} }},\n' for name in table(header))
    (folder / "calls.c").write_text(
        "\n".join([
            '#include "array_calls.h"\n',
            *(body_of(call) for call in calls if call.generated),
            f"const struct call CALLS[] = {{\n{rows}}};",
            "const int N_CALLS = (int) (sizeof(CALLS) / sizeof(CALLS[0]));\n",
        ]),
        encoding="utf-8",
    )  # fmt: skip


if __name__ == "__main__":
    write(HEADER.read_text(encoding="utf-8"), Path(sys.argv[1]))
