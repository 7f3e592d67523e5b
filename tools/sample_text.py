"""Print a random sample of the project's English texts, which a reader judges: python tools/sample_text.py --seed 1.

The sample has 40 texts of each kind: error messages, help texts, docstrings, comments, documentation sentences.
A reader marks each text that must be read twice, and each error that does not say what to do.
"""

from __future__ import annotations

import argparse
import ast
import io
import random
import re
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

from paths import ROOT

PYTHON = ("src/toynn", "tests", "tools", "benchmarks", "examples", "csrc", "vendor", "build_backend")
# source code of ggml, the stories, and a generated file
LEFT_OUT = ("vendor/ggml", "tools/corpus/grammar", "src/toynn/_tinynn.pyi")

Text = tuple[str, str]  # the place of a text, and the text


def python_files() -> Iterator[Path]:
    for folder in PYTHON:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not path.relative_to(ROOT).as_posix().startswith(LEFT_OUT):
                yield path


def c_files() -> Iterator[Path]:
    for folder in ("csrc", "tools"):
        for pattern in ("*.c", "*.h"):
            yield from sorted((ROOT / folder).rglob(pattern))


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT).as_posix()}:{line}"


def literal(node: ast.expr) -> str | None:
    """Return the text of a string or f-string, with expressions in braces, or None for another kind of expression."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [
            part.value if isinstance(part, ast.Constant) else "{" + ast.unparse(part.value) + "}"
            for part in node.values
            if isinstance(part, ast.Constant | ast.FormattedValue)
        ]
        return "".join(map(str, parts))
    return None


def python_errors() -> Iterator[Text]:
    """Yield the messages of the exceptions that toynn raises."""
    for path in python_files():
        if not path.is_relative_to(ROOT / "src"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                text = literal(node.exc.args[0])
                if text and " " in text:
                    yield place(path, node.lineno), text


def c_errors() -> Iterator[Text]:
    """Yield the messages of the C library's errors."""
    call = re.compile(r'tnn__fail(?:_stage)?\(((?:[^";]|"(?:[^"\\]|\\.)*")*)\);', re.DOTALL)
    for path in c_files():
        source = path.read_text(encoding="utf-8")
        for match in call.finditer(source):
            # the format is the first string, which may consist of several literals and PRI macros
            text = re.sub(r'"\s*(?:PRI\w+\s*)?"', "", re.sub(r'"\s*(PRI\w+)\s*"', r"{\1}", match[1]))
            text = found[1] if (found := re.search(r'"((?:[^"\\]|\\.)*)"', text)) else ""
            if " " in text:
                yield place(path, source.count("\n", 0, match.start()) + 1), text


def help_texts() -> Iterator[Text]:
    """Yield the help of options, commands and configuration keys."""
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            for keyword in node.keywords:
                text = literal(keyword.value) if keyword.arg in ("help", "description", "epilog") else None
                if text:
                    yield place(path, node.lineno), text
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name == "documented" and len(node.args) > 1 and (text := literal(node.args[1])):
                yield place(path, node.lineno), text


def docstrings() -> Iterator[Text]:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kinds) and (text := ast.get_docstring(node)):
                yield place(path, getattr(node, "lineno", 1)), text


def python_comments(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each comment. Lines of comments that follow each other are one comment."""
    line, end, parts = 0, 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type != tokenize.COMMENT:
            continue
        alone = not token.line[: token.start[1]].strip()
        if not (alone and parts and token.start[0] == end + 1):
            yield line, " ".join(parts)
            line, parts = token.start[0], []
        parts.append(token.string.lstrip("# "))
        end = token.start[0] if alone else 0
    yield line, " ".join(parts)


def comments() -> Iterator[Text]:
    for path in python_files():
        for line, text in python_comments(path):
            if " " in text and not text.startswith(("noqa", "fmt:", "type:")):
                yield place(path, line), text
    for path in c_files():
        source = path.read_text(encoding="utf-8")
        for match in re.finditer(r"/\*(.*?)\*/", source, re.DOTALL):
            text = re.sub(r"\s*\n\s*\*? ?", " ", match[1]).strip()
            if text.count(" ") > 1:
                yield place(path, source.count("\n", 0, match.start()) + 1), text


def sentences() -> Iterator[Text]:
    """Yield the sentences and list items of the documentation, without tables, code and quoted sample output."""
    pages = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
    for path in [*pages, *sorted((ROOT / "docs").glob("*.md")), ROOT / "vendor" / "README.md"]:
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for paragraph in re.split(r"\n\s*\n|\n(?=[-*] |\d+\. |\|)", text):
            if paragraph.lstrip().startswith(("|", "#", "!", "<", ">")):
                continue
            for sentence in re.split(r"(?<=[.:;?!])\s+(?=[A-Z`])", " ".join(paragraph.split())):
                if sentence.count(" ") > 2:
                    yield path.relative_to(ROOT).as_posix(), sentence


KINDS: dict[str, tuple[Callable[[], Iterator[Text]], ...]] = {
    "error": (python_errors, c_errors),
    "help": (help_texts,),
    "docstring": (docstrings,),
    "comment": (comments,),
    "documentation": (sentences,),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, required=True, help="Random seed of the sample.")
    parser.add_argument("--count", type=int, default=40, help="Number of texts of each kind.")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    for kind, sources in KINDS.items():
        found = [text for source in sources for text in source()]
        drawn = rng.sample(found, min(arguments.count, len(found)))
        print(f"\n=== {kind}: {len(drawn)} of {len(found)}")
        for i, (where, text) in enumerate(drawn, 1):
            print(f"{i:3}. {where}\n     {text}")


if __name__ == "__main__":
    main()
