# Two commands do everything: `make demo` and `make test`. Both need only Python >= 3.10.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

# What only some tests want, so that with Debian's packages they are not skipped.
DEBIAN_EXTRA := ', python3-cryptography, python3-botocore, openssl, git, dpkg-dev, nftables'

.PHONY: venv demo test test-faults test-ends test-other-faults test-image test-debian \
	packages lint bench soak deb deb-check clean
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

# Every fault of docs/faults.rst; as root none is skipped for want of rights. Most of the
# time is spent waiting, so that two halves run side by side.
ENDS := $(patsubst %,tests/faults/test_%.py,adoption ends silent_deaths)

test-faults: venv
	+$(MAKE) --no-print-directory --output-sync -j2 test-ends test-other-faults

test-ends: venv
	$(BIN)/python -m pytest $(ENDS) -m "" -rs --durations=5

test-other-faults: venv
	$(BIN)/python -m pytest tests/faults $(ENDS:%=--ignore=%) -m "" -rs --durations=5

# As root: the packages on machines of their own, which boot with systemd, take jobs, are
# upgraded and switched off. This machine stays as it is, but for what `deb` installs.
test-image: packages
	tests/image/run build/image python3 -m pytest -v -p no:cacheprovider tests/image

# As root: the tests of the modules with Debian's own Python and Debian's packages.
test-debian: packages
	EXTRA=$(DEBIAN_EXTRA) tests/image/run build/image tests/image/units -q

packages:
	rm -rf build/image
	debian/make-deb build/image
	tests/image/newer build/image/newer

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
