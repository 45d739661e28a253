#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# After an upgrade the new program takes over; the socket stays open meanwhile. What keeps it from starting is said in its log, and
	# is no reason not to be installed.
	systemctl try-restart webstatus.service || true
fi
