#!/bin/sh
# Pin the dependencies: requirements/*.in -> requirements/*.txt, with hashes. In order: each reads the one before.
set -eu
cd "$(dirname "$0")/../../requirements"
tools=../build/pip-tools
[ -x "$tools/bin/pip-compile" ] || {
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check pip-tools==7.6.2
}
for name in uv base inference provenance dev contracts; do
  echo "  $name"
  "$tools/bin/pip-compile" --quiet --allow-unsafe --generate-hashes --strip-extras \
    --no-emit-find-links --no-emit-index-url --no-emit-options "$@" --output-file="$name.txt" "$name.in"
  case $name in base | inference) (cd .. && python3 -m deploy.build.prune "requirements/$name.txt") ;; esac
done
