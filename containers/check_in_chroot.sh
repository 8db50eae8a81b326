#!/bin/bash
# Run the steps of both images without a container engine: in a Debian tree that debootstrap makes, with the packages from a
# wheelhouse and without network access, then the scale smoke. Arguments go to Snakemake: --cores 1 results/smoke/….
# Needs root, debootstrap, 4 GB under $TMPDIR (more with CUDA), and as python3 the version of Python of the image's Debian.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=$(sed -n 's/^ARG BASE=debian:\(.*\)-slim$/\1/p' containers/Containerfile)
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
export root=$work/root wheels=$work/wheels

step() { printf '\n== %s: %s\n' "$(date +%T)" "$*"; }

# Run a command in the tree. Mounts live in a namespace of their own, so that none is left when the script ends.
inside() {
  unshare --mount ${offline:+--net} bash -euc '
    mount --bind "$wheels" "$root/mnt"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    exec env -i HOME=/root LANG=C.UTF-8 PATH=/opt/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" "$@"' bash "$@"
}

step "the wheelhouse"
python3 -m pip download --quiet --dest "$wheels" -c constraints.txt .
step "Debian $suite"
# In a namespace, too, because debootstrap ignores a failing umount, and the tree then cannot be deleted.
unshare --mount debootstrap --variant=minbase "$suite" "$root" > "$work/debootstrap.log" || { cat "$work/debootstrap.log" && exit 1; }
sed -n '/^%files/,/^$/p' containers/apptainer.def | while read -r source target; do
  if [ -n "$target" ]; then
    mkdir -p "$root$(dirname "$target")"
    cp -r "$source" "$root$target"
  fi
done

step "Debian packages"
inside /opt/stlight/containers/install.sh system
step "Python packages and the suite, offline"
offline=yes
inside /opt/stlight/containers/install.sh packages suite
step "the scale smoke"
inside /opt/venv/bin/snakemake --snakefile /opt/stlight/Snakefile --directory /tmp --config scale=smoke "${@:---cores=all}"
