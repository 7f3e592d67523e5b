"""Write the C source of the extension module, in cffi's API mode, for the declarations of tinynn.h between the
comments "cffi: begin" and "cffi: end".

python csrc/build_cffi.py csrc/tinynn.h build/_tinynn.c        (CMake runs it)
"""

import re
import sys
from pathlib import Path

from cffi import FFI

BEGIN, END = "/* cffi: begin */", "/* cffi: end */"
MODULE = "toynn._tinynn"


def declarations(header: str) -> str:
    """Return the part of the header that cffi reads: plain C, without the export macro."""
    if header.count(BEGIN) != 1 or header.count(END) != 1 or header.index(BEGIN) > header.index(END):
        raise SystemExit(f"the header must hold {BEGIN!r} and then {END!r}, once each")
    between = header.split(BEGIN, 1)[1].split(END, 1)[0]
    return re.sub(r"\bTNN_API\b\s*", "", between)


def main(header: Path, output: Path) -> None:
    ffi = FFI()
    ffi.cdef(declarations(header.read_text(encoding="utf-8")))
    ffi.set_source(MODULE, f'#include "{header.name}"\n', py_limited_api=True)
    ffi.emit_c_code(str(output))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
