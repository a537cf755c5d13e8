VERSION ?= $(shell git describe --tags --dirty 2>/dev/null || echo dev)
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
LDFLAGS = -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

help: ## list these targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## the whole job on this machine: simulator, proxy, real requests; needs nothing but Go
	@bin/freeagent-proxy demo

build: ## bin/freeagent-proxy, one static binary
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/freeagent-proxy ./cmd/freeagent-proxy

test: ## all tests; installs the programs that they need
	@.ci/install-tools gcc curl git nc redis-server redis-sentinel chromium wget lwp-request ruby php javac python3 node prometheus promtool haproxy systemd-analyze
	CGO_ENABLED=1 go test -race -shuffle=on -timeout=15m ./...
# -count=1: what it reads lies outside of its module, where Go does not see it change.
	go test -C internal/deploy -count=1 ./...

lint: ## formatting, vet, staticcheck, go.mod
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "not formatted: $$unformatted"; exit 1; }
	go vet -tags image ./...
	go vet -C internal/deploy ./...
	go tool staticcheck -tags image -checks inherit,ST1000,ST1003,ST1016 ./...
	go mod verify
	go mod tidy -diff
	go -C internal/deploy mod tidy -diff

bench: ## our cost against a bare reverse proxy's
	go run ./internal/bench

release: ## dist/: archives for all platforms, SBOMs and checksums of the tagged commit, built twice; see docs/releasing.md
	go run ./internal/release -version '$(VERSION)' -commit '$(COMMIT)' -epoch '$(EPOCH)' $(if $(PLATFORMS),-platforms '$(PLATFORMS)')

image: ## bin/image.tar, the container image, by docker, podman or buildah
	VERSION='$(VERSION)' COMMIT='$(COMMIT)' .ci/image bin/image.tar

image-test: image ## run the image's binary as its user (needs root)
	go test -tags image -run '^TestImage$$' -v ./internal/build

.PHONY: help demo build test lint bench release image image-test
