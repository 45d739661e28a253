# Its newest release.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

# What the tests want besides Go: the race detector a C compiler, the end-to-end tests real servers, clients and a browser.
PROGRAMS = prosody ejabberdctl erl chromium profanity tmux promtool systemd-analyze
PACKAGES = gcc libc6-dev prosody ejabberd chromium profanity tmux python3-slixmpp prometheus systemd $(if $(shell command -v npm),,npm)
SLIXMPP  = /usr/lib/python3/dist-packages/slixmpp

# Succeed if the race detector can be built, and if nothing is missing.
HAS_CC  = echo '\#include <stdlib.h>' | gcc -E - >/dev/null 2>&1
HAS_ALL = $(HAS_CC) && for p in $(PROGRAMS); do command -v $$p >/dev/null || exit 1; done && [ -e $(SLIXMPP) ]

# Where Debian has servers, which not every user has on PATH.
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: run test check bench build programs

run:
	go run . demo

build:
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o webstatus .

# Everything that must hold. Where packages cannot be installed, the tests that want them are skipped and say so.
test: programs check
	if ($(HAS_ALL)); then export WEBSTATUS_E2E=require; fi; \
	race=; if $(HAS_CC); then race=-race; fi; \
	go test $$race -timeout 14m ./...

check:
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "not formatted by gofmt: $$files"; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...
	go mod tidy -diff

# Figures beside their yardsticks, as ratios.
bench:
	go test -run '^$$' -bench . -benchtime 2s .

# Installs what is missing, on Debian and its kin; a failure is not fatal. The policy keeps apt from starting the servers.
programs:
	@if ($(HAS_ALL)) || ! command -v apt-get >/dev/null; then exit 0; fi; \
	sudo=; if [ "$$(id -u)" != 0 ]; then sudo="sudo -n"; $$sudo true 2>/dev/null || { echo "only root can install $(PACKAGES)"; exit 0; }; fi; \
	policy=/usr/sbin/policy-rc.d; \
	if [ ! -e $$policy ]; then trap "$$sudo rm -f $$policy" EXIT; trap 'exit 1' INT TERM HUP; \
		printf '#!/bin/sh\nexit 101\n' | $$sudo tee $$policy >/dev/null && $$sudo chmod +x $$policy || exit 0; fi; \
	install="$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(PACKAGES)"; \
	$$install || { $$sudo apt-get update && $$install; } || echo "not installed: $(PACKAGES)"
