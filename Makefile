# Everything is installed into .venv; what is there already is not installed again.
#
#   make demo     install, separate demos/mix.wav by text, and measure it
#   make app      install what the page needs and serve it at http://127.0.0.1:7860; ARGS="--help" lists its options
#   make test     install what the tests need, run them all; ARGS="-k audio" chooses
#   make check    lint, format, types, tests
#   make bench    speed, memory, SDRi, as tables and in benchmarks/bench.json; DATA=FOLDER holds the recordings and
#                 their lists, ARGS="--only speed" chooses
#   make fuzz     damage files for five minutes and check what the command and the page say; ARGS="--seed 7" chooses
#   make clean    remove .venv and what tools leave behind
#
# PYTHON=python3.12 chooses the Python that .venv is made with.

PYTHON ?= python3
QUERY ?= dog barking
DATA ?=
ARGS ?=

BIN := .venv/bin
# Installs quietly and reports every ten seconds how much is there.
PIP = @trap 'kill $$!' EXIT; \
	while sleep 10 >/dev/null 2>&1; do echo "  installing: $$(du -sm .venv | cut -f1) MB in .venv"; done & \
	$(BIN)/python -m pip --disable-pip-version-check install --quiet

# One stamp for each set of packages. Each needs the one before: two pips at once would spoil the environment.
VENV := .venv/stamp-venv
CORE := .venv/stamp-core
TEST := .venv/stamp-test
DEV := .venv/stamp-dev
APP := .venv/stamp-app

.PHONY: demo app test check lint types bench fuzz format clean
.DELETE_ON_ERROR:

demo: $(CORE)
	$(BIN)/separate --query "$(QUERY)" --overwrite demos/mix.wav
	$(BIN)/python demos/score.py --at-least 12

app: $(APP)
	$(BIN)/python demos/app.py $(ARGS)

test: $(TEST)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

check: lint types test

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV)
	$(BIN)/mypy

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(CORE)
	$(BIN)/python benchmarks/bench.py --json benchmarks/bench.json $(if $(DATA),--data "$(DATA)") $(ARGS)

fuzz: $(APP)
	$(BIN)/python benchmarks/fuzz.py $(ARGS)

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find separation tests demos benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV):
	@$(PYTHON) -c 'import sys; sys.exit("separation needs Python 3.10 or newer; name one with PYTHON=..." * (sys.version_info < (3, 10)) or 0)'
	$(PYTHON) -m venv .venv
	@touch $@

$(CORE): $(VENV) pyproject.toml
	@echo "installing the package and what it needs, about 1 GB; this happens once"
	$(PIP) -e .
	@touch $@

$(APP): $(CORE)
	$(PIP) -e ".[demo]"
	@touch $@

$(TEST): $(APP)
	$(PIP) -e ".[test,train,demo,clip,clap]"
	@touch $@

$(DEV): $(TEST)
	$(PIP) -e ".[test,train,demo,clip,clap,dev]"
	@touch $@
