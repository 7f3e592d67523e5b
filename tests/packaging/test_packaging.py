"""What leaves the house: the sdist, and the wheel built from it without any network.

One wheel is built here, about a minute on two cores, and a second one by the slow tests. Their build requirements are
those of the virtual environment that the tests run in, as `make test` makes it.
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
# The C and C++ runtimes, which every system has. ld-linux is glibc's own.
ALLOWED_LIBRARIES = re.compile(r"(libc|libm|libdl|libpthread|libgcc_s|libstdc\+\+|ld-linux-[\w-]+)\.so\.\d+")


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None, umask: int = -1) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(
        command, cwd=cwd, env=env, umask=umask, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    text = done.stdout.decode()
    assert done.returncode == 0, text
    return text


def offline() -> dict[str, str]:
    """An environment in which pip finds nothing and ggml's source comes from nowhere."""
    tools = str(Path(sys.executable).parent)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "TOYNN_", "SKBUILD_"))}
    path = tools + os.pathsep + os.environ["PATH"]
    return {**env, "PATH": path, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}


@dataclass(frozen=True)
class Packages:
    """Both packages, the unpacked sdist, the wheel's build folder and its extension."""

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
    """The sdist of this checkout, and the wheel of that sdist, unpacked elsewhere."""
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


def test_the_sdist_carries_the_complete_ggml_tree(packages: Packages) -> None:
    run(sys.executable, packages.source / "vendor" / "populate.py", env=offline())  # complains if a file is missing
    stamp = (packages.source / "vendor" / "ggml" / ".toynn-stamp").read_text()
    assert len(stamp.splitlines()) > 100
    assert stamp == (ROOT / "vendor" / "ggml" / ".toynn-stamp").read_text()


def test_the_sdist_carries_what_git_tracks_and_nothing_else(packages: Packages) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is an unpacked sdist itself: there is no git to compare with")
    tracked = set(run("git", "ls-files", cwd=ROOT).splitlines())
    packed = {path.relative_to(packages.source).as_posix() for path in packages.source.rglob("*") if path.is_file()}
    packed = {name for name in packed if not name.startswith("vendor/ggml/")} - {"PKG-INFO"}
    assert not {name for name in tracked - packed if not name.startswith(".ci/")}
    untracked = set(run("git", "ls-files", "--others", "--exclude-standard", cwd=ROOT).splitlines())
    assert packed - tracked <= untracked  # files about to be committed


def test_the_sdist_is_small(packages: Packages) -> None:
    assert packages.sdist.stat().st_size < 2_000_000


# ---------------------------------------------------------------- the wheel


def test_one_wheel_serves_all_pythons(packages: Packages) -> None:
    assert packages.wheel.name.startswith(f"toynn-{VERSION}-cp310-abi3-")
    assert packages.extension.name == "_tinynn.abi3.so"


def test_the_wheel_is_under_five_megabytes(packages: Packages) -> None:
    assert packages.wheel.stat().st_size < 5_000_000


def test_the_wheel_needs_numpy_and_cffi_and_no_more(packages: Packages) -> None:
    metadata = email.message_from_string(packages.wheel_text(f"{DIST_INFO}/METADATA"))
    requirements = metadata.get_all("Requires-Dist") or []
    needed = sorted(re.split(r"[^\w-]", line)[0] for line in requirements if "extra ==" not in line)
    assert needed == ["cffi", "numpy"]
    assert metadata["Requires-Python"] == ">=3.10"


def test_both_packages_carry_the_licences(packages: Packages) -> None:
    for name in LICENCES:
        text = (ROOT / name).read_text()
        assert packages.wheel_text(f"{DIST_INFO}/licenses/{name}") == text
        assert (packages.source / name).read_text() == text
    assert "The ggml authors" in (ROOT / "vendor" / "LICENSE.ggml").read_text()


def test_the_wheel_holds_the_package_and_no_stray_file(packages: Packages) -> None:
    with zipfile.ZipFile(packages.wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith(f"{DIST_INFO}/")}
    sources = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("toynn*/**/*.py*")}
    sources = {name for name in sources if not name.endswith(".pyc")}
    assert names == sources | {"toynn/py.typed", "toynn/_tinynn.abi3.so"}


def test_the_wheel_carries_a_bill_of_materials_that_names_the_ggml_of_the_lock(packages: Packages) -> None:
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
    # every copyright holder of NOTICE whose work is compiled in, and no other
    compiled_in = (ROOT / "NOTICE").read_text().split("not compiled in")[0]
    holders = [ggml["copyright"], *(part["copyright"] for part in ggml["components"])]
    assert re.findall(r"Copyright .*?(?=  )", compiled_in) == holders


