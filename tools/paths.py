"""The files and folders of the repository that tools and tests use.

Other modules import these paths instead of deriving paths from their own location.
"""

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
