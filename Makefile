# Sluice in one word per wish; `make help` lists them. The build itself is CMake's (CMakeLists.txt), in build/.
SHELL := /bin/bash
BUILD ?= build
JOBS ?= 2
TESTS ?= .
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 60
FUZZ_JOBS ?= 2
# Slow, and what they keep beside each byte is no memory of ours: told, not judged.
UNDER_SANITIZER = SLU_TEST_PATIENCE=600 SLU_TEST_MEMORY=tell
TSAN = suppressions=$(CURDIR)/tests/sanitizers/tsan.supp:second_deadlock_stack=1:exitcode=66
CACHE := $(if $(shell command -v ccache 2>/dev/null),-DCMAKE_C_COMPILER_LAUNCHER=ccache)
configure = cmake -G Ninja -S . -B $(1) $(CACHE) $(2)

.PHONY: $(shell sed -n 's/^\([a-z][a-z-]*\):.*/\1/p' $(firstword $(MAKEFILE_LIST)))

build: deps ## Build everything into build/bin (the default)
	@test -f $(BUILD)/build.ninja || $(call configure,$(BUILD),)
	@cmake --build $(BUILD) -j $(JOBS)

demo: build ## The whole path at work, about a minute. DATA=../shared/data/storefront: recorded events; BROKERS=host:port: your Kafka; KILL=1: kill -9 the trainer midway
	@BUILD='$(BUILD)' DATA='$(DATA)' BROKERS='$(BROKERS)' KILL='$(KILL)' IMPRESSIONS='$(IMPRESSIONS)' SEED='$(SEED)' deploy/demo.sh

test: build ## Every test: unit, fuzz corpora, integration with a real Kafka, interop with an official gRPC client. TESTS=regex: only those
	@ctest --test-dir $(BUILD) --output-on-failure -R '$(TESTS)'

broker: deps ## A real single-node Apache Kafka for looking around, until Ctrl-C
	@deploy/broker/broker.sh run

deps: ## Install the Debian packages that are missing
	@deploy/deps.sh build

deps-fuzz:
	@deploy/deps.sh build fuzz

deps-format:
	@deploy/deps.sh format

build-asan: deps
	@test -f build-asan/build.ninja || $(call configure,build-asan,-DSLU_SANITIZE=asan)
	@cmake --build build-asan -j $(JOBS)

asan: build-asan ## Unit tests and fuzz corpora under AddressSanitizer and UBSan, in build-asan/
	@ctest --test-dir build-asan --output-on-failure -L 'unit|fuzz' -R '$(TESTS)'

asan-all: build-asan ## The same and the daemons in integration and interop tests
	@$(UNDER_SANITIZER) ctest --test-dir build-asan --output-on-failure -L 'unit|fuzz|integration|interop' -R '$(TESTS)'

build-tsan: deps
	@test -f build-tsan/build.ninja || $(call configure,build-tsan,-DSLU_SANITIZE=tsan)
	@cmake --build build-tsan -j $(JOBS)

tsan: build-tsan ## Unit tests that have threads under ThreadSanitizer, in build-tsan/
	@TSAN_OPTIONS='$(TSAN)' ctest --test-dir build-tsan --output-on-failure -L threads -R '$(TESTS)'

tsan-all: build-tsan ## The same and the daemons in integration and interop tests
	@TSAN_OPTIONS='$(TSAN)' $(UNDER_SANITIZER) ctest --test-dir build-tsan --output-on-failure -L 'threads|integration|interop' -R '$(TESTS)'

valgrind: build ## Unit tests under valgrind, JOBS at a time (hours). TESTS=regex: only those
	@command -v valgrind >/dev/null || { echo 'install valgrind first: apt-get install valgrind' >&2; exit 1; }
	@JOBS=$(JOBS) deploy/valgrind.sh $(BUILD) '$(TESTS)'

soak-faults: build ## A kill, an error, a torn write and a power cut at every file call of a short run of a store (hours). MINUTES=15: as many as fit, chosen by SEED
	@SLU_TEST_TIMEOUT=86400 $(if $(MINUTES),SLU_FAULT_SECONDS=$$(( $(MINUTES) * 60 )),SLU_FAULT_EVERY=1) $(if $(SEED),SLU_TEST_SEED=$(SEED)) $(BUILD)/tests/test_store_faults

fuzz: deps-fuzz ## Run fuzzers for FUZZ_SECONDS each, FUZZ_JOBS at a time, in build-fuzz/; prints a table. FUZZ=names: only those
	@test -f build-fuzz/build.ninja || $(call configure,build-fuzz,-DSLU_FUZZ=ON -DCMAKE_C_COMPILER=clang)
	@cmake --build build-fuzz -j $(JOBS)
	@deploy/fuzz.sh build-fuzz $(FUZZ_SECONDS) $(FUZZ_JOBS) $(FUZZ)

