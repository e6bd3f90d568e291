#!/bin/sh
# Builds the image debian:trixie-slim from Debian's packages, for machines that reach no registry. Needs root and debootstrap.
# After that the Dockerfile builds as usual. Usage: docker/base-image.sh [MIRROR]
set -eu
mirror=${1:-http://deb.debian.org/debian}
image=debian:trixie-slim
for tool in debootstrap docker tar; do
  command -v $tool >/dev/null || { echo "$tool is missing: run apt-get install debootstrap docker.io" >&2; exit 1; }
done
if docker image inspect $image >/dev/null 2>&1; then
  echo "$image already exists"
  exit
fi
echo "building $image from the packages of $mirror: takes about a minute"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
debootstrap --variant=minbase trixie "$work/root" "$mirror" >"$work/log" 2>&1 || {
  tail -n 20 "$work/log" "$work/root/debootstrap/debootstrap.log" >&2
  exit 1
}
cat >"$work/root/etc/apt/sources.list.d/debian.sources" <<SOURCES
Types: deb
URIs: $mirror
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://security.debian.org/debian-security
Suites: trixie-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
rm -f "$work/root/etc/apt/sources.list"
# As in Debian's slim images: no documentation, and no package starts a service.
cat >"$work/root/etc/dpkg/dpkg.cfg.d/docker" <<SLIM
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
SLIM
printf '#!/bin/sh\nexit 101\n' >"$work/root/usr/sbin/policy-rc.d"
chmod 755 "$work/root/usr/sbin/policy-rc.d"
cd "$work/root"
find usr/share/doc -type f ! -name copyright -delete
rm -rf usr/share/info/* usr/share/locale/* usr/share/man/* var/cache/apt/* var/lib/apt/lists/* var/log/*
rm -f var/cache/debconf/*-old var/lib/dpkg/*-old etc/resolv.conf etc/hostname etc/machine-id
tar --numeric-owner -c . | docker import --change 'CMD ["bash"]' - $image
