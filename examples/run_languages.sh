#!/usr/bin/env bash
# Clients in other languages against a server at TARGET that serves a model of digits: each is built
# with what its compiler finds on the machine, asked for a digit, and for a version that is not there.
#
#   examples/run_languages.sh TARGET
#
# Needs Node.js, Go and a JDK, and Debian's packages of gRPC for the latter two (see .ci/run), since
# neither Maven's nor Go's registry is needed then. examples/rust is built by cargo alone.
set -euo pipefail
cd "$(dirname "$0")"

target=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# answers NAME COMMAND...: whether a client prints its answer, and the status of an error
answers() {
  local name=$1
  shift
  "$@" "$target" "$PWD/digit.bin" 2> "$work/log" | tee "$work/out" || { cat "$work/log" >&2; return 1; }
  grep -Eq '^image 0: [0-9] \([0-9.]+ %\), [a-z]+ version [0-9]+$' "$work/out"
  if "$@" "$target" "$PWD/digit.bin" 99 > "$work/out" 2>&1; then
    echo "$name: asked for version 99 and got an answer" >&2
    return 1
  fi
  grep -E '^(NOT_FOUND|NotFound): model_version: version 99 ' "$work/out"
  echo "$name: answered"
}

typescript() {
  cp -r typescript ../proto digit.bin "$work"
  mkdir -p "$work/examples" && mv "$work/typescript" "$work/digit.bin" "$work/examples/"
  (
    cd "$work/examples/typescript"
    npm install --silent --no-fund --no-audit
    npm run --silent build
    MLPSERVE_TARGET=$target npm test --silent
  )
  answers TypeScript node "$work/examples/typescript/build/main.js"
}

go_client() {
  local client=$work/go/src/mlpserve.example/client
  mkdir -p "$client"
  cp go/main.go "$client"
  protoc -I ../proto --go_out="$client" --go_opt=paths=source_relative \
    --go-grpc_out="$client" --go-grpc_opt=paths=source_relative mlpserve/v1/prediction.proto
  # Debian's gRPC is found beside an older protobuf than the one that its own generator writes for.
  (cd "$work" && apt-get download --quiet=2 golang-github-golang-protobuf-1-5-dev && dpkg -x golang-github-*.deb newer)
  (
    cd "$client"
    GO111MODULE=off GOCACHE=$work/cache GOPATH=$work/go:$work/newer/usr/share/gocode:/usr/share/gocode \
      go build -o "$work/go-client" .
  )
  answers Go "$work/go-client"
}

java_client() {
  local jars='/usr/share/java/*'
  mkdir -p "$work/java" "$work/classes"
  protoc -I ../proto --java_out="$work/java" --grpc-java_out="$work/java" \
    --plugin=protoc-gen-grpc-java="$(command -v grpc_java_plugin || command -v protoc-gen-grpc-java)" \
    mlpserve/v1/prediction.proto
  find "$work/java" java/src -name '*.java' > "$work/sources"
  javac --release 17 -nowarn -cp "$jars" -d "$work/classes" "@$work/sources"
  answers Java java -cp "$work/classes:$jars" example.Predict
}

typescript
go_client
java_client
