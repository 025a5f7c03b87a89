# An active environment that has the stack is used; otherwise .venv is made.
BOOTSTRAP ?= python3
ENVIRONMENT = $(BOOTSTRAP) tools/setup_env.py
SETUP = $(ENVIRONMENT) $(if $(PYTHON),--python $(PYTHON))
DOCS = $(ENVIRONMENT) --stack docs --
PYTEST = python -m pytest

.PHONY: help demo test test-slow test-all test-openmmlab faults faults-short \
	fuzz lint docs docs-serve

help:
	@echo 'make demo            train, evaluate and look at a small detector'
	@echo 'make test            the fast tests'
	@echo 'make test-slow       the other tests, which start trainings'
	@echo 'make test-all        all tests'
	@echo "make test-openmmlab  all tests, on OpenMMLab's last releases"
	@echo 'make faults          kill, fill up, damage and deceive it: a table'
	@echo 'make faults-short    some of these'
	@echo 'make fuzz            random files and arguments, for 10 minutes'
	@echo 'make lint            ruff and mypy'
	@echo 'make docs            the manual, in site/'
	@echo 'make docs-serve      the manual, in a browser while you write'
	@echo 'ARGS="..." goes to pytest. PYTHON=path uses that interpreter as it'
	@echo 'is. BOOTSTRAP=path makes the environments with that one.'

demo:
	@$(SETUP) -- python tools/demo.py

test:
	@$(SETUP) -- $(PYTEST) -m 'not slow' $(ARGS)

test-slow:
	@$(SETUP) -- $(PYTEST) -m slow $(ARGS)

test-all:
	@$(SETUP) -- $(PYTEST) $(ARGS)

test-openmmlab:
	@$(SETUP) --stack openmmlab -- $(PYTEST) $(ARGS)

faults:
	@$(SETUP) -- python tests/faults $(ARGS)

faults-short:
	@$(SETUP) -- python tests/faults --short $(ARGS)

# Two tests at a time, each for so many seconds.
FUZZ_SECONDS ?= 280
fuzz: export FUZZ_SECONDS := $(FUZZ_SECONDS)
fuzz:
	@$(SETUP) -- $(PYTEST) -rP -o python_files='*.py' tests/fuzz $(ARGS)

lint:
	@$(SETUP) -- ruff check .
	@$(SETUP) -- ruff format --check .
	@$(SETUP) -- python -m mypy

docs:
	@$(DOCS) mkdocs build --strict

docs-serve:
	@$(DOCS) mkdocs serve
