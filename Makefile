# The doors. Everything lives in .venv; nothing else on the machine is touched.
#
#   make run        install toynn, train a projection lens for five steps
#   make quickstart train a small model on the stories that are shipped, for three minutes, and let it write
#   make test       lint, then the tests (about ten minutes)
#   make test-all   the long tests too, the sanitizers, and how much of csrc the tests reach
#   make lint       ruff, mypy --strict
#   make dev        rebuild after a change in csrc/ or CMakeLists.txt: compiles what changed, in seconds
#   make bench      toynn beside PyTorch, for a quarter of an hour on a quiet machine; writes docs/performance.md
#   make fuzz       the session API from Python and from C, and the readers of models, fed with anything, ten minutes each
#   make corpus     write the stories of tools/corpus to examples/data/corpus.txt, in a second
#   make generate   write Python's part of the session API from csrc/tinynn.h
#   make fixtures   record the golden curves of this build's instruction-set profile
#   make determinism-matrix   compilers, Pythons, threads, surroundings: which give the same bits; a quarter of an hour, writes docs/determinism.md
#   make sanitize   the tests under AddressSanitizer and UndefinedBehaviorSanitizer, leaks included
#   make sanitize-threads  the tests that use threads under ThreadSanitizer
#   make coverage   the tests on a build that counts: which lines and branches of csrc they reach, and a floor
#   make soak       ten thousand steps of the tiny model in either layout: memory and losses stay what they were
#   make clean      remove what was built (.venv, build, dist, vendor/ggml)
#
#   PYTHON=python3.12 make run     another interpreter than python3 (after make clean)
#   PYTEST="-k rope -x" make test  words for pytest
#   BENCH="--quick" make bench     words for the benchmark; "--help" lists them
#   FUZZ="--seconds 60" make fuzz  words for each fuzzer: --seconds, --seed
#   CLANG=clang-19 make fuzz       the clang that has libFuzzer, else the newest one on the path
#   MATRIX="--python PATH" make determinism-matrix    words for the matrix

PYTHON ?= python3
PYTEST ?=
BENCH  ?=
FUZZ   ?= --seconds 600
CLANG  ?=
MATRIX ?=
VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check

# What the extension is made from; Python files are used in place.
NATIVE := CMakeLists.txt pyproject.toml vendor/ggml.lock vendor/populate.py $(wildcard csrc/* csrc/*/*)

.DEFAULT_GOAL := help
.PHONY: help run quickstart test test-all lint dev bench fuzz generate corpus fixtures determinism-matrix sanitize \
        sanitize-threads coverage soak clean
.DELETE_ON_ERROR:

help:
	@sed -n '/^#   /s/^#   //p' Makefile

run: $(VENV)/.installed
	$(PY) examples/smoke_projection_lens.py

quickstart: $(VENV)/.installed-cli
	rm -rf build/quickstart
	$(VENV)/bin/toynn prepare examples/data/corpus.txt --out build/quickstart/data --vocab-size 2048
	$(VENV)/bin/toynn train build/quickstart/data --out build/quickstart/run --config examples/quickstart.toml
	$(VENV)/bin/toynn generate build/quickstart/run --best --prompt "One morning" --temperature 0.5 --seed 2 --max-tokens 250

test: lint
	$(PY) -m pytest $(PYTEST)

test-all: lint
	$(PY) -m pytest -m "" $(PYTEST)
	$(MAKE) sanitize
	$(MAKE) sanitize-threads
	$(MAKE) coverage

lint: $(VENV)/.installed-dev
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

dev: $(VENV)/.installed

bench: $(VENV)/.installed-dev
	$(PY) -m benchmarks $(BENCH)

fuzz: $(VENV)/.installed-dev
	$(PY) tools/fuzz/fuzz_rounds.py $(FUZZ)
	$(PY) tools/fuzz/fuzz_machine.py $(FUZZ)
	$(PY) tools/fuzz/run.py $(FUZZ) $(if $(CLANG),--clang '$(CLANG)')
	$(PY) tools/fuzz/fuzz_interop.py $(FUZZ)

generate: $(VENV)/.installed-dev
	$(PY) tools/generate_tinynn.py

corpus: $(VENV)/.created
	$(PY) tools/corpus/write_corpus.py

determinism-matrix: $(VENV)/.installed-dev
	$(PY) tools/determinism/determinism_matrix.py $(MATRIX)

fixtures: $(VENV)/.installed
	$(PY) tools/determinism/record_fixtures.py

sanitize:
	$(MAKE) VENV=.venv-sanitize .venv-sanitize/.build-tools
	tools/sanitizers/run .venv-sanitize/bin/python $(PYTEST)

sanitize-threads:
	$(MAKE) VENV=.venv-sanitize-threads .venv-sanitize-threads/.build-tools
	tools/sanitizers/run_threads .venv-sanitize-threads/bin/python $(PYTEST)

coverage:
	$(MAKE) VENV=.venv-coverage .venv-coverage/.build-tools
	tools/coverage/run .venv-coverage/bin/python $(PYTEST)

soak: $(VENV)/.installed
	$(PY) tools/soak.py

clean:
	rm -rf .venv .venv-sanitize .venv-sanitize-threads .venv-coverage build dist vendor/ggml .mypy_cache .ruff_cache .pytest_cache

# ---------------------------------------------------------------- the virtual environment, by stamps

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo 'toynn needs Python >= 3.10, and "$(PYTHON)" is not that. Name one that is: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || \
	  { echo 'No virtual environment could be made (Debian and Ubuntu: apt install python3-venv).' >&2; exit 1; }
	touch $@

# The build requirements, as the backend itself tells them, so that a build without isolation can be incremental.
$(VENV)/.build-tools: pyproject.toml $(VENV)/.created
	sed -n '/^\[build-system\]/,/^\[project\]/s/^requires = \[\(.*\)\].*/\1/p' $< | tr ',' '\n' | tr -d '" ' > $(VENV)/requires.txt
	test -s $(VENV)/requires.txt
	$(PIP) install --quiet -r $(VENV)/requires.txt
	$(PY) -c 'from scikit_build_core.build import get_requires_for_build_editable as r; print(*r(), sep="\n")' > $(VENV)/requires.txt
	$(PIP) install --quiet -r $(VENV)/requires.txt
	touch $@

$(VENV)/.installed: $(NATIVE) $(VENV)/.build-tools
	$(PIP) install --quiet --no-build-isolation --editable .
	touch $@

$(VENV)/.installed-cli: $(VENV)/.installed
	$(PIP) install --quiet --no-build-isolation --editable '.[cli,plot]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --quiet --no-build-isolation --editable '.[dev]'
	touch $@
