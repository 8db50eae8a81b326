#!/bin/sh
# The steps that make an image, for containers/Containerfile and containers/apptainer.def alike: install.sh [STEP …]
# Runs as root in a Debian tree that has the repository's files in /opt/stlight.
# TORCH_INDEX names a package index with another build of torch than the lock's. Wheels in /mnt replace every index.
set -eu
cd "$(dirname "$0")/.."

# The kernels are compiled where they run; git names the commit in a run's record.
system() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -qq --no-install-recommends gcc git libc6-dev python3 python3-venv > /dev/null
  rm -rf /var/lib/apt/lists/*
}

pip_install() {
  if ls /mnt/*.whl > /dev/null 2>&1; then
    set -- --no-index --find-links /mnt "$@"
  fi
  /opt/venv/bin/pip install --quiet --no-cache-dir --use-pep517 --disable-pip-version-check "$@"
}

packages() {
  python3 -m venv /opt/venv
  # Otherwise pip would build packages without wheels with the newest setuptools.
  awk '/^[a-z]/ { kept = /^setuptools=/ } kept' requirements.lock > /tmp/setuptools.lock
  pip_install --require-hashes -r /tmp/setuptools.lock
  if [ -z "${TORCH_INDEX:-}" ] && ! ls /mnt/torch-*+cpu-*.whl > /dev/null 2>&1; then
    pip_install --no-build-isolation --require-hashes -r requirements.lock
  else
    # The files of another build have other hashes, and it has no use for the lock's CUDA libraries.
    awk '/^[a-z]/ { kept = !/^(torch=|triton=|cuda-|nvidia-)/ } kept' requirements.lock > /tmp/rest.lock
    pip_install --no-build-isolation --require-hashes -r /tmp/rest.lock
    pip_install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -c constraints.txt torch
  fi
  rm /tmp/*.lock
}

suite() {
  pip_install --no-build-isolation --no-deps -e .
  /opt/venv/bin/pip check
}

if [ $# = 0 ]; then
  set -- system packages suite
fi
for step; do
  case $step in
    system | packages | suite) "$step" ;;
    *) echo "install.sh: unknown step $step; the steps are system, packages and suite" >&2 && exit 1 ;;
  esac
done
