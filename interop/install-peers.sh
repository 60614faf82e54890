#!/bin/sh
# Installs the peers of the interop tests, and the browser of the browser tests,
# from Debian's packages. Python 2.7 is
# in none any more: the tests use it where PATH or pyenv has it.
set -eu
packages="spin gcc librpc-xml-perl libfrontier-rpc-perl php-cli php-xmlrpc ruby ruby-xmlrpc ruby-webrick
	libxmlrpc-core-c3-dev tcl tcl-xmlrpc python3 chromium"
missing=""
for p in $packages; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo
$sudo apt-get update -qq
# shellcheck disable=SC2086 # a list of words
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing
