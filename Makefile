# Each target can be the first one on a machine that has only Python (>= 3.10), gcc and make.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
C_SOURCES = $(wildcard procaio/csrc/*.c shm/*.c workers/*.c)
C_HEADERS = $(wildcard procaio/csrc/*.h shm/*.h workers/*.h)
STRICT = -std=c11 -D_GNU_SOURCE -O2 -fPIC -Wall -Wextra -Wconversion -Wshadow -Werror
INCLUDE = $(shell $(BIN)/python -c 'import sysconfig; print(sysconfig.get_paths()["include"])')

.PHONY: help demo test slow soak quick check format docs bench bench-plots model model-deep tsan asan fuzz clean

help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The extension is built in place; a change of its sources builds it again.
$(VENV)/.installed: pyproject.toml $(C_SOURCES) $(C_HEADERS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if $(HAS_GIR) && $(INSTALL) '.[progress,test,check,test-gui]'; then :; else \
		echo "without PyGObject and PySide6-Addons: tests with GLib and QtAsyncio will be skipped"; \
		$(INSTALL) '.[progress,test,check]'; fi
	touch $@

INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable

# PyGObject needs Debian's libgirepository1.0-dev and libcairo2-dev.
HAS_GIR = pkg-config --exists gobject-introspection-1.0 cairo 2>/dev/null

demo: ## the main job: scan /usr with many requests in flight
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[progress]'
	$(BIN)/procaio scan /usr

test: $(VENV)/.installed ## every test but the slow ones
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist worksteal

slow: $(VENV)/.installed ## the tests that take long
	$(BIN)/python -m pytest -m slow

soak: $(VENV)/.installed ## everything at once with workers dying all the time, for MINUTES (120)
	$(BIN)/python tests/soak.py --minutes $(or $(MINUTES),120)

quick: $(VENV)/.installed ## a minute's worth of tests, for other versions of Python
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist worksteal -x -q tests/test_requests.py tests/test_files.py tests/test_data.py tests/test_asyncio.py tests/test_turns.py tests/test_fork.py \
		tests/test_groups.py tests/test_at_once.py tests/test_mapping.py tests/test_destructors.py tests/test_pool.py

check: $(VENV)/.installed ## lint, types, and C warnings as errors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/blocks.py build/blocks
	$(BIN)/mypy docs/examples/*.py build/blocks/*.py
	for source in $(C_SOURCES); do $(CC) $(STRICT) -isystem $(INCLUDE) -fsyntax-only $$source || exit 1; done
	$(CC) $(STRICT) -fsyntax-only benchmarks/native/ring_limit.c
	$(CC) $(STRICT) -fsyntax-only benchmarks/native/plain_calls.c
	if $(HAS_FUSE); then $(CC) $(STRICT) $(FUSE_HEADERS) -fsyntax-only benchmarks/native/slowfs.c; fi

format: $(VENV)/.installed ## let ruff lay out the Python
	$(BIN)/ruff format .

# What builds the site is no part of the development environment until somebody builds it.
$(VENV)/.docs: pyproject.toml | $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

# All pages are made anew: Sphinx does not see that a docstring in C has changed.
docs: $(VENV)/.installed $(VENV)/.docs ## the documentation, as a site in build/site
	$(BIN)/sphinx-build --fresh-env --fail-on-warning --keep-going --quiet -d build/doctrees docs build/site

model: ## check the models of the protocol with spin (Debian package: spin)
	$(PYTHON) tests/model/check.py

model-deep: ## the models with more deaths, requests and permits: half an hour, 11 GB
	$(PYTHON) tests/model/check.py --deep

# The rings, the slots and the arena without Python and without processes.
RING_SOURCES = shm/ring.c shm/segment.c shm/state.c shm/wake.c workers/loop.c workers/ops.c \
	$(wildcard workers/calls_*.c)
NATIVE = -std=c11 -D_GNU_SOURCE -O1 -g -Wall -Wextra -Wconversion -Wshadow -Werror -pthread
ADDRESS = -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

# gcc warns that its thread sanitizer does not know fences.  It need not: all data is handed over by
# release and acquire; the fences are for wake-ups, which tests/model proves.
build/test_rings_tsan: tests/native/test_rings.c $(RING_SOURCES) $(C_HEADERS)
	mkdir -p build
	$(CC) $(NATIVE) -fsanitize=thread -Wno-tsan -o $@ tests/native/test_rings.c $(RING_SOURCES)

build/test_rings_asan: tests/native/test_rings.c $(RING_SOURCES) $(C_HEADERS)
	mkdir -p build
	$(CC) $(NATIVE) $(ADDRESS) -o $@ tests/native/test_rings.c $(RING_SOURCES)

build/test_arena_asan: tests/native/test_arena.c shm/arena.c $(C_HEADERS)
	mkdir -p build
	$(CC) $(NATIVE) $(ADDRESS) -o $@ tests/native/test_arena.c shm/arena.c

build/test_memory_asan: tests/native/test_memory.c workers/calls_memory.c $(C_HEADERS)
	mkdir -p build
	$(CC) $(NATIVE) $(ADDRESS) -o $@ tests/native/test_memory.c workers/calls_memory.c

tsan: build/test_rings_tsan ## the rings between threads, under the thread sanitizer
	TSAN_OPTIONS=halt_on_error=1 build/test_rings_tsan 500000

# A build of its own beside a virtual environment of its own: instrumented code runs only there.
ASAN_BIN = build/asan-venv/bin
build/asan-venv/.installed: pyproject.toml $(C_SOURCES) $(C_HEADERS)
	test -x $(ASAN_BIN)/python || $(PYTHON) -m venv build/asan-venv
	$(ASAN_BIN)/python -m pip install --quiet --disable-pip-version-check 'setuptools>=77' '.[progress,test]'
	$(ASAN_BIN)/python -m pip uninstall --quiet --yes procaio
	rm -rf build/asan build/asan-temp
	CFLAGS='$(ADDRESS) -O1 -g' $(ASAN_BIN)/python -c 'from setuptools import setup; setup()' \
		build --build-lib build/asan --build-temp build/asan-temp --force --quiet
	echo '$(CURDIR)/build/asan' > $$($(ASAN_BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/procaio-asan.pth
	touch $@

# The interpreter leaks on purpose, so leaks are not looked for.  A signal handler of the sanitizer
# would take the crashes that tests provoke in workers.
ASAN_RUN = LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0:handle_segv=0:handle_sigbus=0:handle_abort=0:handle_sigill=0:handle_sigfpe=0 \
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 PYTHONMALLOC=malloc

asan: build/test_rings_asan build/test_arena_asan build/test_memory_asan build/asan-venv/.installed ## everything under the address and undefined-behaviour sanitizers
	build/test_rings_asan
	build/test_arena_asan
	build/test_memory_asan
	$(ASAN_RUN) $(ASAN_BIN)/python tests/native/workout.py
	cd build && $(ASAN_RUN) ../$(ASAN_BIN)/python ../$(ASAN_BIN)/pytest -c ../pyproject.toml -q -m 'not slow' \
		-p no:cacheprovider --capture=sys --timeout 300 --ignore ../tests/test_native.py \
		--ignore ../tests/test_benchmarks.py --ignore ../tests/test_slowfs.py \
		--ignore ../tests/test_tutorial.py $(or $(ASAN_TESTS),../tests)

SECONDS = 60
fuzz: build/asan-venv/.installed ## garbage at random in shared memory, under the sanitizers: SECONDS=60
	$(ASAN_RUN) $(ASAN_BIN)/python tests/fuzz.py --first $(or $(FIRST),$$(date +%s)) --seconds $(SECONDS)

build/ring_limit: benchmarks/native/ring_limit.c $(wildcard shm/*.c workers/*.c) $(C_HEADERS)
	mkdir -p build
	$(CC) $(STRICT) -DNDEBUG -o $@.$$$$ benchmarks/native/ring_limit.c $(wildcard shm/*.c workers/*.c) -Wl,-z,now \
		&& mv $@.$$$$ $@

build/plain_calls: benchmarks/native/plain_calls.c
	mkdir -p build
	$(CC) $(STRICT) -pthread -o $@.$$$$ $< && mv $@.$$$$ $@

# Debian packages libfuse3-dev and fuse3.  Their warnings are not ours.
HAS_FUSE = pkg-config --exists fuse3 2>/dev/null
FUSE_HEADERS = $(patsubst -I%,-isystem %,$(shell pkg-config --cflags fuse3 2>/dev/null))

build/slowfs: benchmarks/native/slowfs.c
	mkdir -p build
	$(CC) $(STRICT) $(FUSE_HEADERS) -o $@.$$$$ benchmarks/native/slowfs.c $$(pkg-config --libs fuse3) && mv $@.$$$$ $@

bench: $(VENV)/.installed build/ring_limit build/plain_calls ## all benchmarks beside the peers that can be had
	if $(HAS_FUSE); then $(MAKE) build/slowfs; fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m benchmarks --json build/bench.json $(BENCH)

bench-plots: $(VENV)/.installed ## how late loops are, how fast web servers: plots and tables of the docs
	if $(HAS_FUSE); then $(MAKE) build/slowfs; fi
	mkdir -p build
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m benchmarks --only lateness --only http --json build/bench-plots.json --page docs/benchmarks.md $(BENCH)
	$(BIN)/python -m benchmarks.plots build/bench-plots.json docs/_static

clean: ## remove what was built
	rm -rf build dist *.egg-info $(VENV) procaio/*.so
	find . -name __pycache__ -prune -exec rm -rf {} +
