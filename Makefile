# make demo and make test work on a machine with git, make and a python3 that has pip or venv.
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python

.PHONY: help demo up test test-slow lint secrets audit check docs pictures minio soak fuzz bench clean

help: ## What there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/ready: pyproject.toml uv.lock scripts/bootstrap.sh
	@sh scripts/bootstrap.sh

demo: .venv/ready ## The whole pipe on real files, in a temporary folder
	@.venv/bin/penstock demo

up: .venv/ready ## Everything for this project, until Ctrl-C
	@.venv/bin/penstock up

docs: .venv/ready ## docs/reference/ from the code, and the documentation as a site into site/
	$(PYTHON) scripts/reference.py
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

pictures: .venv/ready ## Draw docs/pictures/ whose text in the Markdown changed; needs the network, and up to a minute for each
	$$(command -v uv || echo .uv/bin/uv) run --quiet --script scripts/pictures.py

minio: ## Build the pinned MinIO once, into the user's cache (about 4 minutes on 2 cores)
	@python3 scripts/build_minio.py

lint: .venv/ready secrets ## Format, lint, types, the direction of imports, and no secrets
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

secrets: .venv/ready ## No secret is in what git has or would take; needs no network
	$(PYTHON) scripts/scan_secrets.py

.venv/audit: .venv/ready
	@sh scripts/bootstrap.sh --group audit --inexact
	@touch $@

audit: .venv/audit ## No known vulnerability is in what uv.lock names; needs the network, and fails without
	$(PYTHON) scripts/audit.py

check: lint audit ## Lint, secrets and audit: before a release, and when a dependency changes

test: .venv/ready minio lint ## Lint, and every test but the slow ones, on real parts
	$(PYTHON) -m pytest -n 3 -m "not slow"

test-slow: .venv/ready minio ## The tests that take minutes, and many random examples; ONLY="not long" is what CI runs of it
	$(PYTHON) -m pytest -n 3 -m "slow$(if $(ONLY), and ($(ONLY)))"
	$(if $(ONLY),,$(PYTHON) -m pytest -n 3 -m hypothesis --hypothesis-profile=thorough --timeout=3600)

soak: .venv/ready minio ## Kill everything at random, then compare row by row: make soak MINUTES=2 SEED=
	$(PYTHON) -m tests.soak --minutes $(or $(MINUTES),2) $(if $(SEED),--seed $(SEED))

fuzz: .venv/ready minio ## Good, bad and broken requests against a real webhook: make fuzz REQUESTS=100000 SEED=
	$(PYTHON) -m tests.fuzz --requests $(or $(REQUESTS),100000) $(if $(SEED),--seed $(SEED))

.venv/bench: .venv/ready
	@sh scripts/bootstrap.sh --group bench --inexact
	@touch $@

bench: .venv/bench minio ## Measure, 40 minutes, into bench/RESULTS.md; or only show: make bench ARGS="--quick"
	$(PYTHON) -m bench $(or $(ARGS),--out bench/results.json)

clean: ## Remove what was built here; .penstock/ and inbox/ stay
	rm -rf .venv .uv dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
