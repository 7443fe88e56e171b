# The commands one types daily. `make demo` and `make test` set everything up by themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CHECKED := client executors orchestrator docker docs release benchmarks examples
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo test guard lint audit format docs site sbom wheels proto clean
help:  ## Show this list.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[all]'
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/installed  ## Install, start flow.yml, index the standard library's documentation, search it, stop.
	$(BIN)/python examples/quickstart.py

# Beside another file some time limits are too tight: what fails there is run again by itself, and that counts.
test: $(VENV)/installed-dev  ## Run all tests: two files at a time, then what must run alone.
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --durations 25 -m 'not alone' || \
		$(BIN)/python -m pytest --last-failed --last-failed-no-failures none
	$(BIN)/python -m pytest --durations 25 -m alone

guard: $(VENV)/installed-dev  ## Measure, and fail where something has become more than 25 % slower.
	$(BIN)/python benchmarks/guard.py

lint: $(VENV)/installed-dev  ## Run ruff, mypy and bandit.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@# It warns of every line of an expression whose one finding is explained: shown only if there are findings.
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml $(CHECKED) 2>$(VENV)/bandit.log || { cat $(VENV)/bandit.log; exit 1; }

audit: $(VENV)/installed-dev  ## Look the images' packages up among known weaknesses (FLOWDEX_ADVISORIES: a file of them).
	$(BIN)/python release/audit.py

format: $(VENV)/installed-dev  ## Format the code and mend what ruff can mend.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/installed-dev  ## Write the generated files again: CLI reference, OpenAPI document, JSON Schema.
	$(BIN)/python docs/generate.py

site: $(VENV)/installed-dev  ## Build the documentation into .site/, and fail on a warning.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

sbom: $(VENV)/installed-dev  ## Write what each image holds into .sbom/, as CycloneDX.
	$(BIN)/python release/sbom.py

wheels: $(VENV)/installed-dev  ## Build the package into dist/, and see each extra work in clean environments.
	$(BIN)/python release/wheels.py --out dist

proto: $(VENV)/installed-dev  ## Generate the protobuf code again (with protoc 25, whose code runs on protobuf 4.25 to 7).
	$(PYTHON) -m venv $(VENV)/protoc
	$(VENV)/protoc/bin/python -m pip install --quiet 'grpcio-tools==1.62.3' 'setuptools<81'
	cd client && ../$(VENV)/protoc/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. flowdex/proto/flowdex.proto flowdex/proto/exchange.proto

clean:  ## Remove the virtual environment and caches (the index in .flowdex stays).
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
