#!/bin/sh
# Fetches the charting library that the live page ships, checks it, and puts it where the page has it.
# Another version: change both lines, run `make uplot`, look at the page, and say so in docs/live-page.md.
set -eu

version=1.6.32
sha256=4b8a8191e425658e3ea8c8c1314b0fc679c861ee3a1af2b20c7b16ba50b5133d

target=$(cd "$(dirname "$0")/.." && pwd)/recorder/web/static/uplot
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
npm pack --silent "uplot@$version" >/dev/null
echo "$sha256  uplot-$version.tgz" | sha256sum --check --quiet
tar -xzf "uplot-$version.tgz"
mkdir -p "$target"
cp package/dist/uPlot.iife.min.js package/dist/uPlot.min.css package/LICENSE "$target/"
