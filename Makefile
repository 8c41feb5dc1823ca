PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)

.PHONY: help test check
help:
	@echo "make test    set up and run the tests"
	@echo "make check   set up, then style, types and import rules"
test:
	@$(PYTHON) bootstrap.py test
check:
	@$(PYTHON) bootstrap.py check
