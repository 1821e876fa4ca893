# pop3gw, from a fresh checkout, with nothing but Python 3.11 or newer and make at hand.
#
#   make run     the gateway with its demonstration: an APOP-only server behind it, on 127.0.0.1:1110
#   make test    everything that can fail: ruff, mypy, unit, scenario, process and integration tests
#   make bench   speed and memory beside other proxies, in ten minutes (docs/performance.md)
#
# What is missing is installed first (packages of Debian only when started as root, else the line to type is shown);
# when nothing is missing neither the network nor a second is used for it.

.PHONY: help venv run test test-packages lint bench clean
.DEFAULT_GOAL := help

PYTHON_BIN := .venv/bin/python
# `make test TESTS=tests/unit` runs one suite alone.
TESTS := tests
# What the command in .venv is built from.
SOURCES := setup.py pyproject.toml bench/usual.txt $(shell find pop3gw -name '*.py')

help:
	@sed -n 's/^#   //p' Makefile
	@echo 'make lint    ruff and mypy alone'
	@echo 'make venv    only .venv, with the command at .venv/bin/pop3gw'
	@echo 'make clean   removes what make has made here'

venv: .venv/ready-to-run
	@scripts/check-readable

run: venv
	@exec .venv/bin/pop3gw --demo

test: test-packages lint
	@scripts/check-readable
	$(PYTHON_BIN) -m pytest $(TESTS)

test-packages:
	@scripts/test-packages

bench: venv
	@$(MAKE) --no-print-directory -C bench compare

lint: .venv/ready-to-test
	$(PYTHON_BIN) -m ruff check .
	$(PYTHON_BIN) -m mypy

.venv/ready-to-run: scripts/make-venv $(SOURCES)
	scripts/make-venv --no-build-isolation '.[demo]'
	@touch $@

.venv/ready-to-test: .venv/ready-to-run tests/requirements.txt
	scripts/make-venv -r tests/requirements.txt
	@touch $@

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
