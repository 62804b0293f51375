# What the measurements share: a server with a private PostgreSQL in a temporary folder, gone when the script ends.
# Sourced from the root of the repository.

if [ -z "${BENCH_PROGRAMS:-}" ]; then
  cargo build --release --locked
  cargo build --release --locked --package dealstream-bench
fi
programs=$(realpath "${BENCH_PROGRAMS:-${CARGO_TARGET_DIR:-target}/release}")

folder=$(mktemp -d /tmp/dealstream-bench.XXXXXX)
# PostgreSQL may run as another user, who has to get to its own folder below.
chmod 755 "$folder"
server=
address=

stop_server() {
  [ -n "$server" ] || return 0
  kill "$server" 2>/dev/null || :
  wait "$server" || :
  server=
}

clean_up() {
  status=$?
  trap - EXIT
  stop_server
  [ "$status" = 0 ] || cat "$folder/server.log" >&2 || :
  rm -rf "$folder"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# Nothing of the caller's own set-up: neither its database nor its .env.
unset DATABASE_URL PORT LISTEN_ADDR JWT_SECRET
export DEALSTREAM_DATA_DIR=$folder/data DEALSTREAM_DEMO=false JWT_ACCESS_TOKEN_MINUTES=120

# Fills the database; takes the options of `dealstream demo`.
fill() {
  (cd "$folder" && "$programs/dealstream" demo "$@")
}

# Starts the server; afterwards `server` is its process and `address` where it listens.
start_server() {
  cd "$folder"
  DEALSTREAM_LIMITS=all=off "$programs/dealstream" serve --port 0 >"$folder/server.log" 2>&1 &
  server=$!
  address=
  for _ in $(seq 300); do
    address=$(sed -n 's,^ *GraphQL  *http://\([^/]*\)/graphql$,\1,p' "$folder/server.log")
    [ -z "$address" ] || return 0
    kill -0 "$server"
    sleep 0.1
  done
  echo 'bench: the server did not start' >&2
  return 1
}
