"""The documentation names only links, files, modules and make targets that exist."""

from __future__ import annotations

import importlib
import re

import pytest

from paths import ROOT

pytestmark = pytest.mark.quick

pytestmark = pytest.mark.quick

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "vendor/*.md", "tools/**/*.md", "benchmarks/*.md", "examples/*.md")
    for path in ROOT.glob(pattern)
)
# The changelog is not checked for names, because it also names modules, files and targets of earlier versions.
CURRENT = [page for page in PAGES if page != "CHANGELOG.md"]

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
FOLDERS = ("src/", "csrc/", "tests/", "tools/", "docs/", "vendor/", "examples/", "benchmarks/", "build_backend/")
SOURCE = re.compile(r"[\w./*-]+\.(py|pyi|c|h|md|toml|map|lock)")
CREATED = ("vendor/ggml/", "ggml/", "run.toml")  # these paths are created by the build or by a command


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub derives them."""
    titles = [re.sub(r"[^\w\- ]", "", title.lower()) for title in HEADING.findall(FENCE.sub("", text))]
    return {title.strip().replace(" ", "-") for title in titles}


def is_path(code: str) -> bool:
    """Return whether the text in backticks looks like a path of this repository."""
    if code.startswith(CREATED) or not re.fullmatch(r"[\w./*-]+", code):
        return False
    return code.startswith(FOLDERS) or SOURCE.fullmatch(code) is not None or code.endswith("/")


def exists(path: str, page: str) -> bool:
    """Return whether a path exists in the root, in src/toynn, in csrc or beside the page. A name without a folder may
    be anywhere.

    A word in capitals is a placeholder for any text, as in `curves.PROFILE.json` and `format-N`.
    """
    pattern = path if path.endswith(".md") else re.sub(r"(?<![A-Za-z])[A-Z]+(?![A-Za-z])", "*", path)
    bases = [ROOT, ROOT / "src" / "toynn", ROOT / "csrc", (ROOT / page).parent]
    if any((base / path).exists() or next(base.glob(pattern.rstrip("/")), None) is not None for base in bases):
        return True
    return "/" not in path and any(next((ROOT / folder).rglob(pattern), None) is not None for folder in FOLDERS)


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_to_a_file_and_an_existing_heading(page: str) -> None:
    for link in LINK.findall(FENCE.sub("", text_of(page))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page} links to {link}, which does not exist"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{page} links to {link}: no such heading"


@pytest.mark.parametrize("page", CURRENT)
def test_every_path_in_backticks_exists(page: str) -> None:
    paths = [code for code in CODE.findall(FENCE.sub("", text_of(page))) if is_path(code)]
    assert [path for path in paths if not exists(path, page)] == []


@pytest.mark.parametrize("page", CURRENT)
def test_every_module_and_name_of_toynn_in_backticks_exists(page: str) -> None:
    names = set(re.findall(r"`(toynn(?:\.[a-z_]\w*)*(?:\.[A-Z]\w*)?)[`(]", text_of(page)))
    missing = []
    for name in names:
        found: object = importlib.import_module("toynn")
        for part in name.split(".")[1:]:
            if not hasattr(found, part):
                try:
                    found = importlib.import_module(f"{found.__name__}.{part}")  # type: ignore[attr-defined]
                    continue
                except (ImportError, AttributeError):
                    missing.append(name)
                    break
            found = getattr(found, part)
    assert missing == []


@pytest.mark.parametrize("page", CURRENT)
def test_every_make_target_in_backticks_exists(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"`[^`\n]*\bmake ([a-z][\w-]*)`", text_of(page))) <= targets


def test_a_wrong_link_path_or_name_would_be_noticed() -> None:
    assert is_path("csrc/none.c")
    assert not exists("csrc/none.c", "README.md")
    assert is_path("none.py")
    assert not exists("none.py", "README.md")
    assert not is_path("model.gguf")
    assert not is_path("model.safetensors")
    assert exists("tests/fixtures/curves.PROFILE.json", "README.md")
    assert anchors("# A heading, `code` and more\n") == {"a-heading-code-and-more"}
