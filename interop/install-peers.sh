#!/bin/sh
# Installs the peers of the interop tests, the browser of the browser tests, and
# what the tests of faults make networks and small disks with, from Debian's
# packages. Python 2.7 is in none any more: the tests use it where PATH or pyenv
# has it.
set -eu
exec "$(dirname "$0")/../.ci/apt-install" --no-install-recommends \
	spin gcc librpc-xml-perl libfrontier-rpc-perl php-cli php-xmlrpc ruby ruby-xmlrpc ruby-webrick \
	libxmlrpc-core-c3-dev tcl tcl-xmlrpc python3 chromium iproute2 mount e2fsprogs
