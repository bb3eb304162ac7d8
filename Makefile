# Two commands do everything: `make demo` and `make test`. Both need only Python >= 3.10.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: venv demo test test-faults lint bench soak deb deb-check clean
.DEFAULT_GOAL := test

venv: $(STAMP)

# Installed anew only when what is to be installed has changed.
$(STAMP): setup.cfg setup.py miglet/__init__.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "MIGlet needs Python >= 3.10, this is " + sys.version)'
	@test -x $(BIN)/python || PYTHON="$(PYTHON)" .ci/venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[controller,test,lint,bench]'
	@touch $(STAMP)

demo: venv
	$(BIN)/python -m tests.demo

test: venv
	$(BIN)/python -m pytest

# Every fault of docs/faults.rst; as root none is skipped for want of rights.
test-faults: venv
	$(BIN)/python -m pytest tests/faults -m "" -rs

lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: venv
	$(BIN)/python -m tests.bench

soak: venv
	HOURS=$(or $(HOURS),0.1667) $(BIN)/python -m tests.soak

# Both packages, into dist/; what building them needs is installed first.
deb:
	debian/make-deb dist

# Built once more they are the same to the byte, and lintian has nothing against them.
deb-check: deb
	debian/check-deb dist

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find miglet tests -name __pycache__ -type d -exec rm -rf {} +
