# Everything is installed in .venv; nothing else on the machine changes.
#
#   make run        Install toynn, and train a projection lens for five steps.
#   make quickstart Train a small model on the included stories for three minutes, and print a story that it writes.
#   make quickstart-answers   Train this model for one minute to answer questions, and ask a few questions.
#   make check      Run the linters and the quick tests (under a minute). Use it while you work.
#   make test       Run the linters and all tests that CI runs (about 15 minutes).
#   make test-all   Run the long tests too, the sanitizers, and the coverage of csrc.
#   make lint       Run ruff and mypy --strict.
#   make dev        Compile what changed in csrc/ or CMakeLists.txt (seconds).
#   make bench      Compare toynn with PyTorch and write docs/performance.md (40 minutes on an idle machine).
#   make bench-adapters  Compare LoRA training with PEFT and write a section of docs/performance.md (8 minutes).
#   make bench-prepare  Compare the preparation of data with datasets, and write a section of docs/performance.md.
#   make bench-long  Compare training on long sequences with PyTorch, and write a section of docs/performance.md (10 minutes).
#   make bench-start  Measure checkpoints, imports and the start of commands, and write a section of docs/performance.md.
#   make bench-decoding  Compare decoding with llama.cpp and write a section of docs/performance.md (5 minutes).
#   make bench-time-to-loss  Compare the time to a loss with nanoGPT's recipe in PyTorch (an hour on an idle machine).
#   make sweep      Train small models with many settings, and write docs/training-recipes.md (hours; can be stopped).
#   make scaling-law  Train the runs of the scaling law that are missing, and fit its constants (hours; can be stopped).
#   make bench-plan Train by plans of 1, 5 and 20 minutes, and compare times and losses (80 minutes on an idle machine).
#   make fuzz       Run the four fuzzers: session API from Python, from C, from a generator, and the file readers.
#   make generate   Write the part of toynn.tinynn that follows from csrc/tinynn.h.
#   make corpus     Write the stories and questions of tools/corpus to examples/data (one second).
#   make fixtures   Record the golden curves of this build's instruction-set profile.
#   make determinism-matrix   Compare the bits of compilers, Pythons, thread counts; write docs/determinism.md (15 minutes).
#   make aarch64    Build for aarch64, and compare its bits in an emulator with those of x86-64 (about ten minutes).
#   make sanitize   Run the tests under AddressSanitizer and UndefinedBehaviorSanitizer, leaks included.
#   make sanitize-threads  Run the tests that use threads under ThreadSanitizer.
#   make coverage   Measure which lines and branches of csrc the tests reach; fail below the limits.
#   make soak       Train the tiny model for ten thousand steps in each layout, and check memory and losses.
#   make power-loss Check what a power loss at any moment leaves of a run, a data folder or an export (needs strace).
#   make clean      Remove what was built (.venv, build, dist, vendor/ggml).
#
#   PYTHON=python3.12 make run     Use another interpreter than python3 (after make clean).
#   PYTEST="-k rope -x" make test  Arguments for pytest.
#   BENCH="--quick" make bench     Arguments for the benchmark; "--help" lists them.
#   FUZZ="--seconds 60" make fuzz  Arguments for each fuzzer: --seconds, --seed.
#   CLANG=clang-19 make fuzz       The clang with libFuzzer (default: the newest one on the path).
#   MATRIX="--python PATH" make determinism-matrix    Arguments for the matrix.
#   AARCH64="--record" make aarch64    Record the golden curves of aarch64; "--only curves runs" selects checks.

PYTHON ?= python3
PYTEST ?=
BENCH  ?=
FUZZ   ?= --seconds 600
CLANG  ?=
MATRIX ?=
AARCH64 ?=
VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check

# The sources of the extension. Python files are used in place.
NATIVE := CMakeLists.txt pyproject.toml vendor/ggml.lock vendor/populate.py $(wildcard csrc/*.py csrc/*.[ch] csrc/*.map csrc/*/*.[ch])

.DEFAULT_GOAL := help
.PHONY: help run quickstart quickstart-answers check quick-tests test test-all lint dev bench bench-adapters bench-prepare bench-long bench-start bench-decoding bench-time-to-loss sweep scaling-law bench-plan fuzz generate corpus fixtures \
        determinism-matrix aarch64 sanitize sanitize-threads coverage soak power-loss clean
.DELETE_ON_ERROR:

help:
	@sed -n '/^#   /s/^#   //p' Makefile

run: $(VENV)/.installed
	$(PY) examples/smoke_projection_lens.py

