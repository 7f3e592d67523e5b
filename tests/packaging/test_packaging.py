"""The contents and properties of the sdist, and of the wheel that is built from it without a network.

These tests build one wheel, in about a minute on two cores, and the slow tests build a second wheel. The build
requirements come from the virtual environment of the tests, which `make test` creates.
"""

from __future__ import annotations

import email
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from paths import ROOT

pytestmark = pytest.mark.packaging

VERSION = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]
DIST_INFO = f"toynn-{VERSION}.dist-info"
LICENCES = ["LICENSE", "NOTICE", "vendor/LICENSE.ggml"]
# The C and C++ runtimes, which every system has. ld-linux is part of glibc.
ALLOWED_LIBRARIES = re.compile(r"(libc|libm|libdl|libpthread|libgcc_s|libstdc\+\+|ld-linux-[\w-]+)\.so\.\d+")


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None, umask: int = -1) -> str:
    """Run a command that must succeed and return its output."""
    done = subprocess.run(
        command, cwd=cwd, env=env, umask=umask, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    text = done.stdout.decode()
    assert done.returncode == 0, text
    return text


def offline() -> dict[str, str]:
    """Return an environment in which neither pip nor populate.py can use a network."""
    tools = str(Path(sys.executable).parent)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "TOYNN_", "SKBUILD_"))}
    path = tools + os.pathsep + os.environ["PATH"]
    return {**env, "PATH": path, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}


@dataclass(frozen=True)
class Packages:
    """The sdist and the wheel, the unpacked sdist, the build folder of the wheel and its extension."""

    sdist: Path
    source: Path
    wheel: Path
    build: Path
    extension: Path

    def wheel_text(self, name: str) -> str:
        with zipfile.ZipFile(self.wheel) as archive:
            return archive.read(name).decode()


