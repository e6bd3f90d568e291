#!/bin/sh
# Makes the image debian:trixie-slim out of Debian's packages, for where no registry answers. Takes root and debootstrap.
# The Dockerfile then builds as usual. Usage: docker/base-image.sh [MIRROR]
set -eu
mirror=${1:-http://deb.debian.org/debian}
image=debian:trixie-slim
for tool in debootstrap docker tar; do
  command -v $tool >/dev/null || { echo "$tool is missing: apt-get install debootstrap docker.io" >&2; exit 1; }
done
if docker image inspect $image >/dev/null 2>&1; then
  echo "$image is here already"
  exit
fi
echo "making $image of the packages of $mirror: about a minute"
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
# As Debian's own slim images: nothing to read, and no service that a package would start.
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
