#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# Restart into the new version after an upgrade. The socket stays open meanwhile. A service that fails to start logs the reason and
	# must not make the installation fail.
	systemctl try-restart webstatus.service || true
fi
