"""The files and folders of the repository that tools and tests use. No other module derives them from its own place."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples"
CORPUS = EXAMPLES / "data" / "corpus.txt"
TOKENS = EXAMPLES / "data" / "tokens.json"
FIXTURES = ROOT / "tests" / "fixtures"
TESTS_SUPPORT = ROOT / "tests" / "support"
