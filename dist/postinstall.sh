#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# After an upgrade the new program takes over; the socket stays open meanwhile.
	systemctl try-restart webstatus.service
fi
