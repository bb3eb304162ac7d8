# `make help` lists what there is. Only Python >= 3.10 is needed; all of it works from any
# folder, and twice at the same time.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

# Tests spend most of their time waiting for processes, so that there are more workers
# than processors. `make test WORKERS=0` runs them one after the other.
PROCESSORS := $(shell nproc)
WORKERS ?= $(shell expr 2 \* $(PROCESSORS))
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# Compiled modules are kept: to compile all tests takes longer than to run the quick ones.
export PYTHONDONTWRITEBYTECODE :=

# What only some tests want, so that with Debian's packages they are not skipped.
DEBIAN_EXTRA := ', python3-cryptography, python3-botocore, openssl, git, dpkg-dev, nftables'

.PHONY: help venv demo demo-shell quick test test-all test-slow test-faults test-package \
	test-image test-debian packages fuzz audit lint docs linkcheck bench soak deb deb-check \
	clean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

venv: $(STAMP)  ## .venv with miglet, miglet-ctl, miglet-controller and what tests need

# Installed anew only when what is to be installed has changed; .ci/venv is the one that
# decides, since another make may just have done it.
$(STAMP): setup.cfg setup.py miglet/__init__.py .ci/venv
	PYTHON="$(PYTHON)" .ci/venv .venv $^

demo: venv  ## run controller, agent and a double of the runner from boot to shutdown
	$(BIN)/python -m tests.demo

demo-shell: venv  ## the same machine, idle, with a shell in which miglet-ctl works
	$(BIN)/python -m tests.demo shell

quick: venv  ## unit tests: no processes, no servers
	$(BIN)/python -m pytest -q -n $(PROCESSORS) --dist load --hypothesis-profile=quick \
		-m "not ($(NOT_QUICK))" $(addprefix --ignore=,$(NO_UNITS))

NOT_QUICK := integration or slow or fault or systemd or package
# What has no unit test at all is left out before it is imported.
NO_UNITS = $(addprefix tests/,end_to_end faults image runner_double systemd) \
	$(shell grep -lr --include='test_*.py' '^pytestmark = .*integration' tests)

test: venv  ## what needs neither root nor systemd and is not slow
	$(PYTEST)

test-all: test test-slow test-package test-image test-debian  ## everything, as root on Debian or Ubuntu

test-slow: venv  ## faults, what is slow, and what boots a systemd
	$(PYTEST) -m "fault or slow or systemd" --ignore=tests/image --durations=5

test-faults: venv  ## every fault of docs/faults.rst; as root none is skipped
	$(PYTEST) tests/faults -m "" --durations=5

test-package: venv packages  ## what is in the Debian packages
	PACKAGES_UNDER_TEST=build/image $(BIN)/python -m pytest -m package

test-image: packages  ## as root: the packages on temporary machines that boot systemd
	tests/image/run build/image python3 -m pytest -v -p no:cacheprovider \
		-m systemd tests/image

test-debian: packages  ## as root: the tests with Debian's own Python and packages
	EXTRA=$(DEBIAN_EXTRA) tests/image/run build/image tests/image/units -q -n $(WORKERS)

# Both packages and their next version; of two calls at the same time one waits.
packages:
	flock debian $(MAKE) --no-print-directory build/image/.built

build/image/.built: $(shell git ls-files -- debian docs etc miglet setup.cfg setup.py README.rst 2>/dev/null)
	rm -rf build/image
	debian/make-deb build/image
	tests/image/newer build/image/newer
	touch $@

fuzz: $(STAMP)-fuzz  ## a minute (SECONDS_EACH=n) for each parser (TARGETS="a b") of untrusted input
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS_EACH),60) $(TARGETS)

# Atheris has no releases for some versions of Python and some processors.
$(STAMP)-fuzz: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]' || \
		echo "make fuzz: no Atheris for this Python: Hypothesis alone makes the inputs"
	touch $@

audit: venv  ## known vulnerabilities of what is installed; error 69: it could not be checked
	$(BIN)/python .ci/audit

lint: venv  ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(STAMP)-docs  ## the documentation as a site, in build/docs; warnings are errors
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs
	for page in README.rst CONTRIBUTING.rst CHANGES.rst; do \
		$(BIN)/docutils --writer=null --report=2 --halt=2 $$page || exit 1; done
	@echo build/docs/index.html

linkcheck: $(STAMP)-docs  ## every link of the documentation that leads outside; needs the Internet
	$(BIN)/sphinx-build -q -b linkcheck docs build/linkcheck

# Sphinx is not needed for anything else.
$(STAMP)-docs: $(STAMP)
	PIP_CONFIG_SETTINGS=editable_mode=compat \
		.ci/progress "docs: installing Sphinx" $(BIN)/python -m pip install --quiet \
		--disable-pip-version-check --use-pep517 --editable '.[docs]'
	touch $@

bench: venv  ## memory, start and throughput, beside supervisord's
	$(BIN)/python -m tests.bench

soak: venv  ## ten minutes (HOURS=n) of jobs and random faults; memory must not grow
	HOURS=$(or $(HOURS),0.1667) $(BIN)/python -m tests.soak

deb:  ## both packages, into dist/; installs what building them needs
	debian/make-deb dist

deb-check: deb  ## the packages are reproducible, and lintian finds nothing
	debian/check-deb dist

clean:  ## remove all that the others have made
	rm -rf .venv build dist docs/reference *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find miglet tests -name __pycache__ -type d -exec rm -rf {} +
