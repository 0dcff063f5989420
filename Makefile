# make demo | make test | make test-hard | make lint | make docs | make site: each sets up what it needs first.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: setup demo test test-slow test-hard lint release-tools dist lock sbom audit-code docs site check-docs ci-results check-numbers update-numbers check-small clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "needs Python 3.11 or newer"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/python run_benchmark.py --scenario class_removal --methods pgu,scrub

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

# Kills, full disks, hostile files, bad input: what must not lose or run anything. `make test` runs the quick ones too.
test-hard: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal -m hard

lint: setup check-docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit -q -c pyproject.toml -r bench methods attacks reports run_benchmark.py

# What is for a release. `lock` wants PyTorch's index of CPU wheels, as in CI: PIP_EXTRA_INDEX_URL.
release-tools: setup
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[release]'

# The distributions of the last commit: of what git has, with its time and a known setuptools, so that the wheel has the same bytes anywhere.
dist: release-tools
	rm -rf build/dist build/dist-source
	mkdir -p build/dist-source
	umask 022; git archive HEAD | tar --extract --no-same-permissions --directory build/dist-source
	umask 022; SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --no-isolation --outdir build/dist build/dist-source

# requirements.lock: what a plain installation takes, of the versions in constraints.txt, with a checksum of every file.
lock: release-tools
	CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe \
		--no-emit-find-links --no-emit-index-url --no-emit-trusted-host --constraint constraints.txt \
		--output-file requirements.lock pyproject.toml

# The bill of materials of a plain installation, and what advisories say about it, for which the network is needed.
sbom: release-tools
	$(PYTHON) -m venv --clear --without-pip build/sbom
	$(BIN)/pip --python build/sbom install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file build/sbom.json build/sbom

audit-code: release-tools
	$(BIN)/bandit -q -c pyproject.toml -r bench methods attacks reports run_benchmark.py
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock

# docs/methods.md says what the methods' files say, docs/metrics.md what reports/metrics.toml does.
docs: setup
	mkdir -p build
	$(BIN)/python run_benchmark.py list methods --markdown > build/methods.md
	mv build/methods.md docs/methods.md
	$(BIN)/python -m reports.metrics > build/metrics.md
	mv build/metrics.md docs/metrics.md

# The site, of docs/*.md: open build/site/index.html. A warning is an error.
site: setup
	$(BIN)/python -m sphinx -q -W --keep-going -d build/doctrees docs build/site

check-docs: setup
	$(BIN)/python run_benchmark.py list methods --markdown | diff docs/methods.md - || \
		{ echo 'docs/methods.md is stale; run make docs' >&2; exit 1; }
	$(BIN)/python -m reports.metrics | diff docs/metrics.md - || \
		{ echo 'docs/metrics.md is stale; run make docs' >&2; exit 1; }

# A small fixed benchmark and the quick start against their stored baselines: fails when a number moved.
check-numbers: ci-results
	set -e; for name in ci quickstart; do \
		$(BIN)/python run_benchmark.py compare build/$$name --baseline baselines/$$name.json; done

# Each prints the line that CHANGELOG.md then needs, with the reason.
update-numbers: ci-results
	set -e; for name in ci quickstart; do \
		$(BIN)/python run_benchmark.py compare build/$$name --baseline baselines/$$name.json --update-baseline; done

ci-results: setup
	$(BIN)/python run_benchmark.py --preset ci --store build/ci-store --out build/ci
	$(BIN)/python run_benchmark.py --scenario class_removal --methods pgu,scrub --store build/ci-store --out build/quickstart

# The small presets on real photographs against their stored baselines: half an hour on two cores. DATA names the folder.
DATA ?= data
SMALL ?= cifar10-small
check-small: setup
	set -e; for preset in $(SMALL); do \
		$(BIN)/python run_benchmark.py --preset $$preset --data-dir $(DATA) --store build/small-store --out build/$$preset; \
		for baseline in baselines/$$preset/*.json; do \
			$(BIN)/python run_benchmark.py compare build/$$preset/$$(basename $$baseline .json) --baseline $$baseline; \
		done; \
	done

clean:
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis
