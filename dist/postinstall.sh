#!/bin/sh
set -e
# On Debian, deb-systemd-invoke honors the administrator's policy for starting services (policy-rc.d).
invoke=$(command -v deb-systemd-invoke || echo systemctl)
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# Restart into the new version after an upgrade. The socket stays open meanwhile. A service that fails to start logs the reason and
	# must not make the installation fail.
	"$invoke" try-restart webstatus.service || true
fi
