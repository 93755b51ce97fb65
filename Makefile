# Everything a developer runs. `make` alone prints the list.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO        ?= go
BIN       := bin
TOOL      := $(GO) tool -modfile=tools/go.mod
LINT      := $(GO) tool -modfile=tools/lint/go.mod golangci-lint
# A module of its own, so that what it needs is not asked of users.
JEPSEN    := test/jepsen-lite
JEPSENLINT := $(GO) tool -modfile=../../tools/lint/go.mod golangci-lint
# The race detector needs a C compiler; where there is none the tests run without it.
RACE      := $(shell command -v $${CC:-cc} >/dev/null 2>&1 && echo -race)
FUZZTIME  ?= 20s
# Of make conformance: a seed draws the same cases again.
SEED      ?= $(shell date +%Y%m%d)
CASES     ?= 100000
# Of make jepsen-long: how many seeds.
SEEDS     ?= 20
# Of make sim: decides loads, links and jitter.
SIMSEED   ?= 1
PLATFORMS := linux/amd64 linux/arm64 darwin/arm64 windows/amd64

.PHONY: help build test race lint fmt fmt-check vet generate check-generated baseline fuzz bench test-long jepsen-short jepsen jepsen-long jepsen-seeded sim conformance dev cluster demo cover ci clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build both programs into bin/ and cross-compile the CLI for every platform
	$(GO) build -trimpath -o $(BIN)/ ./cmd/...
	for p in $(PLATFORMS); do \
	  echo "holdfast for $$p"; \
	  CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -trimpath -o $(BIN)/$${p/\//-}/ ./cmd/holdfast; \
	done

test: ## Run all tests, with the race detector where there is a C compiler (about 10 min cold)
	$(GO) test $(RACE) -timeout 15m ./...
	cd $(JEPSEN) && $(GO) test $(RACE) -timeout 10m ./...

race: ## Run all tests with the race detector, uncached
	$(GO) test -race -count=1 -timeout 20m ./...

lint: ## Run the linters (the first run builds them, about 2 min)
	$(LINT) run ./...
	cd $(JEPSEN) && $(JEPSENLINT) run ./...

fmt: ## Format Go and proto files
	$(LINT) fmt ./...
	cd $(JEPSEN) && $(JEPSENLINT) fmt ./...
	$(TOOL) buf format -w

fmt-check: ## Fail when a Go file is not formatted
	$(LINT) fmt --diff ./...
	cd $(JEPSEN) && $(JEPSENLINT) fmt --diff ./...

vet: ## Run go vet, also with the fault seams and the seeded bugs compiled in
	$(GO) vet ./...
	$(GO) vet -tags faults ./...
	$(GO) vet -tags seeded ./...
	cd $(JEPSEN) && $(GO) vet ./...

generate: ## Lint the protos, guard the contract, generate Go, record the checksums
	$(TOOL) buf format -w
	$(TOOL) buf lint
	$(TOOL) buf breaking --against proto/baseline.binpb
	$(TOOL) buf generate
	$(TOOL) buf format -w examples/shop
	$(TOOL) buf lint examples/shop
	$(TOOL) buf generate examples/shop --template examples/shop/buf.gen.yaml
	$(GO) test ./test/arch -run TestGenerated -update

check-generated: ## Fail when protos and generated code do not belong together (no buf needed)
	$(GO) test -count=1 ./test/arch -run TestGenerated

baseline: ## At a release: make the present protos the contract that may not break
	$(TOOL) buf build -o proto/baseline.binpb

fuzz: ## Run every fuzz target for FUZZTIME each
	for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; \
	done

bench: ## Benchmarks of the packages, then the cluster beside their peers (about 22 min)
	$(GO) test -run '^$$' -bench . -benchmem ./internal/...
	cd test/bench && $(GO) run . all

test-long: ## The long profile of the real-process tests (about 10 min)
	$(GO) test $(RACE) -count=1 -timeout 40m ./test/cluster -long -v

jepsen-short: ## Real processes under faults, their histories judged: ten runs (about 5 min)
	cd $(JEPSEN) && $(GO) run . run -profile short

jepsen: ## The same: every scenario (about 20 min)
	cd $(JEPSEN) && $(GO) run . run

jepsen-long: ## The same: mixed faults of SEEDS seeds (hours)
	cd $(JEPSEN) && $(GO) run . run -profile long -seeds $(SEEDS)

jepsen-seeded: ## Give the programs one deliberate bug after the other: the rule meant for it must find it (about 20 min)
	cd $(JEPSEN) && $(GO) run . seeded

sim: ## Fleets of 300 and 1,000 instances in virtual time, and 30 real processes (1-2 h, 6 GB)
	GOGC=250 GOMEMLIMIT=5GiB $(GO) test -count=1 -timeout 180m ./test/sim -long -seed $(SIMSEED) -v

conformance: ## Compare CASES fresh flags, drawn from SEED, with flagd's evaluator, and serve other clients (Node 20, npm; about 3 min)
	@command -v node >/dev/null && command -v npm >/dev/null && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || { \
	  echo "make conformance needs Node 20 or newer, and npm; found node $$(node --version 2>/dev/null || echo "missing"), npm $$(npm --version 2>/dev/null || echo "missing")" >&2; exit 1; }
	cd test/conformance/oracle && npm ci --ignore-scripts --no-audit --no-fund
	cd test/conformance/clients && npm ci --ignore-scripts --no-audit --no-fund
	dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	echo "$(CASES) cases of SEED=$(SEED)"; \
	node test/conformance/oracle/generate.mjs --seed $(SEED) --cases $(CASES) --out "$$dir/vectors.jsonl"; \
	HOLDFAST_VECTORS="$$dir/vectors.jsonl" $(GO) test -count=1 -v -run '^TestVectors$$' ./internal/flags
	cd test/conformance && $(GO) test -count=1 -timeout 20m ./...

dev: ## Serve a throw-away single node
	$(GO) run ./cmd/controlplane --dev

cluster: ## Serve three durable servers on loopback until Ctrl-C
	scripts/cluster.sh

demo: ## Run a small shop with its control plane on loopback, and show it until Ctrl-C
	$(GO) build -o $(BIN)/ ./cmd/controlplane ./cmd/holdfast ./examples/shop
	$(BIN)/shop demo

cover: ## Print the statement coverage of each package
	$(GO) test -coverprofile=cover.out -coverpkg=./internal/... ./internal/...
	$(GO) tool cover -func=cover.out | tail -n 1

ci: fmt-check vet lint test ## What CI runs

clean: ## Remove what the other targets made
	rm -rf $(BIN) cover.out .cluster