soak-bounds: build ## Memory of trainer and scorer against their limits for MINUTES (30): bursts, a table many times the cache, slow disk, clients that never read. MEMORY=MiB of the trainer
	@python3 tests/soak_bounds/soak_bounds.py --build $(BUILD) --seconds $$(( $(or $(MINUTES),30) * 60 )) --memory $(or $(MEMORY),256)

soak-overload: build ## A scorer asked for TIMES (3) what it can score, DURATION (20) s a phase: refused, expired, latency of what is accepted
	@python3 tests/overload/overload.py --build $(BUILD) --seconds $(or $(DURATION),20) --times $(or $(TIMES),3) --measure

soak-hoard: build ## A scorer beside CONNECTIONS (5000) that are opened and ask nothing, then without file descriptors: clients that ask are served
	@python3 tests/overload/hoard.py --build $(BUILD) --connections $(or $(CONNECTIONS),5000) --measure

soak-kill: build ## Kill the trainer KILLS times (SIGKILL, also of the broker, also cuts of power) under EVENTS events, then count: kills=.. events=.. lost=.. doubled=.. digest=.. SEED=number
	@python3 tests/soak/soak_kill.py --build $(BUILD) --kills $(or $(KILLS),200) --seed $(or $(SEED),1) --events $(or $(EVENTS),300000)

soak-sabotage: build ## The soak's own test: small soaks of a trainer with a defect to order, each of which has to be found
	@python3 tests/soak/test_sabotage.py $(BUILD)

bench-storefront: build ## What is learned from recorded events (DATA=folder): AUC, NE, calibration; CHECK=1 fails when a target is missed; SENSITIVITY=1: one change at a time; PRECISION=int8: a scorer in int8 against fp32; PRECISION=bf16: training in bf16 against fp32, SEEDS=5 models each; ONLY=name of a config
	@python3 bench/storefront.py --build $(BUILD) --data $(or $(DATA),../shared/data/storefront) $(if $(SENSITIVITY),--sensitivity) $(if $(PRECISION),--precision $(PRECISION)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(ONLY),--only '$(ONLY)')

bench-train-path: build ## Samples a second of the learner's step alone and of the whole replay path
	@mkdir -p $(BUILD)/bench
	@$(BUILD)/bench/train_path examples/storefront.yaml $(or $(DATA),../shared/data/storefront) 3 > $(BUILD)/bench/train_path.json

$(BUILD)/bench/venv/ready: bench/peers/requirements.txt
	@python3 -m venv $(BUILD)/bench/venv && $(BUILD)/bench/venv/bin/pip install -q -r $< && touch $@

bench-train: build $(BUILD)/bench/venv/ready ## The learner's step, in fp32 and bf16, against a PyTorch twin and the machine's floor; CHECK=1
	@BUILD='$(BUILD)' python3 bench/train.py

bench-score: build $(BUILD)/bench/venv/ready ## Scoring in process against ONNX Runtime, fp32 and int8; CHECK=1
	@BUILD='$(BUILD)' python3 bench/score.py

bench-serve: build ## Scoring over gRPC by h2load: throughput, latency, and what recorded updates, replayed, do to it; PRECISION=int8; THREADS=2; NEIGHBOUR=1: beside a trainer, too; CHECK=1
	@deploy/deps.sh bench
	@BUILD='$(BUILD)' python3 bench/serve.py

bench-path: build ## From a topic's bytes to trained and committed against the bare step, table in the row cache and ten times as large; CHECK=1
	@BUILD='$(BUILD)' python3 bench/path.py

bench-fresh: build ## From an event to the first score that reflects it, by commit interval; CHECK=1
	@BUILD='$(BUILD)' python3 bench/fresh.py

bench-scale: build ## Cost per event and row, cold starts and recovery, as the table grows. ROWS="1e6 1e7 5e7"
	@ROWS='$(or $(ROWS),1e6 1e7 5e7)' BUILD='$(BUILD)' python3 bench/scale.py

bench-machine: build ## What this machine does to short work after a gap, and to a thread that is woken
	@$(BUILD)/bench/machine

bench-start: build ## How fast a scorer reads its store when it starts. ROWS=1e7 RUNS=5
	@BUILD='$(BUILD)' python3 bench/start.py

format: deps-format ## clang-format all C sources
	@git ls-files '*.c' '*.h' | xargs clang-format -i

install: build ## Install programs, units, docs and examples below PREFIX (DESTDIR is honoured)
	@cmake --install $(BUILD) --prefix '$(PREFIX)'

clean: ## Remove the build folders
	@rm -rf build build-asan build-tsan build-fuzz

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-17s %s\n", $$1, $$2}' Makefile