def build_wheel(source: Path, outdir: Path, build: Path, umask: int = 0o022, **env: str) -> Path:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    settings = ["--config-setting", f"build-dir={build}"]
    run(*command, *settings, "--outdir", outdir, source, env={**offline(), **env}, umask=umask)
    (wheel,) = outdir.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Build the sdist of this checkout and the wheel of that sdist, in a temporary folder."""
    folder = tmp_path_factory.mktemp("packages")
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", folder, ROOT, env=offline())
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        shutil.unpack_archive(sdist, folder / "unpacked")
        assert all(member.isfile() for member in archive)
    (source,) = (folder / "unpacked").iterdir()
    build = folder / "build"
    wheel = build_wheel(source, folder, build)
    shutil.unpack_archive(wheel, folder / "wheel", format="zip")
    (extension,) = (folder / "wheel").glob("toynn/_tinynn*.so")
    return Packages(sdist, source, wheel, build, extension)


def on_linux(reason: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(sys.platform != "linux", reason=reason)


# ---------------------------------------------------------------- the sdist


def test_the_sdist_contains_the_complete_ggml_tree(packages: Packages) -> None:
    run(sys.executable, packages.source / "vendor" / "populate.py", env=offline())  # fails if a file is missing
    stamp = (packages.source / "vendor" / "ggml" / ".toynn-stamp").read_text()
    assert len(stamp.splitlines()) > 100
    assert stamp == (ROOT / "vendor" / "ggml" / ".toynn-stamp").read_text()


def test_the_sdist_contains_exactly_the_files_that_git_tracks(packages: Packages) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this folder is an unpacked sdist without a git repository to compare with")
    tracked = set(run("git", "ls-files", cwd=ROOT).splitlines())
    packed = {path.relative_to(packages.source).as_posix() for path in packages.source.rglob("*") if path.is_file()}
    packed = {name for name in packed if not name.startswith("vendor/ggml/")} - {"PKG-INFO"}
    assert not {name for name in tracked - packed if not name.startswith(".ci/")}
    untracked = set(run("git", "ls-files", "--others", "--exclude-standard", cwd=ROOT).splitlines())
    assert packed - tracked <= untracked  # new files that are not committed yet also belong in the sdist


def test_the_sdist_is_small(packages: Packages) -> None:
    assert packages.sdist.stat().st_size < 3_000_000


# ---------------------------------------------------------------- the wheel


def test_one_wheel_works_with_all_python_versions(packages: Packages) -> None:
    assert packages.wheel.name.startswith(f"toynn-{VERSION}-cp310-abi3-")
    assert packages.extension.name == "_tinynn.abi3.so"


def test_the_wheel_is_under_five_megabytes(packages: Packages) -> None:
    assert packages.wheel.stat().st_size < 5_000_000


def test_the_wheel_requires_only_numpy_and_cffi(packages: Packages) -> None:
    metadata = email.message_from_string(packages.wheel_text(f"{DIST_INFO}/METADATA"))
    requirements = metadata.get_all("Requires-Dist") or []
    needed = sorted(re.split(r"[^\w-]", line)[0] for line in requirements if "extra ==" not in line)
    assert needed == ["cffi", "numpy"]
    assert metadata["Requires-Python"] == ">=3.10"


def test_both_packages_contain_the_licences(packages: Packages) -> None:
    for name in LICENCES:
        text = (ROOT / name).read_text()
        assert packages.wheel_text(f"{DIST_INFO}/licenses/{name}") == text
        assert (packages.source / name).read_text() == text
    assert "The ggml authors" in (ROOT / "vendor" / "LICENSE.ggml").read_text()


def test_the_wheel_contains_exactly_the_files_of_the_package(packages: Packages) -> None:
    with zipfile.ZipFile(packages.wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith(f"{DIST_INFO}/")}
    sources = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("toynn*/**/*.py*")}
    sources = {name for name in sources if not name.endswith(".pyc")}
    pages = {"toynn/serve/watch.html", "toynn/serve/watch.js", "toynn/planning/law.json"}
    assert names == sources | pages | {"toynn/py.typed", "toynn/_tinynn.abi3.so"}


def test_the_bill_of_materials_in_the_wheel_names_the_pinned_ggml(packages: Packages) -> None:
    text = packages.wheel_text(f"{DIST_INFO}/sboms/toynn.cdx.json")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    lock = dict(re.findall(r"^(\w+) = (\S+)$", (ROOT / "vendor" / "ggml.lock").read_text(), re.MULTILINE))
    (ggml,) = bill["components"]
    assert (ggml["name"], ggml["version"]) == ("ggml", lock["ggml_version"])
    assert ggml["purl"] == f"pkg:github/ggml-org/ggml@{lock['ggml_tag']}"
    (source,) = ggml["externalReferences"]
    assert source["url"] == f"pkg:pypi/{lock['package']}@{lock['version']}"
    assert source["hashes"] == [{"alg": "SHA-256", "content": lock["sha256"]}]
    # the bill of materials lists exactly the copyright holders in NOTICE whose work is compiled into the extension
    compiled_in = (ROOT / "NOTICE").read_text().split("not compiled in")[0]
    holders = [ggml["copyright"], *(part["copyright"] for part in ggml["components"])]
    assert re.findall(r"Copyright .*?(?=  )", compiled_in) == holders


def test_order_times_and_permissions_in_the_wheel_do_not_depend_on_the_day_or_the_machine(
    packages: Packages,
) -> None:
    with zipfile.ZipFile(packages.wheel) as archive:
        members = archive.infolist()
    names = [member.filename for member in members]
    assert names == sorted(names, key=lambda name: (name.endswith("/RECORD"), ".dist-info/" in name, name))
    assert len({member.date_time for member in members}) == 1
    assert {member.external_attr >> 16 for member in members} <= {0o100644, 0o100755}
    record = packages.wheel_text(f"{DIST_INFO}/RECORD").splitlines()
    assert record == sorted(record)
    assert [line.split(",")[0] for line in record] == sorted(names)


@pytest.mark.slow
def test_a_wheel_built_in_another_folder_at_another_time_has_the_same_bytes(packages: Packages, tmp_path: Path) -> None:
    """The two builds differ in folder, umask, time zone, language, and folder for temporary files."""
    in_memory = Path("/dev/shm")
    temporary = in_memory if in_memory.is_dir() else tmp_path
    source = tmp_path / "a folder with another name"
    with tarfile.open(packages.sdist) as archive:
        shutil.unpack_archive(packages.sdist, source)
        source /= archive.getnames()[0].split("/")[0]
    for path in source.rglob("*"):
        os.utime(path, (1, 1))
    again = build_wheel(
        source, tmp_path, tmp_path / "build", umask=0o077, TMPDIR=str(temporary), TZ="Asia/Tokyo", LC_ALL="C"
    )
    assert again.name == packages.wheel.name
    assert hashlib.sha256(again.read_bytes()).hexdigest() == hashlib.sha256(packages.wheel.read_bytes()).hexdigest()


# ---------------------------------------------------------------- the extension


@on_linux("readelf reads only ELF files")
def test_the_extension_links_only_the_c_and_cpp_runtimes(packages: Packages) -> None:
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", run("readelf", "-dW", packages.extension))
    assert needed
    assert [name for name in needed if not ALLOWED_LIBRARIES.fullmatch(name)] == []


@on_linux("nm -D reads only ELF files")
def test_the_extension_exports_only_its_init_function(packages: Packages) -> None:
    exported = [line.split()[-1] for line in run("nm", "-D", "--defined-only", packages.extension).splitlines()]
    assert exported == ["PyInit__tinynn"]


@on_linux("only Linux uses ELF files")
def test_the_extension_is_hardened(packages: Packages) -> None:
    with packages.extension.open("rb") as file:
        elf = ELFFile(file)
        segments = {segment["p_type"]: segment["p_flags"] for segment in elf.iter_segments()}
        tags, symbols = elf.get_section_by_name(".dynamic"), elf.get_section_by_name(".dynsym")
        assert isinstance(tags, DynamicSection)
        assert isinstance(symbols, SymbolTableSection)
        dynamic = {tag.entry.d_tag: tag.entry.d_val for tag in tags.iter_tags()}
        imported = {symbol.name for symbol in symbols.iter_symbols()}
        mapped = [segment["p_flags"] for segment in elf.iter_segments("PT_LOAD")]
    writable, executable = 2, 1  # no segment has both flags, PF_W (writable) and PF_X (executable)
    assert not segments["PT_GNU_STACK"] & executable
    assert not [flags for flags in mapped if flags & writable and flags & executable]
    # All relocations are resolved at load time and are read-only afterwards, and no relocation is in the code.
    assert "PT_GNU_RELRO" in segments
    assert dynamic["DT_FLAGS"] & 8  # DF_BIND_NOW
    assert "DT_TEXTREL" not in dynamic
    assert not dynamic["DT_FLAGS"] & 4  # DF_TEXTREL
    assert not {"DT_RPATH", "DT_RUNPATH"} & set(dynamic)
    # The extension contains the compiler's checks of the stack and of sizes.
    assert "__stack_chk_fail" in imported
    assert {"__snprintf_chk", "__memcpy_chk"} & imported


@on_linux("the expected compiler flags are those of a Linux build")
def test_every_file_is_compiled_with_the_flags_for_hardening_and_determinism(packages: Packages) -> None:
    commands = {
        entry["file"]: shlex.split(entry["command"])
        for entry in json.loads((packages.build / "compile_commands.json").read_text())
    }
    sources = {path.name for path in (packages.source / "csrc").rglob("*.c")} | {
        "ggml.c",
        "ops.cpp",
        "sgemm.cpp",
        "_tinynn.c",
    }
    assert sources <= {Path(file).name for file in commands}
    flags = ["-ffp-contract=off", "-fstack-protector-strong", "-fstack-clash-protection", "-Werror=date-time"]
    if os.uname().machine == "x86_64":
        flags.append("-fcf-protection")
    for file, command in commands.items():
        assert not [flag for flag in flags if flag not in command], file
        assert [word for word in command if word.startswith("-D_FORTIFY_SOURCE=")][-1][-1] in "23", file
        assert [word for word in command if word.startswith("-O")][-1] == "-O3", file
        assert not [word for word in command if re.match("-(Ofast|ffast-math|march=|mtune=)", word)], file


@on_linux("auditwheel reads only ELF files")
def test_auditwheel_finds_nothing_to_repair(packages: Packages) -> None:
    said = " ".join(run(sys.executable, "-m", "auditwheel", "show", packages.wheel).split())
    tag = re.search(r'is consistent with the following platform tag: "(\w+)"', said)
    assert tag, said
    assert tag[1].startswith(("manylinux_2_", "musllinux_1_")), said
    # a library to bundle would be listed in the output of auditwheel
    assert "external shared libraries are required" not in said, said


def test_the_extension_contains_no_path_of_the_build_machine(packages: Packages) -> None:
    content = packages.extension.read_bytes()
    for folder in (packages.build, packages.source, Path.home()):
        assert str(folder).encode() not in content


@on_linux("objdump and the names of object files differ on other systems")
def test_code_that_runs_before_the_cpu_check_contains_no_avx(packages: Packages) -> None:
    def vex(path: Path) -> int:
        """Count the instructions that are not part of baseline x86-64."""
        return len(re.findall(r"\t(?:v[a-z]\w+|mulx|[sr][ah][lr]x|rorx|pdep|pext|bzhi)\s", run("objdump", "-d", path)))

    if os.uname().machine != "x86_64":
        pytest.skip("only x86-64 has a profile above the baseline")
    assert vex(packages.build / "libtinynn.a") > 0  # this library has such instructions, so the pattern must find some
    assert vex(packages.build / "libtinynn_baseline.a") == 0
    (module,) = packages.build.rglob("_tinynn.c.o")
    assert vex(module) == 0


@on_linux("objdump and the names of object files differ on other systems")
def test_only_the_kernels_for_avx512_use_it_and_each_exports_only_one_symbol(packages: Packages) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("only x86-64 has AVX-512")
    avx512 = re.compile(r"%zmm|%[xy]mm(?:1[6-9]|2\d|3[01])|%k[0-7]|\{z\}")

    def functions(path: Path) -> set[str]:
        """Return the functions with an instruction of AVX-512, as "object: function"."""
        found, member, function = set(), path.name, ""
        for line in run("objdump", "-d", "--no-show-raw-insn", path).splitlines():
            if match := re.match(r"(\S+):\s+file format", line):
                member = match[1]
            elif match := re.match(r"[0-9a-f]+ <(.+)>:$", line):
                function = match[1]
            elif avx512.search(line):
                found.add(f"{member}: {function}")
        return found

    archives = sorted(packages.build.rglob("lib*.a"))
    assert {"libtinynn.a", "libtinynn_baseline.a", "libggml-cpu.a"} <= {path.name for path in archives}
    found = set().union(*(functions(path) for path in [*archives, *packages.build.rglob("_tinynn.c.o")]))
    assert found  # the extension uses AVX-512, so the pattern must find some functions
    kernels = {"gemm_avx512": "D", "gemm_bf16_avx512": "D", "gemm_bf16_pairs": "D", "row_loops_avx512": "D"}
    kernels["few_rows_avx512"] = "T"
    assert {name.split(":")[0] for name in found} == {f"{name}.c.o" for name in kernels}
    for kernel, wanted in kernels.items():
        (own,) = packages.build.rglob(f"{kernel}.c.o")
        # The only global symbol of the file is the kernel, which the linker cannot use in place of other code.
        defined = [line.split() for line in run("nm", "-g", "--defined-only", own).splitlines()]
        assert [(kind, name) for _, kind, name in defined] == [(wanted, f"tnn__{kernel}")]


def test_the_wheel_works_in_a_new_virtual_environment(packages: Packages, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", packages.wheel, env=offline())
    # numpy and cffi come from the virtual environment of the tests. This environment also contains a toynn, but
    # sys.path finds the toynn of the wheel first.
    site = Path(pytest.__file__).parents[1]
    code = f"import sys; sys.path.append({str(site)!r}); import toynn; print(toynn.__file__, toynn.build_info())"
    said = run(python, "-I", "-c", code, cwd=tmp_path)
    assert said.startswith(str(tmp_path))
    assert "'build_type': 'Release'" in said
