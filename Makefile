# Every target makes .venv and installs what it needs by itself.
PYTHON ?= python3
BIN := .venv/bin
KERNEL := $(wildcard kernel/src/*.rs) kernel/Cargo.toml kernel/Cargo.lock
TARGETS := aarch64-unknown-linux-gnu x86_64-apple-darwin aarch64-apple-darwin x86_64-pc-windows-msvc

.PHONY: wheels release-check
.PHONY: setup demo check docs test quick coverage soak bench bench-quick bench-growth bench-dedup fuzz clean

setup: .venv/installed

.venv/installed: pyproject.toml $(KERNEL)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "xetstore needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --editable '.[server,fs,s3,postgres]' --group dev
	touch $@

demo: setup
	$(BIN)/python demo/demo.py

# The site, in docs-out/site. Warnings are errors: a link without its target, a name of the API that is not there.
.PHONY: docs
docs: setup
	$(BIN)/pip install --quiet --group docs
	$(BIN)/python docs/site.py
	$(BIN)/zensical build --clean --strict

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin src
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 src
	$(BIN)/lint-imports
	cargo fmt --manifest-path kernel/Cargo.toml --check
	cargo clippy --quiet --manifest-path kernel/Cargo.toml --all-targets -- -D warnings
	$(MAKE) --no-print-directory check-targets

# The kernel for systems that are not here, as far as rustup has them. Their C compilers are not here either: without C.
.PHONY: check-targets
check-targets:
	@for target in $(TARGETS); do \
		if { rustup target list --installed | grep -qx $$target || rustup target add $$target; } > /dev/null 2>&1; then \
			PYO3_CROSS_PYTHON_VERSION=3.11 RUSTFLAGS="-D warnings" cargo check --quiet --manifest-path kernel/Cargo.toml \
				--features pyo3/extension-module,blake3/pure --target $$target || exit 1; \
		else echo "not checked for $$target: rustup cannot add it"; fi; \
	done

# Three at a time, on two cores: most tests wait for a process, a timer or a client. In the order of their names: xdist
# would put the files of one long test last, where two processes wait for the third.
test: setup
	$(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# While you work: the kernel, the protocol and the store; what takes seconds, or needs a network, is left out.
quick: setup
	$(BIN)/pytest --numprocesses 2 --hypothesis-profile brief --quiet -m "not slow" \
		tests/kernel tests/protocol tests/vectors tests/cas tests/access tests/blobs tests/platform/test_threads.py \
		tests/test_architecture.py tests/test_conformance.py tests/test_docs.py tests/test_errors.py tests/test_prose.py

# By hand: all tests, and the part of the code that they run. The floor is in pyproject.toml, and only rises.
coverage: setup
	$(BIN)/pytest --numprocesses 2 --dist loadfile --cov --cov-report=term:skip-covered

# By hand: ten minutes of all kinds of clients at one server that is killed now and then.
soak: setup
	$(BIN)/python -m tests.soak --minutes 10

bench: setup
	$(BIN)/python -m bench

bench-quick: setup
	$(BIN)/python -m bench --quick

bench-growth: setup
	$(BIN)/python -m bench --only growth

bench-dedup: setup
	$(BIN)/python -m bench.dedup

fuzz: setup
	$(BIN)/pytest tests/protocol -k any_bytes --hypothesis-profile long

# What packages are made with, apart from what they are developed with.
.cache/release/installed: pyproject.toml
	test -x .cache/release/bin/python || $(PYTHON) -m venv .cache/release
	.cache/release/bin/pip install --quiet --upgrade 'pip>=25.1'
	.cache/release/bin/pip install --quiet --group release
	touch $@

# In dist/: for Linux and macOS, linked by Zig; a minute or two each.
wheels: setup .cache/release/installed
	$(BIN)/python -m release.wheels

# All that a release needs, without one; some ten minutes. It empties dist/ first.
release-check: setup .cache/release/installed
	$(BIN)/python -m release.check

clean:
	rm -rf .venv kernel/target demo-out dist docs-out .cache src/xetstore/*.so
