# Each target can be the first one on a machine that has only Python (>= 3.10), gcc and make.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
C_SOURCES = $(wildcard procaio/csrc/*.c shm/*.c workers/*.c)
C_HEADERS = $(wildcard procaio/csrc/*.h shm/*.h workers/*.h)
STRICT = -std=c11 -D_GNU_SOURCE -O2 -fPIC -Wall -Wextra -Wconversion -Wshadow -Werror
INCLUDE = $(shell $(BIN)/python -c 'import sysconfig; print(sysconfig.get_paths()["include"])')

.PHONY: help demo test quick check format bench model tsan asan clean

help: ## show this list
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The extension is built in place; a change of its sources builds it again.
$(VENV)/.installed: pyproject.toml $(C_SOURCES) $(C_HEADERS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[progress,test,check]'
	touch $@

demo: ## the main job: scan /usr with many requests in flight
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[progress]'
	$(BIN)/procaio scan /usr

test: $(VENV)/.installed ## every test but the slow ones
	$(BIN)/python -m pytest -m 'not slow'

slow: $(VENV)/.installed ## the tests that take long
	$(BIN)/python -m pytest -m slow

quick: $(VENV)/.installed ## a minute's worth of tests, for other versions of Python
	$(BIN)/python -m pytest -m 'not slow' -x -q tests/test_requests.py tests/test_files.py tests/test_data.py tests/test_asyncio.py tests/test_fork.py

check: $(VENV)/.installed ## lint, types, and C warnings as errors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	for source in $(C_SOURCES); do $(CC) $(STRICT) -isystem $(INCLUDE) -fsyntax-only $$source || exit 1; done
	$(CC) $(STRICT) -fsyntax-only benchmarks/native/ring_limit.c

format: $(VENV)/.installed ## let ruff lay out the Python
	$(BIN)/ruff format .

build/ring_limit: benchmarks/native/ring_limit.c $(wildcard shm/*.c workers/*.c) $(C_HEADERS)
	mkdir -p build
	$(CC) $(STRICT) -DNDEBUG -o $@ benchmarks/native/ring_limit.c $(wildcard shm/*.c workers/*.c) -Wl,-z,now

bench: $(VENV)/.installed build/ring_limit ## all benchmarks beside the peers that can be had
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[bench]'
	$(BIN)/python -m benchmarks $(BENCH)

clean: ## remove what was built
	rm -rf build dist *.egg-info $(VENV) procaio/*.so
	find . -name __pycache__ -prune -exec rm -rf {} +
