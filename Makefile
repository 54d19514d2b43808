# Three targets: `make demo` shows it, `make test` proves it, `make check` is for developers between edits.
# `make test PYTHON=/usr/bin/python3` chooses the interpreter; PYTEST_ADDOPTS adds options of pytest; `make check TESTS=no` only lints.
# The environment is .venv, re-made when pyproject.toml changes; elsewhere if .venv cannot be ours (tests/venv.sh).

PYTHON ?= python3
export PYTHON

.PHONY: help demo test check

help:
	@echo "make demo    install into .venv, run examples/pi on a node of its own, show the results"
	@echo "make test    the whole test suite"
	@echo "make check   lint, types, import contracts and unit tests; a minute and a half"

demo:
	@venv=$$(sh tests/venv.sh run) && sh examples/demo.sh "$$venv"

test:
	@venv=$$(sh tests/venv.sh dev) && sh tests/suite.sh "$$venv"

check:
	@venv=$$(sh tests/venv.sh dev) && sh tests/check.sh "$$venv"
