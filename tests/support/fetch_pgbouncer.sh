#!/bin/sh
# Put Debian 13's PgBouncer, with the libraries and the loader that it needs, into a folder.
# It keeps prepared statements, which Debian 12's is too old for. Nothing is installed, and apt's own
# files are left alone: the mirror is this machine's.
set -eu
target=$1
packages='pgbouncer libc6 libcares2 libevent-2.1-7t64 libpam0g libssl3t64 libsystemd0 libaudit1
    libcap-ng0 libcap2 libzstd1'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1
}
mirror=$(mirror)
if [ -z "$mirror" ] && [ "$(id -u)" = 0 ]; then  # Of an image apt has forgotten everything.
    apt-get update -qq
    mirror=$(mirror)
fi
if [ -z "$mirror" ]; then
    echo 'apt knows no mirror yet: run apt-get update first' >&2
    exit 1
fi
mkdir -p "$work/lists/partial" "$work/archives/partial"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keys] $mirror trixie main" >"$work/sources.list"
: >"$work/status"
apt() {
    apt-get -qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$work/lists" -o Dir::State::status="$work/status" \
        -o Dir::Cache="$work" -o APT::Sandbox::User=root "$@"
}
apt update
(cd "$work/archives" && apt download $packages)
rm -rf "$target.new"
mkdir -p "$target.new"
for package in "$work"/archives/*.deb; do
    dpkg-deb --extract "$package" "$target.new"
done
rm -rf "$target.new/usr/share" "$target"
mv "$target.new" "$target"
