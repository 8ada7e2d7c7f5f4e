# The two commands of the README; everything else is for developers.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# What the tests run apart, as it does not go with the locked packages.
APART := $(VENV)/ml4gw-hermes-0.3.1 $(VENV)/onnxruntime-1.19.2
# One thread a process: several contending ones are slower on a few cores.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
# What deno keeps between two checks.
export DENO_DIR := $(CURDIR)/$(VENV)/deno
# Files of tests are run side by side: each process takes up to 2 GB beside its servers.
WORKERS ?= 2

.PHONY: demo test slow bench docs wheel lock clean

demo: $(VENV)/.base ## Run the main job: serve, replay, ask
	$(BIN)/chirpwatch demo $(if $(KEEP),--keep) $(ARGS)

test: $(VENV)/.dev $(APART) ## Check the code and run the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/deno check --quiet api/web
	$(BIN)/deno lint --quiet api/web
	$(BIN)/deno fmt --check --quiet api/web/static/*.js
	$(BIN)/pytest -m "not slow" -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
		--durations=15 $(ARGS)

slow: $(VENV)/.dev $(APART) ## Run the tests that kill, freeze and cut, over and over
	$(BIN)/pytest -m slow -n $(WORKERS) --dist loadgroup --durations=15 $(ARGS)

bench: $(VENV)/.dev ## Time chirpwatch against the reference method
	$(BIN)/python -m benchmarks

docs: $(VENV)/.docs ## Build the documentation's site, into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(VENV)/.base ## Build the package, into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

lock: $(VENV)/.dev ## Resolve the lock files anew
	$(BIN)/python -m pip install uv
	cd requirements && sh ./compile.sh ../$(BIN)/uv

clean: ## Remove what the other targets made
	rm -rf $(VENV) runs build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: requirements/base.lock pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/base.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: requirements/dev.lock $(VENV)/.base
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.lock
	touch $@

$(VENV)/.docs: requirements/docs.lock $(VENV)/.base
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/docs.lock
	touch $@

$(APART): $(VENV)/%: requirements/%.lock | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps --upgrade --target $@ -r $<
	touch $@
