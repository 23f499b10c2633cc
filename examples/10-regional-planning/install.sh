#!/bin/sh
# Installs VERSION on NODE, in a folder that stands for the machine; the machine serves nobody meanwhile.
# install.sh FOLDER NODE VERSION
set -e
echo "$2 down" >> "$1/journal"
sleep "${INSTALL_SECONDS:-2}"
echo "$3" > "$1/$2.new"
mv "$1/$2.new" "$1/$2.version"
echo "$2 up" >> "$1/journal"
