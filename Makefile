# What people run: demo, check, test, bench, dist. Each target installs what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CHAOS ?= --schedules 60
TEST_PARTS := etcd,qemu,nft,ip,dnsmasq,ssh,image-tools,root

# Debian packages: what a host needs, what building the tiny image needs, what the tests use.
HOST_PACKAGES := etcd-server qemu-system-x86 qemu-utils seabios ipxe-qemu dnsmasq-base nftables iproute2 \
	util-linux openssh-client
IMAGE_PACKAGES := dosfstools e2fsprogs mtools syslinux syslinux-common
PYTHON_PACKAGES := python3-venv
TEST_PACKAGES := iputils-ping procps faketime
PACKAGES := $(HOST_PACKAGES) $(IMAGE_PACKAGES) $(PYTHON_PACKAGES) $(TEST_PACKAGES)

.PHONY: help demo check test scenarios chaos bench dist packages clean

help:
	@echo "make demo    start a cloud on this machine and log in to a VM"
	@echo "make check   style, types and unit tests (under a minute)"
	@echo "make test    everything, with real etcd, QEMU and networks"
	@echo "make scenarios  10,000 random schedules of faults on a simulated cloud (about a quarter of an hour)"
	@echo "make chaos   60 random schedules of faults in a lab of real hosts (half an hour; CHAOS='--minutes 600' for others)"
	@echo "make bench   the benchmarks"
	@echo "make dist    a wheel and a source archive in dist/"

demo: packages $(VENV)/ready
	$(BIN)/ucloud demo

check: $(VENV)/ready
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/pytest tests/unit

test: packages check
	UCLOUD_REQUIRE=$(TEST_PARTS) $(BIN)/pytest tests/scenario tests/contract tests/integration tests/e2e

scenarios: $(VENV)/ready
	$(BIN)/python -m tests.scenario.random --count 10000 --resume

chaos: packages $(VENV)/ready
	$(BIN)/python -m tests.chaos $(CHAOS)

bench: packages $(VENV)/ready
	$(BIN)/python benchmarks/first_vm.py

dist: $(VENV)/ready
	$(BIN)/python -m build

# Only root installs packages, and only those that are missing.
packages:
	@missing=""; for package in $(PACKAGES); do \
		dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
		echo "installing:$$missing"; \
		apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $$missing; \
	fi

$(VENV)/ready: pyproject.toml
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(MAKE) packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[host,control,dev]'
	@touch $@

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
