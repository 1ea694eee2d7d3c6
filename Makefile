# Makefile: the commands of README.md. `make demo` and `make test` do all set-up on a bare Debian 12.
BUILD := build/release
NINJA_FLAGS ?=

.PHONY: build demo test bench lint fuzz sanitize clean

build:
	tools/setup.sh build
	cmake --preset release > build-configure.log 2>&1 || { cat build-configure.log; exit 1; }
	@rm -f build-configure.log
	cmake --build --preset release -- $(NINJA_FLAGS)

demo: build
	demo/run.sh

test: build
	.venv/bin/python tools/check_arrows.py
	ctest --test-dir $(BUILD) --output-on-failure -j1

bench: build
	bench/all

lint:
	tools/setup.sh build lint
	cmake --preset dev > /dev/null
	tools/lint.sh

fuzz:
	tools/setup.sh build fuzz
	tools/fuzz.sh

sanitize: build
	tests/sanitizers/run.sh asan
	tests/sanitizers/run.sh tsan

clean:
	rm -rf build demo/out demo/data
