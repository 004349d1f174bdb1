# Every target sets up what it needs: a fresh Debian 12 with git, make, python3 and
# python3-venv is enough.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_ARGUMENTS ?=

# All warnings are errors. What third parties still do is listed here, one by one.
WARNINGS := -W error

PACKAGES := fjmcp_broker tests bench release twisted/plugins docs/check_links.py
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# So many processes share the tests.
JOBS ?= $(shell nproc)
SIDE_BY_SIDE = $(BIN)/python $(WARNINGS) -m tests.side_by_side

MINUTES ?= 10
SESSIONS ?= 20
BENCH ?=

PODMAN ?= podman
IMAGE ?= localhost/fjmcp-broker
VERSION = $(shell sed -n 's/^VERSION: Final = "\(.*\)"/\1/p' fjmcp_broker/version.py)
FORGEJO_MCP_MODULE ?= codeberg.org/goern/forgejo-mcp/v2
FORGEJO_MCP_VERSION ?= 2.18.0
VERSION_TAG = $(VERSION)
ENV_FILE ?= fjmcp-broker.env
CONFIG ?= srv/fjmcp-broker.toml
IMAGE_ARGUMENTS ?=
CONFORMANCE ?=

.PHONY: all demo test test-unit test-real test-browser test-slow \
	test-slow-waiting test-slow-alone conformance chaos soak bench \
	bench-peers bench-tables perf-check coverage vet lint format docs generate build clean changelog bump release pictures \
	image docker devserver image-run requirements sbom lint-image check-deploy

all: vet lint test build

# The software alone, then with what tests need, then with the tools of developers.
$(VENV)/.installed: setup.cfg pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e '.[test]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet -e '.[test,dev]'
	touch $@

$(VENV)/.installed-image: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet -e '.[image]'
	touch $@

$(VENV)/.installed-client: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e '.[client]'
	touch $@

demo: $(VENV)/.installed-client
	$(BIN)/fjmcp-broker demo $(DEMO_ARGUMENTS)

test: test-unit test-real

test-unit: $(VENV)/.installed-test
	$(SIDE_BY_SIDE) --jobs $(JOBS) --temp-directory=_trial_temp_unit \
		tests.unit tests.test_architecture

# These wait more than they compute: one process more than there are processors.
test-real: $(VENV)/.installed-test
	PATH="$(CURDIR)/$(BIN):$$PATH" $(SIDE_BY_SIDE) --jobs $$(($(JOBS) + 1)) \
		--temp-directory=_trial_temp_real tests.real

test-slow: test-slow-waiting test-slow-alone

# What waits for a package index, a timer or a proxy.
test-slow-waiting: $(VENV)/.installed-dev
	$(SIDE_BY_SIDE) --jobs $(JOBS) --temp-directory=_trial_temp_slow \
		tests.slow.test_packaging tests.slow.test_release tests.slow.test_rotation \
		tests.slow.test_prometheus tests.slow.test_doctor_proxies

# What keeps the whole machine busy.
test-slow-alone: $(VENV)/.installed-test
	$(BIN)/python $(WARNINGS) -m twisted.trial --reporter=text \
		--temp-directory=_trial_temp_alone tests.slow.test_durability \
		tests.slow.test_chaos

# The pages in Debian's Chromium; pictures go to _screenshots.
test-browser: $(VENV)/.installed-test
	$(BIN)/python $(WARNINGS) -m twisted.trial --reporter=text \
		--temp-directory=_trial_temp_browser tests.browser

# The picture of the consent page in the README.
pictures: $(VENV)/.installed-test
	FJMCP_TEST_PICTURES="$(CURDIR)/docs/images" $(BIN)/python $(WARNINGS) \
		-m twisted.trial --reporter=text --temp-directory=_trial_temp_pictures \
		tests.browser.test_pictures

# The official suite against a real daemon, in front of four kinds of children.
conformance: $(VENV)/.installed-test
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python $(WARNINGS) -m tests.conformance \
		$(CONFORMANCE)

# A part of test-slow: everything happens to a broker under many clients.
chaos: $(VENV)/.installed-test
	$(BIN)/python $(WARNINGS) -m twisted.trial --reporter=text \
		--temp-directory=_trial_temp_chaos tests.slow.test_chaos

# Long, and not part of CI: clients that call while tokens rotate, and the memory.
soak: $(VENV)/.installed-test
	FJMCP_SOAK_MINUTES=$(MINUTES) FJMCP_SOAK_SESSIONS=$(SESSIONS) \
		$(BIN)/python $(WARNINGS) -m twisted.trial --reporter=text \
		--temp-directory=_trial_temp_soak tests.slow.soak

# What the broker takes and gives: docs/performance.md says how to read it.
bench: $(VENV)/.installed-test
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m bench $(BENCH)

# The same load on other bridges, in turns; npm and node have to be there.
bench-peers: $(VENV)/.installed-test
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m bench --peers $(BENCH)

# Every table of docs/performance.md, on a machine that does nothing else.
bench-tables: $(VENV)/.installed-test
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m bench --all-tables

# Ratios within one run, with limits: one line PASSED, FAILED or SKIPPED for each.
perf-check: $(VENV)/.installed-test
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m bench --check --minutes 3

