# make demo   train, evaluate and look at a small detector with ECA, no download
# make test   the tests
# An active environment that has the stack is used; otherwise .venv is made.
# PYTHON=path uses that interpreter as it is.
BOOTSTRAP ?= python3
SETUP = $(BOOTSTRAP) tools/setup_env.py $(if $(PYTHON),--python $(PYTHON))

.PHONY: help demo test test-openmmlab lint

help:
	@echo 'make demo            train, evaluate and look at a small detector'
	@echo 'make test            the tests, on the maintained (onedl) packages'
	@echo 'make test-openmmlab  the tests, on the last OpenMMLab releases'
	@echo 'make lint            ruff and mypy'
	@echo 'PYTHON=path uses that interpreter; ARGS="..." goes to pytest.'

demo:
	@$(SETUP) -- python tools/demo.py

test:
	@$(SETUP) -- python -m pytest $(ARGS)

test-openmmlab:
	@$(SETUP) --stack openmmlab --env .venv-openmmlab -- \
	    python -m pytest $(ARGS)

lint:
	@$(SETUP) -- ruff check .
	@$(SETUP) -- ruff format --check .
	@$(SETUP) -- python -m mypy
