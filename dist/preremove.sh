#!/bin/sh
set -e
case "$1" in remove|0)
	if [ -d /run/systemd/system ]; then
		systemctl disable --now webstatus.service webstatus.socket
	fi
esac
