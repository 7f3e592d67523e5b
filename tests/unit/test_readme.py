"""The Python code of the README and the example of the API can be run. The README's code uses fewer steps here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


def test_the_python_blocks_of_the_readme_run(tmp_path: Path) -> None:
    (tmp_path / "examples" / "data").mkdir(parents=True)
    text = (ROOT / "examples" / "data" / "corpus.txt").read_text(encoding="utf-8")
    (tmp_path / "examples" / "data" / "corpus.txt").write_text(text[:60_000], encoding="utf-8")
    for block in BLOCKS:
        code = re.sub(r"\bsteps=\d+", "steps=3", block)
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        assert done.stdout != ""


def test_the_readme_has_python_blocks_and_starts_with_text() -> None:
    assert len(BLOCKS) == 4
    assert BLOCKS[0].startswith("import toynn\n")
    assert "toynn.prepare(" in BLOCKS[0]


def test_the_example_of_the_api_runs(tmp_path: Path) -> None:
    text = (ROOT / "examples" / "data" / "stories.txt").read_text(encoding="utf-8")
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    command = [sys.executable, str(ROOT / "examples" / "train_from_python.py"), "--text", "text.txt", "--steps", "20"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "step 20: validation loss" in done.stdout
    assert "done after 20 steps: stories/run/checkpoints/step-00000020" in done.stdout
    assert "Once there was" in done.stdout
