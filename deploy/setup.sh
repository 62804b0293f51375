#!/bin/sh
# Installs what is missing to build and run Dealstream, and with the argument `tests` what its tests need besides.
# Quick when nothing is missing. Never starts or touches a PostgreSQL of the system: only its programs are wanted.
set -eu
cd "$(dirname "$0")/.."

oldest_postgres=15
oldest_node=18
for_tests=${1:-}

say() { printf 'setup: %s\n' "$*" >&2; }
give_up() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# The server looks in the same places.
have_postgres() {
  [ -z "${PG_BINDIR:-}" ] || return 0
  [ -z "${DATABASE_URL:-}" ] || [ -n "$for_tests" ] || return 0
  for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin; do
    [ -x "$dir/initdb" ] && new_enough "$dir/postgres" && return 0
  done
  have initdb && have postgres && new_enough postgres
}

new_enough() {
  major=$("$1" --version 2>/dev/null | sed -n 's/.*(PostgreSQL) \([0-9]*\).*/\1/p')
  [ "${major:-0}" -ge "$oldest_postgres" ]
}

have_node() {
  have npm && major=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\).*/\1/p') && [ "${major:-0}" -ge "$oldest_node" ]
}

have_chromium() { have chromium || have chromium-browser || have google-chrome; }

# The packages that are missing, by their Debian names; PostgreSQL's is found out later.
missing=
have cc || missing="$missing gcc libc6-dev"
have_postgres || missing="$missing postgresql"
have_node || missing="$missing nodejs npm"
if [ -n "$for_tests" ]; then
  have redis-server || missing="$missing redis-server"
  have_chromium || missing="$missing chromium"
fi

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Undoes, at the end and after a failure, what keeps packages from starting servers.
clean_up() {
  status=$?
  trap - EXIT
  [ -z "${made_policy:-}" ] || as_root rm -f /usr/sbin/policy-rc.d
  [ -z "${saved_conf:-}" ] || as_root mv "$saved_conf" "$postgres_conf"
  exit "$status"
}

install_packages() {
  if ! have apt-get; then
    give_up "please install these, by whatever names this system has for them:$missing (PostgreSQL $oldest_postgres or newer, Node $oldest_node or newer)"
  fi
  if [ "$(id -u)" != 0 ] && ! { have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; }; then
    give_up "please run, as root: apt-get install$missing (for PostgreSQL, DATABASE_URL may name a running server instead)"
  fi
  say "installing$missing"
  trap clean_up EXIT
  trap 'exit 1' HUP INT TERM
  as_root apt-get update -qq
  if ! [ -e /usr/sbin/policy-rc.d ]; then
    made_policy=yes
    printf '#!/bin/sh\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
    as_root chmod 755 /usr/sbin/policy-rc.d
  fi
  case "$missing " in *" postgresql "*) prepare_postgres ;; esac
  apt_install $missing
  case "$missing " in *" redis-server "*)
    # The tests start their own; the machine did not ask for one at every boot.
    if have systemctl; then as_root systemctl disable --quiet redis-server 2>/dev/null || :; fi ;;
  esac
}

# Packages chatter while they install; that is worth reading only when something fails.
apt_install() {
  log=$(mktemp)
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >"$log" 2>&1 || {
    cat "$log" >&2
    rm -f "$log"
    give_up "the packages could not be installed"
  }
  rm -f "$log"
}

# Debian's package makes and starts a cluster of the system unless its configuration says otherwise, so it says so for
# as long as this takes. A machine that has clusters already keeps them as they are.
prepare_postgres() {
  newest=$(apt-cache pkgnames postgresql- | sed -n 's/^postgresql-\([0-9][0-9]*\)$/\1/p' | sort -n | tail -n 1)
  [ "${newest:-0}" -ge "$oldest_postgres" ] ||
    give_up "this system's packages have no PostgreSQL $oldest_postgres or newer: install one (https://www.postgresql.org/download) or set DATABASE_URL to use a running server"
  missing=$(printf '%s ' "$missing" | sed "s/ postgresql / postgresql-$newest /")
  apt_install postgresql-common
  postgres_conf=/etc/postgresql-common/createcluster.conf
  as_root cp -p "$postgres_conf" "$postgres_conf.dealstream"
  saved_conf=$postgres_conf.dealstream
  printf '\ncreate_main_cluster = false\n' | as_root tee -a "$postgres_conf" >/dev/null
}

[ -z "$missing" ] || install_packages

have cargo || [ -x "$HOME/.cargo/bin/cargo" ] || give_up "Rust is needed: https://rustup.rs"

# The server works without the page, and says how to get it.
if [ -x web/graphiql/fetch.sh ] && ! web/graphiql/fetch.sh; then
  [ -z "$for_tests" ] || give_up "the files of the GraphiQL page, which the tests look at, could not be fetched"
  say "going on without the GraphiQL page"
fi

if [ -n "$for_tests" ]; then
  cd tests/peers
  wanted=$(cksum package.json package-lock.json)
  if [ "$(cat node_modules/.stamp 2>/dev/null)" != "$wanted" ]; then
    say "fetching the clients that the tests use"
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
    echo "$wanted" >node_modules/.stamp
  fi
fi