def test_nothing_of_the_day_or_the_machine_is_in_the_order_times_and_permissions_of_the_wheel(
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
def test_a_wheel_built_elsewhere_at_another_time_is_the_same_bytes(packages: Packages, tmp_path: Path) -> None:
    """Another folder, umask, time zone, language, and place of temporary files (in memory, where there is one)."""
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


@on_linux("readelf reads ELF")
def test_the_extension_links_the_c_and_cpp_runtimes_only(packages: Packages) -> None:
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", run("readelf", "-dW", packages.extension))
    assert needed
    assert [name for name in needed if not ALLOWED_LIBRARIES.fullmatch(name)] == []


@on_linux("nm -D reads ELF")
def test_the_extension_exports_its_init_function_only(packages: Packages) -> None:
    exported = [line.split()[-1] for line in run("nm", "-D", "--defined-only", packages.extension).splitlines()]
    assert exported == ["PyInit__tinynn"]


@on_linux("ELF is Linux's")
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
    writable, executable = 2, 1  # PF_W, PF_X
    assert not segments["PT_GNU_STACK"] & executable
    assert not [flags for flags in mapped if flags & writable and flags & executable]
    # all relocations are done when it is loaded, and read-only then; none is in the code
    assert "PT_GNU_RELRO" in segments
    assert dynamic["DT_FLAGS"] & 8  # DF_BIND_NOW
    assert "DT_TEXTREL" not in dynamic
    assert not dynamic["DT_FLAGS"] & 4  # DF_TEXTREL
    assert not {"DT_RPATH", "DT_RUNPATH"} & set(dynamic)
    # the compiler's checks of the stack and of sizes
    assert "__stack_chk_fail" in imported
    assert {"__snprintf_chk", "__memcpy_chk"} & imported


@on_linux("the build folder's record of commands is of a Linux build")
def test_every_file_is_compiled_with_the_flags_that_harden_and_those_that_keep_bits(packages: Packages) -> None:
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


@on_linux("auditwheel reads ELF")
def test_auditwheel_finds_nothing_to_mend(packages: Packages) -> None:
    said = " ".join(run(sys.executable, "-m", "auditwheel", "show", packages.wheel).split())
    tag = re.search(r'is consistent with the following platform tag: "(\w+)"', said)
    assert tag, said
    assert tag[1].startswith(("manylinux_2_", "musllinux_1_")), said
    assert "external shared libraries are required" not in said, said  # it would name those to bundle


def test_the_extension_names_no_folder_of_the_machine_that_built_it(packages: Packages) -> None:
    content = packages.extension.read_bytes()
    for folder in (packages.build, packages.source, Path.home()):
        assert str(folder).encode() not in content


@on_linux("objdump, and the object files' names, are of a Linux build")
def test_what_runs_before_the_cpu_is_checked_needs_no_avx(packages: Packages) -> None:
    def vex(path: Path) -> int:
        """How many of its instructions an old x86-64 does not have."""
        return len(re.findall(r"\t(?:v[a-z]\w+|mulx|[sr][ah][lr]x|rorx|pdep|pext|bzhi)\s", run("objdump", "-d", path)))

    if os.uname().machine != "x86_64":
        pytest.skip("only x86-64 has a profile above the baseline")
    assert vex(packages.build / "libtinynn.a") > 0  # the pattern finds what it should
    assert vex(packages.build / "libtinynn_baseline.a") == 0
    (module,) = packages.build.rglob("_tinynn.c.o")
    assert vex(module) == 0


@on_linux("objdump, and the object files' names, are of a Linux build")
def test_one_file_only_is_compiled_for_avx512_and_gives_the_linker_nothing_to_share(packages: Packages) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("AVX-512 is x86-64's")
    avx512 = re.compile(r"%zmm|%[xy]mm(?:1[6-9]|2\d|3[01])|%k[0-7]|\{z\}")

    def functions(path: Path) -> set[str]:
        """The functions with an instruction that needs AVX-512, as "object: function"."""
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
    assert found  # the pattern finds what it should
    assert {name.split(":")[0] for name in found} == {"gemm_avx512.c.o"}
    (own,) = packages.build.rglob("gemm_avx512.c.o")
    # none weak, none a function: but for the kernel's description, nothing of this file has a name outside it
    defined = [line.split() for line in run("nm", "-g", "--defined-only", own).splitlines()]
    assert [(kind, name) for _, kind, name in defined] == [("D", "tnn__gemm_avx512")]


def test_the_wheel_works_in_a_virtual_environment_of_its_own(packages: Packages, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", packages.wheel, env=offline())
    # numpy and cffi are lent by the virtual environment of the tests; its own toynn is hidden by the wheel's.
    site = Path(pytest.__file__).parents[1]
    code = f"import sys; sys.path.append({str(site)!r}); import toynn; print(toynn.__file__, toynn.build_info())"
    said = run(python, "-I", "-c", code, cwd=tmp_path)
    assert said.startswith(str(tmp_path))
    assert "'build_type': 'Release'" in said