quickstart: $(VENV)/.installed-cli
	rm -rf build/quickstart
	$(PY) tools/corpus/write_corpus.py --stories 300 --out build/quickstart/stories.txt
	$(VENV)/bin/toynn prepare build/quickstart/stories.txt --out build/quickstart/data --vocab-size 2048
	$(VENV)/bin/toynn train build/quickstart/data --out build/quickstart/run --config examples/quickstart.toml
	$(VENV)/bin/toynn generate build/quickstart/run --best --prompt "Once there was a" --temperature 0.5 --seed 1 --max-tokens 250

quickstart-answers: $(VENV)/.installed-cli
	test -e build/quickstart/run/latest || $(MAKE) quickstart
	rm -rf build/quickstart/questions build/quickstart/answers
	$(VENV)/bin/toynn prepare examples/data/questions.jsonl --tokenizer build/quickstart/data --chat-template examples/data/dialogue.jinja --out build/quickstart/questions
	$(VENV)/bin/toynn train build/quickstart/questions --init build/quickstart/run --out build/quickstart/answers --config examples/quickstart-answers.toml
	printf 'What does a duck eat?\nWho says buzz?\nWhat is the opposite of small?\nWhat do you need to carry water?\nGood morning, I am Nora.\n' | $(VENV)/bin/toynn chat build/quickstart/answers --greedy

# The linters and the tests run at the same time, one core each.
check: $(VENV)/.installed-dev
	$(MAKE) -j 2 lint quick-tests

quick-tests: $(VENV)/.installed-dev
	$(PY) -m pytest -q -m quick $(PYTEST)

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

bench-adapters: $(VENV)/.installed-dev
	$(PY) -m benchmarks.adapters $(BENCH)

bench-prepare: $(VENV)/.installed-dev
	$(PY) -m benchmarks.prepare $(BENCH)

bench-long: $(VENV)/.installed-dev
	$(PY) -m benchmarks.long_context $(BENCH)

bench-start: $(VENV)/.installed-dev
	$(PY) -m benchmarks.around_the_step $(BENCH)

bench-decoding: $(VENV)/.installed-dev
	$(PY) -m benchmarks.decoding $(BENCH)

bench-time-to-loss: $(VENV)/.installed-dev
	$(PY) -m benchmarks.time_to_loss $(BENCH)

sweep: $(VENV)/.installed-dev
	$(PY) -m benchmarks.recipe_sweep
	$(PY) -m benchmarks.fine_tuning_sweep

scaling-law: $(VENV)/.installed-dev
	$(PY) -m benchmarks.scaling_law

bench-plan: $(VENV)/.installed-dev
	$(PY) -m benchmarks.plan $(BENCH)

fuzz: $(VENV)/.installed-dev
	$(PY) tools/fuzz/fuzz_rounds.py $(FUZZ)
	$(PY) tools/fuzz/fuzz_machine.py $(FUZZ)
	$(PY) tools/fuzz/run.py $(FUZZ) $(if $(CLANG),--clang '$(CLANG)')
	$(PY) tools/fuzz/fuzz_interop.py $(FUZZ)

generate: $(VENV)/.installed-dev
	$(PY) tools/generate_tinynn.py

corpus: $(VENV)/.created
	$(PY) tools/corpus/write_corpus.py
	$(PY) tools/corpus/write_questions.py

determinism-matrix: $(VENV)/.installed-dev
	$(PY) tools/determinism/determinism_matrix.py $(MATRIX)

# It also needs programs of the system: qemu-user-static gcc-aarch64-linux-gnu g++-aarch64-linux-gnu mmdebstrap.
aarch64: $(VENV)/.installed-dev
	$(PY) tools/aarch64/check_aarch64.py $(AARCH64)

fixtures: $(VENV)/.installed
	$(PY) tools/determinism/record_fixtures.py
	$(PY) tools/determinism/record_processes.py

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

power-loss: $(VENV)/.installed-dev
	$(PY) tools/power_loss/check_power_loss.py

clean:
	rm -rf .venv .venv-sanitize .venv-sanitize-threads .venv-coverage build dist vendor/ggml .mypy_cache .ruff_cache .pytest_cache

# ---------------------------------------------------------------- the virtual environment; empty files record each step

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo 'toynn needs Python 3.10 or later, but "$(PYTHON)" is older. Name another one: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || \
	  { echo 'Cannot create a virtual environment. On Debian and Ubuntu, run apt install python3-venv.' >&2; exit 1; }
	touch $@

# The build requirements come from the backend itself. A build without isolation can then be incremental.
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
