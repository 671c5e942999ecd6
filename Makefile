# Everything from a fresh clone: each target makes what it needs, in .venv, once. See "make help".

RUN = .venv/bin/python

# What mypy reads apart from pymc/, see setup.cfg
REST = conftest.py setup.py overlay scripts tests $(wildcard benchmarks examples docs/*.py)
# "make test PYTEST_ARGS=tests/test_layer.py" runs one file
PYTEST_ARGS = -n 2 --dist loadgroup

.DEFAULT_GOAL = help
.PHONY: help demo demo-stream demo-cluster test lint conformance upstream soak release docs docs-test bench clean FORCE

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

demo: .venv/.demo  ## fit a robust hierarchical regression to 336,776 flights
	$(RUN) examples/flights.py

demo-stream: .venv/.demo  ## stream the flights from Parquet files: kill the fit half-way, resume, compare
	$(RUN) examples/flights_stream.py

demo-cluster: .venv/.demo  ## fit the flights by two worker processes, kill one of them, compare
	$(RUN) examples/flights_cluster.py

test: lint  ## lint, and run the tests with the quick part of the conformance check
	$(RUN) -m pytest $(PYTEST_ARGS)

lint: .venv/.test  ## ruff with PyMC's rules, and mypy, on every file of ours
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy pymc
	$(RUN) -m mypy $(REST)

conformance: .venv/.test  ## fit every case in every way, and compare the release's own tests with plain PyMC
	CONFORMANCE_TABLE=full $(RUN) -m pytest $(PYTEST_ARGS) --durations=0 tests/variational/test_conformance_table.py
	$(RUN) -m tests.conformance $(if $(PYMC_TESTS),--tests "$(PYMC_TESTS)")

upstream: .venv/.test  ## write the patch as commits on PyMC's tree; RELEASE=6.5.0 or CHECKOUT=path compares another PyMC
	$(RUN) -m scripts.upstream $(if $(RELEASE),--release $(RELEASE)) $(if $(CHECKOUT),--checkout "$(CHECKOUT)")

soak: .venv/.test  ## the long fault tests: kills, full disks, damaged files
	SOAK=1 $(RUN) -m pytest $(PYTEST_ARGS) tests/data_loading tests/variational/checkpoints tests/variational/cluster

release: .venv/.test  ## build the sdist and the wheel in dist/, and try the wheel on each supported Python
	rm -rf dist && mkdir dist
	$(RUN) -c "import sys; sys.path.insert(0, 'overlay'); import backend; backend.build_sdist('dist'); backend.build_wheel('dist')"
	RELEASE=1 $(RUN) -m pytest tests/test_release.py tests/test_installed.py

docs: .venv/.docs  ## build docs/_build/html
	$(RUN) -m sphinx -W --keep-going -b html docs docs/_build/html

docs-test: docs  ## look at the built site with Chromium; screenshots in build/site
	$(RUN) -m pytest docs/test_site.py

bench: .venv/.test  ## run every benchmark, and print its table
	@for file in $$(grep -l __main__ benchmarks/*.py); do echo "$(RUN) $$file"; $(RUN) $$file || exit 1; done

clean:  ## remove all that the other targets made
	rm -rf .venv .tools .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist docs/_build
	rm -rf *.egg-info overlay/*.egg-info

# One stamp for each group of dependencies; a change of what is installed installs again, and so does
# PYTHON=, which .venv may not be of.
.venv/.%: pyproject.toml setup.py scripts/environment.sh $(wildcard overlay/*.py overlay/*/*.py) $(if $(PYTHON),FORCE)
	@PYTHON="$(PYTHON)" scripts/environment.sh $*
