#!/bin/sh
# Prepare an empty volume for the project: sh infra/image/seed.sh VOLUME
#
# Docker fills a new named volume from the image by itself, Kubernetes does not. What is there
# stays, so this may run at every start, and in two pods at once.
set -eu
volume=$1
mkdir -p "$volume/data" "$volume/models" "$volume/reports" "$volume/dvc"
cp -R -n "$(dirname "$0")/../../.dvc/." "$volume/dvc/"
