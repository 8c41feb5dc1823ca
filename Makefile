# The first Python that runs: a version manager's shim can be on the PATH and start nothing. bootstrap.py checks the version.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	if $$p -c pass >/dev/null 2>&1; then echo $$p; exit; fi; done; echo python3)
ARGS ?=

.PHONY: help bench test test-slow check
help:
	@echo "make bench   set up, run the tiny benchmark end to end, print where its report is"
	@echo "make test    set up and run the tests"
	@echo "make test-slow   those that make test leaves out: whole processes once more, several minutes"
	@echo "make check   set up, then style, types and import rules"
	@echo "ARGS='...' is passed on to the benchmark or the tests"
bench:
	@$(PYTHON) bootstrap.py bench $(ARGS)
test:
	@$(PYTHON) bootstrap.py test $(ARGS)
test-slow:
	@$(PYTHON) bootstrap.py test -m slow $(ARGS)
check:
	@$(PYTHON) bootstrap.py check
