"""Print a random sample of the project's English texts, which a reader judges: python tools/sample_text.py --seed 1.

The sample has 40 texts of each kind: error messages, help texts, docstrings, comments, documentation sentences.
Each text has what its real reader sees beside it: the name of the option, of the function or class, the line of code
under a comment, the line number in a page. A reader marks each text that must be read twice, and each error that does
not say what to do.
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

# regular expressions for the beginnings of the blocks of a page that are not paragraphs
KINDS_OF_BLOCKS = {
    "```": "code",
    r"\|": "table",
    r"[-*] |\d+\. ": "list",
    "#": "heading",
    r"<|!\[": "markup",
    ">": "quote",
}

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
        tree = ast.parse(path.read_text(encoding="utf-8"))
        keys = {
            node.value: node.target.id
            for node in ast.walk(tree)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            option = literal(node.args[0]) if node.args else None
            for keyword in node.keywords:
                text = literal(keyword.value) if keyword.arg in ("help", "description", "epilog") else None
                if text:
                    yield f"{place(path, node.lineno)} {option or ''}", text
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name == "documented" and len(node.args) > 1 and (text := literal(node.args[1])):
                yield f"{place(path, node.lineno)} {keys.get(node, '')}", text


def docstrings() -> Iterator[Text]:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kinds) and (text := ast.get_docstring(node)):
                yield f"{place(path, getattr(node, 'lineno', 1))} {getattr(node, 'name', '')}", text


def python_comments(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the first line and the text of each comment, and the line of code that it belongs to.

    Comments in consecutive lines are one comment. Its code is in the same line, or else in the next line of code.
    """
    line, end, parts, code = 0, 0, list[str](), ""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        before = token.line[: token.start[1]].strip()
        if before or not parts or token.start[0] != end + 1:
            yield line, " ".join(parts), code
            line, parts = token.start[0], []
        parts.append(token.string.lstrip("# "))
        end = 0 if before else token.start[0]
        code = before or next((one.strip() for one in lines[token.start[0] :] if one.strip()), "")
    yield line, " ".join(parts), code


def comments() -> Iterator[Text]:
    for path in python_files():
        for line, text, code in python_comments(path):
            if " " in text and not text.startswith(("noqa", "fmt:", "type:")):
                yield place(path, line), f"{text}\n     {code}"
    for path in c_files():
        source = path.read_text(encoding="utf-8")
        for match in re.finditer(r"/\*(.*?)\*/", source, re.DOTALL):
            text = re.sub(r"\s*\n\s*\*? ?", " ", match[1]).strip()
            if text.count(" ") > 1:
                line = source.count("\n", 0, match.start()) + 1
                start = source.rfind("\n", 0, match.start()) + 1
                code = source[start : match.start()].strip() or source[match.end() :].strip().partition("\n")[0]
                yield place(path, line), f"{text}\n     {code}"


def blocks(page: str) -> Iterator[tuple[int, str]]:
    """Yield the first line and the text of each paragraph and list item of a page, without headings, tables and code.

    A paragraph that ends with a colon also says what follows it: code, a table or a list.
    """
    number, parts, in_code = 0, list[str](), False
    lines = [*page.splitlines(), ""]
    for i, line in enumerate(lines, 1):
        kind = next((kind for start, kind in KINDS_OF_BLOCKS.items() if re.match(rf"\s*({start})", line)), "")
        if parts and (kind or not line.strip()):
            text = " ".join(" ".join(parts).split())
            follows = next((one for one in lines[i - 1 :] if one.strip()), "")
            what = next((what for start, what in KINDS_OF_BLOCKS.items() if re.match(rf"\s*({start})", follows)), "")
            yield number, f"{text} [{what}]" if text.endswith(":") and what else text
            parts = []
        if kind == "code":
            in_code = not in_code
        elif not in_code and line.strip() and kind in ("", "list"):
            number = number if parts else i
            parts.append(line)


def sentences() -> Iterator[Text]:
    """Yield the sentences and list items of the documentation, without tables, code and quoted sample output."""
    pages = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
    others = [ROOT / "tools" / "corpus" / "README.md", ROOT / "vendor" / "README.md"]
    for path in [*pages, *sorted((ROOT / "docs").glob("*.md")), *others]:
        for line, text in blocks(path.read_text(encoding="utf-8")):
            for sentence in re.split(r"(?<=[.?!])\s+(?=[A-Z`\[*\"(])", text):
                if sentence.count(" ") > 2:
                    yield place(path, line), sentence


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
