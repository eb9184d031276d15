# make demo         a simulated plant, recorded live: makes its own environment first
# make test         everything CI runs: installs what the tests need, then checks and tests
# make check        the quick half: lint, types, import contract, generated files
# make faults       every row of the fault matrix, into docs/reliability.md: a quarter of an hour
# make alert-years  every alert rule over a year of three homes, into docs/alerts.md: half an hour
# make accuracy     a day of each simulated home against the truth, into docs/accuracy.md: half an hour
# make bench        every figure of docs/performance.md anew: forty minutes, on a quiet machine
# make format       what the linter can mend by itself
# make lock         the lock files anew, from pyproject.toml
# make screenshots  the pictures of the live page in docs/pictures, from the demo in a real browser
# make dashboard-pictures GRAFANA_URL=...   the pictures of the dashboards, from a Grafana that lets anyone look
# make uplot        the charting library of the live page, fetched and checked: needs npm

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEBIAN_PACKAGES := influxdb influxdb-client strace busybox victoria-metrics procps util-linux e2fsprogs \
	iproute2 libfaketime prometheus chromium chromium-driver
# Most tests wait for a real server, not for a processor.
PYTEST_OPTIONS ?= --numprocesses 6 --dist loadgroup

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test check faults alert-years accuracy bench format lock screenshots dashboard-pictures uplot debian clean

demo: $(VENV)/.runtime
	@$(BIN)/ess-recorder demo $(DEMO_OPTIONS)

test: debian check
	$(BIN)/pytest $(PYTEST_OPTIONS)

check: $(VENV)/.development
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python grafana/build.py --check

faults: debian $(VENV)/.development
	$(BIN)/python -m tests.faults
	$(BIN)/python -m tests.modbus.masters --seeds 4 --scans 1000 --jobs 2

alert-years: debian $(VENV)/.development
	$(BIN)/python -m tests.grafana.alert_years

accuracy: debian $(VENV)/.development
	$(BIN)/python -m tests.homes

bench: debian $(VENV)/.development
	$(BIN)/python -m bench $(BENCH_OPTIONS)

format: $(VENV)/.development
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

lock: $(VENV)/.development
	$(BIN)/python -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet uv
	cd $(CURDIR) && for group in "" "--group dev"; do \
		out=requirements$${group:+-dev}.lock; \
		$(VENV)-lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
			--no-emit-index-url --no-emit-find-links pyproject.toml $$group -o $$out; done

screenshots: debian $(VENV)/.development
	$(BIN)/python -m tests.browser

dashboard-pictures: debian $(VENV)/.development
	$(BIN)/python -m tests.grafana.pictures "$(GRAFANA_URL)" $(if $(GRAFANA_SITE),"$(GRAFANA_SITE)")

uplot:
	sh docs/uplot.sh

clean:
	rm -rf $(VENV) $(VENV)-lock

debian:
	@sh tests/install-debian-packages.sh $(DEBIAN_PACKAGES)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "make: $(PYTHON) is not Python 3.11 or newer; name one that is: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "make: $(PYTHON) cannot make environments; on Debian: apt install python3-venv" >&2; exit 1; }

$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing the recorder into $(VENV): a minute, once"
	@$(BIN)/pip install --quiet --require-hashes --requirement requirements.lock
	@$(BIN)/pip install --quiet --require-hashes --requirement requirements-build.lock
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.development: requirements-dev.lock tests/browser/requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing the recorder and its tools into $(VENV): a minute, once"
	@$(BIN)/pip install --quiet --require-hashes --requirement requirements-dev.lock
	@$(BIN)/pip install --quiet --require-hashes --no-deps --requirement tests/browser/requirements.lock
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.runtime
