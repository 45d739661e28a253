# Latest release of staticcheck.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

# Test dependencies besides Go: a C compiler for the race detector, and servers, clients and a browser for the end-to-end tests.
PROGRAMS = prosody ejabberdctl erl jabberd2-router chromium profanity tmux promtool systemd-analyze nginx apache2 caddy debootstrap systemd-nspawn nsenter unshare podman runc busybox strace npm node podman-compose lintian initdb postgres
PACKAGES = gcc libc6-dev prosody prosody-modules ejabberd jabberd2 chromium profanity tmux python3-slixmpp prometheus systemd nginx-light apache2-bin caddy debootstrap systemd-container util-linux podman runc busybox-static strace podman-compose lintian postgresql $(if $(shell command -v npm),,npm)
FILES    = /usr/lib/python3/dist-packages/slixmpp /usr/lib/prosody/modules/mod_privilege

# HAS_CC succeeds if the race detector can be built, HAS_ALL if no dependency is missing. Debian keeps PostgreSQL's servers off PATH.
HAS_CC  = echo '\#include <stdlib.h>' | gcc -E - >/dev/null 2>&1
HAS_ALL = $(HAS_CC) && for p in $(PROGRAMS); do command -v $$p >/dev/null || ls /usr/lib/postgresql/*/bin/$$p >/dev/null 2>&1 || exit 1; done && ls $(FILES) >/dev/null 2>&1

# Debian installs servers in sbin, which is not on every user's PATH.
export PATH := $(PATH):/usr/sbin:/sbin

# Tools for packages and for the software bill of materials (SBOM), and target platforms.
NFPM      = github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0
SBOM      = github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
VERSION   = $(shell sed -n 's/^const version = "\(.*\)"/\1/p' version.go)
EPOCH     = $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
PLATFORMS = linux_amd64 linux_arm64 linux_arm7 freebsd_amd64 darwin_amd64 darwin_arm64
STATIC    = CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -buildid='

TORTURE   = 15m
SEED      = 0

.PHONY: run test check bench torture build programs dist packages manual clean

run:
	go run . demo

build:
	$(STATIC) -o webstatus .

# Builds all release files in build/: a binary and an SBOM per platform, Debian and RPM packages, and checksums. Builds are reproducible:
# the same commit gives the same bytes.
dist: $(PLATFORMS:%=build/%/webstatus) $(PLATFORMS:%=build/webstatus_$(VERSION)_%.cdx.json) manual
	for arch in amd64 arm64 arm7; do $(MAKE) packages ARCH=$$arch || exit 1; done
	for p in $(PLATFORMS); do tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@$(EPOCH) -C build/$$p -cf - webstatus | gzip -n > build/webstatus_$(VERSION)_$$p.tar.gz; done
	cd build && sha256sum *.deb *.rpm *.tar.gz *.cdx.json > SHA256SUMS

ARCH = amd64
packages: build/linux_$(ARCH)/webstatus manual
	sed -e 's/@ARCH@/$(ARCH)/g' -e 's/@VERSION@/$(VERSION)/g' -e "s/@MTIME@/$$(date -u -d @$(EPOCH) +%Y-%m-%dT%H:%M:%SZ)/g" dist/nfpm.yaml > build/nfpm.yaml
	{ echo 'webstatus ($(VERSION)) unstable; urgency=medium'; printf '\n  * See CHANGELOG.md.\n\n'; \
		echo " -- $$(sed -n 's/^maintainer: //p' dist/nfpm.yaml)  $$(LC_ALL=C date -u -R -d @$(EPOCH))"; } | gzip -9n > build/changelog.gz
	for format in deb rpm; do SOURCE_DATE_EPOCH=$(EPOCH) go run $(NFPM) package -f build/nfpm.yaml -p $$format -t build/ || exit 1; done

build/%/webstatus: $(wildcard *.go *.sql templates/* templates/lang/*) dist/npm/webstatus.js go.mod
	target=$*; GOOS=$${target%_*} GOARCH=$$(echo $${target#*_} | sed 's/arm7/arm/') GOARM=7 $(STATIC) -o $@ .

# The SBOM in CycloneDX's format: the modules in a binary, with their licenses, and the binary's checksums. The two warnings are about the
# licenses of webstatus itself and of Go, which are not in the module cache.
build/webstatus_$(VERSION)_%.cdx.json: build/%/webstatus
	go run -trimpath $(SBOM) bin -json -noserial -notimestamp -std -licenses -version $(VERSION) -output $@ $<

manual: build/$(shell go env GOOS)_$(shell go env GOARCH)/webstatus
	rm -rf build/man build/completion && mkdir -p build/completion
	SOURCE_DATE_EPOCH=$(EPOCH) $< man build/man && gzip -9n build/man/*.1
	for shell in bash zsh fish; do $< completion $$shell > build/completion/webstatus.$$shell || exit 1; done

clean:
	rm -rf build webstatus

# Runs all checks and tests. Results are not cached, because programs started by the tests read files that Go does not track. If
# packages cannot be installed, the tests that need them are skipped and say so.
test: programs check
	if ($(HAS_ALL)); then export WEBSTATUS_E2E=require; fi; \
	race=; if $(HAS_CC); then race=-race; fi; \
	go test $$race -count 1 -parallel 8 -timeout 30m ./... # most parallel tests are waiting, not computing

check:
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "not formatted by gofmt: $$files"; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...
	go mod tidy -diff

# Runs the benchmarks. Results are ratios to a baseline.
bench:
	go test -run '^$$' -bench . -benchtime 2s .

# Exposes the service to crashes, disk and network faults, and attacks, for the time in TORTURE, and prints the seed; SEED repeats a run. The
# limits on time and memory hold if nothing else keeps the machine busy. See docs/reliability.md.
torture: programs
	go test -count 1 -timeout 2h -run 'TestTorture$$' -v . -torture $(TORTURE) -seed $(SEED)

# Installs missing test dependencies on Debian and derivatives. Failure is not fatal. The policy keeps apt from starting the servers.
programs:
	@if ($(HAS_ALL)) || ! command -v apt-get >/dev/null; then exit 0; fi; \
	sudo=; if [ "$$(id -u)" != 0 ]; then sudo="sudo -n"; $$sudo true 2>/dev/null || { echo "only root can install $(PACKAGES)"; exit 0; }; fi; \
	policy=/usr/sbin/policy-rc.d; \
	if [ ! -e $$policy ]; then trap "$$sudo rm -f $$policy" EXIT; trap 'exit 1' INT TERM HUP; \
		printf '#!/bin/sh\nexit 101\n' | $$sudo tee $$policy >/dev/null && $$sudo chmod +x $$policy || exit 0; fi; \
	install="$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(PACKAGES)"; \
	$$install || { $$sudo apt-get update && $$install; } || echo "not installed: $(PACKAGES)"
