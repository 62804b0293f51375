#!/bin/sh
# Puts the third-party files of the /graphiql page into vendor/, where the next build finds and embeds them.
# They come from npm, pinned by package-lock.json, and are never committed. Does nothing when they are there already.
set -eu
cd "$(dirname "$0")"

# The stamp is written last: it says that vendor/ is complete, and by which lock and script, so that a change fetches anew.
stamp=$(cat package-lock.json fetch.sh | cksum)
[ "$(cat vendor/.stamp 2>/dev/null)" = "$stamp" ] && exit 0

command -v npm >/dev/null || { echo "fetch.sh: npm is needed once, to fetch the GraphiQL page; install Node 20 or newer." >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cp package.json package-lock.json .npmrc "$work"
# GraphiQL's own file holds its dependencies already, so no package's install script has any business here.
(cd "$work" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)

new=$work/vendor
mkdir "$new"
modules=$work/node_modules
cp "$modules/react/umd/react.production.min.js" \
   "$modules/react-dom/umd/react-dom.production.min.js" \
   "$modules/graphql-ws/umd/graphql-ws.min.js" \
   "$modules/graphiql/graphiql.min.js" \
   "$modules/graphiql/graphiql.min.css" "$new"
gzip -9 -n -k "$new"/*.js "$new"/*.css

# The licences of everything fetched: graphiql.min.js bundles most of it.
find "$modules" -path '*/node_modules/*' -iname 'licen[sc]e*' -type f | LC_ALL=C sort | while read -r file; do
  printf '==== %s ====\n\n' "${file#"$modules"/}"
  cat "$file"
  printf '\n\n'
done >"$new/licenses.txt"

rm -rf vendor
cp -R "$new" vendor
echo "$stamp" >vendor/.stamp