# Each tier in a process of its own: one watches what the other leaves on the reactor.
COVERAGE_RUN = $(BIN)/python $(WARNINGS) -m coverage run --parallel-mode -m twisted.trial \
	--reporter=text --temp-directory=_trial_temp_coverage

coverage: $(VENV)/.installed-test
	$(BIN)/python -m coverage erase
	$(COVERAGE_RUN) tests.unit
	PATH="$(CURDIR)/$(BIN):$$PATH" $(COVERAGE_RUN) tests.real
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --skip-covered

vet: $(VENV)/.installed-dev
	$(BIN)/python -m compileall -q $(PACKAGES) setup.py
	$(BIN)/mypy $(PACKAGES)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/towncrier build --draft --version next > /dev/null

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: $(VENV)/.installed
	$(BIN)/python -m fjmcp_broker.config docs/configuration.md \
		deploy/examples/fjmcp-broker.toml
	$(BIN)/python -m fjmcp_broker.mcp.lifecycle > docs/session-machine.md

docs: generate $(VENV)/.installed-dev
	$(BIN)/pydoctor --config=pyproject.toml --html-output=docs/api
	$(BIN)/python docs/check_links.py

build: $(VENV)/.installed-dev
	GIT_REVISION="$${GIT_REVISION:-$$(git rev-parse HEAD 2>/dev/null)}" \
	BUILD_DATE="$${BUILD_DATE:-$$(date -u +%Y-%m-%dT%H:%M:%SZ)}" \
		$(BIN)/python -m build --outdir dist .

# The docker format knows health checks.
image:
	$(PODMAN) build --format docker --tag $(IMAGE):$(VERSION_TAG) \
		--build-arg VERSION=$(VERSION) \
		--build-arg GIT_REVISION="$${GIT_REVISION:-$$(git rev-parse HEAD 2>/dev/null)}" \
		--build-arg BUILD_DATE="$${BUILD_DATE:-$$(date -u +%Y-%m-%dT%H:%M:%SZ)}" \
		--build-arg FORGEJO_MCP_MODULE=$(FORGEJO_MCP_MODULE) \
		--build-arg FORGEJO_MCP_VERSION=$(FORGEJO_MCP_VERSION) $(IMAGE_ARGUMENTS) .

# For the Metacircular platform, whose names these two are.
docker:
	$(MAKE) image IMAGE=fjmcp-broker VERSION_TAG=v$(VERSION) \
		IMAGE_ARGUMENTS="--target metacircular $(IMAGE_ARGUMENTS)"

devserver: $(VENV)/.installed
	$(BIN)/fjmcp-broker server --config $(CONFIG)

image-run:
	$(PODMAN) run --rm --read-only --cap-drop all --security-opt no-new-privileges \
		--env-file $(ENV_FILE) --volume fjmcp-broker:/data \
		--publish 127.0.0.1:8080:8080 $(IMAGE):$(VERSION)

# Resolves anew what the image has; versions that are written down already are kept
# unless REQUIREMENTS=--upgrade. The files name no package index.
UV_COMPILE = $(BIN)/uv pip compile --quiet --python $(BIN)/python --universal \
	--python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links $(REQUIREMENTS)

requirements: $(VENV)/.installed-image
	$(UV_COMPILE) setup.cfg --output-file deploy/container/requirements.txt
	printf 'setuptools>=77\nwheel\n' | $(UV_COMPILE) - \
		--output-file deploy/container/requirements-build.txt

# What the image is made of, as CycloneDX. FORGEJO_MCP_BINARY is the image's own.
FORGEJO_MCP_BINARY ?=
BILL_OF := --forgejo-mcp-module $(FORGEJO_MCP_MODULE) \
	--forgejo-mcp-version $(FORGEJO_MCP_VERSION)

sbom: $(VENV)/.installed-dev
	$(BIN)/python $(WARNINGS) -m release sbom $(BILL_OF) \
		$(if $(FORGEJO_MCP_BINARY),--forgejo-mcp-binary $(FORGEJO_MCP_BINARY))

lint-image: $(VENV)/.installed-image
	$(BIN)/hadolint Containerfile

# As root. What is deployed, started for real; one line for each result.
check-deploy: $(VENV)/.installed-image
	PYTHON="$(CURDIR)/$(BIN)/python" tests/deploy/check

# A release: bump, changelog, commit, tag, release. docs/releasing.md goes through them.
bump: $(VENV)/.installed-dev
	$(BIN)/python $(WARNINGS) -m release bump $(VERSION)

changelog: $(VENV)/.installed-dev
	$(BIN)/python $(WARNINGS) -m release changelog

# CI_LOG is what .ci/run wrote for this commit; without it, it is run.
CI_LOG ?=
RELEASE ?=

release: $(VENV)/.installed-dev
	$(BIN)/python $(WARNINGS) -m release make --podman "$(PODMAN)" --image "$(IMAGE)" \
		$(BILL_OF) $(if $(CI_LOG),--ci-log $(CI_LOG)) $(RELEASE)

clean:
	rm -rf build dist docs/api _screenshots _trial_temp* .coverage* .mypy_cache .ruff_cache \
		.hypothesis *.egg-info twisted/plugins/dropin.cache $(VENV)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
