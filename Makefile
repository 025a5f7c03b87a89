# An active environment that has the stack is used; otherwise .venv is made.
BOOTSTRAP ?= python3
ENVIRONMENT = $(BOOTSTRAP) tools/setup_env.py
SETUP = $(ENVIRONMENT) $(if $(PYTHON),--python $(PYTHON))
DOCS = $(ENVIRONMENT) --stack docs --
PYTEST = python -m pytest

.PHONY: help demo test test-slow test-all test-openmmlab lint docs docs-serve

help:
	@echo 'make demo            train, evaluate and look at a small detector'
	@echo 'make test            the fast tests'
	@echo 'make test-slow       the other tests, which start trainings'
	@echo 'make test-all        all tests'
	@echo "make test-openmmlab  all tests, on OpenMMLab's last releases"
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

lint:
	@$(SETUP) -- ruff check .
	@$(SETUP) -- ruff format --check .
	@$(SETUP) -- python -m mypy

docs:
	@$(DOCS) mkdocs build --strict

docs-serve:
	@$(DOCS) mkdocs serve
