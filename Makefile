# Every target works from a clean checkout with Go alone, but for interop,
# which wants peers in other languages (interop/install-peers.sh).

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS  = -s -w -X github.com/co2relay/co2relay/internal/app.version=$(VERSION)

# The version is pinned; a linter that changes by itself breaks builds by itself.
LINTER = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

# What runs real processes, and peers in other languages, has targets of its own.
UNITS = $(shell $(GO) list ./... | grep -v '/faults$$\|/interop$$\|/browser$$\|/e2e$$')

SHELL       = /bin/bash
.SHELLFLAGS = -o pipefail -c

.PHONY: fetch build test race lint fuzz faults interop e2e bench scaling gobench clean

# What the build and the linter need of the network, so that it can be tried again.
fetch:
	$(GO) mod download
	$(GO) run $(LINTER) version

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o co2relay ./cmd/co2relay

# Peers in other languages that are missing here are named, not passed over.
test:
	$(GO) test -timeout 30m $(UNITS)
	$(GO) test -timeout 30m -v ./interop | grep -v '^=== \|--- PASS'

race:
	$(GO) test -timeout 30m -race $(UNITS)

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run gofmt -w on these"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(LINTER) run ./...

# FUZZINPUTS inputs for each fuzz target; one at a time, as go test wants it.
FUZZINPUTS ?= 30000
fuzz:
	.ci/fuzz $(FUZZINPUTS)

# FAULTFLAGS=-short is the set that the gate runs.
faults:
	$(GO) test -count=1 -v -timeout 40m $(FAULTFLAGS) ./faults/...

interop:
	$(GO) test -count=1 ./interop/...

# The compose file on this machine's Docker engine, some 10 minutes; says so
# loudly if there is none. The tests end by themselves after 40 minutes (limit), and
# remove what they made; images are made before.
e2e:
	CO2_E2E=1 $(GO) test -count=1 -v -timeout 75m ./e2e/...

.PHONY: browser
# The pages in headless Chromium; screenshots go to out/screens.
browser:
	$(GO) test -count=1 ./browser

# BENCHFLAGS="-only latency -json out.json" and the like; -h tells them.
bench:
	$(GO) run ./bench $(BENCHFLAGS)

# Each role in processes of its own, up to 100,000 satellites: docs/scaling.md.
scaling:
	$(GO) run ./bench -scaling $(BENCHFLAGS)

# What benchstat compares: go run golang.org/x/perf/cmd/benchstat@latest old new
GOBENCHCOUNT ?= 10
gobench:
	$(GO) test -run '^$$' -bench . -benchtime 200ms -count $(GOBENCHCOUNT) ./internal/xmlrpc ./internal/caller ./delivery

clean:
	rm -rf co2relay co2-data out
