#!/bin/sh
set -e
invoke=$(command -v deb-systemd-invoke || echo systemctl)
case "$1" in remove|0)
	if [ -d /run/systemd/system ]; then
		"$invoke" stop webstatus.service webstatus.socket
		"$invoke" disable webstatus.service webstatus.socket
	fi
esac
