#!/usr/bin/env bash
# Builds the images, runs them as a user would, and checks what comes back. Needs Docker and Compose.
set -euo pipefail
cd "$(dirname "$0")/.."

LARGEST_IMAGE_MB=210
export COMPOSE_PROJECT_NAME=mlpserve-check PLAYGROUND_PORT=0
compose() { docker compose "$@"; }
step() { printf '\n--- %s\n' "$*"; }
fail() { printf 'containers: %s\n' "$*" >&2; exit 1; }
received_bytes() { # received_bytes CONTAINER: how much has reached it over the network
  docker exec "$1" python -c 'print(open("/sys/class/net/eth0/statistics/rx_bytes").read().strip())'
}
wait_for() { # wait_for COMMAND...: until it succeeds, a minute at most
  local deadline=$((SECONDS + 60))
  until "$@"; do
    ((SECONDS < deadline)) || fail "waited in vain for: $*"
    sleep 0.2
  done
}
is_healthy() { [[ $(docker inspect -f '{{.State.Health.Status}}' "$1") == healthy ]]; }
has_restarted() { [[ $(docker inspect -f '{{.RestartCount}}' "$1") -gt 0 ]]; }
is_under_load() { docker logs "$load" 2>/dev/null | grep -q 'under load'; }
under_load() { # under_load CONTAINER FAULT...: do it to one of several servers while clients call
  local server=$1 figures
  shift
  load=$(compose run --detach --no-deps --volume "$PWD/tests/support/container_load.py:/load.py:ro" \
    --entrypoint python client /load.py server:50051)
  wait_for is_under_load
  "$@" "$server" >/dev/null
  wait_for is_healthy "$server"
  docker kill --signal TERM "$load" >/dev/null
  docker wait "$load" >/dev/null
  figures=$(docker logs "$load" 2>&1)
  docker rm "$load" >/dev/null
  printf '%s\n' "$*"
  grep -E 'longest' <<<"$figures" || { echo "$figures"; fail 'the clients told nothing'; }
  grep -Eq 'that retry: .* 0 failed, 0 wrong' <<<"$figures" || { echo "$figures"; fail 'calls failed'; }
  ! grep -Eq '[1-9][0-9]* wrong' <<<"$figures" || fail 'answers were wrong'
}
stop_and_start() {
  docker stop "$1"
  [[ $(docker inspect -f '{{.State.ExitCode}}' "$1") == 0 ]] || fail "$1 did not end well"
  docker start "$1"
}
kill_its_program() { # as the system does where memory runs out; Docker starts the container again
  # The program is the only child of the first process, which ends with it, and so does what kills.
  docker exec "$1" python -c 'if True:
    import os, signal
    os.kill(int(open("/proc/1/task/1/children").read().split()[0]), signal.SIGKILL)' || true
  wait_for has_restarted "$1"
}
kill_and_start() { # Docker itself takes this for a deliberate stop, and does not start it again
  docker kill --signal KILL "$1"
  docker start "$1"
}
trap 'compose down --volumes --remove-orphans --timeout 5 >/dev/null 2>&1' EXIT

step 'build'
compose build --quiet
for image in trainer server client playground; do
  size_mb=$(($(docker image inspect -f '{{.Size}}' "mlpserve-$image") / 1000000))
  echo "mlpserve-$image: $size_mb MB"
  ((size_mb <= LARGEST_IMAGE_MB)) || fail "mlpserve-$image is larger than $LARGEST_IMAGE_MB MB"
  user=$(docker image inspect -f '{{.Config.User}}' "mlpserve-$image")
  [[ $user == 10001:10001 ]] || fail "mlpserve-$image runs as '$user'"
done

step 'up: the trainer ends well, the server gets healthy, the client prints the accuracy'
compose up --detach
[[ $(docker wait "$COMPOSE_PROJECT_NAME-client-1") == 0 ]] || { compose logs; fail 'the client failed'; }
compose logs --no-log-prefix trainer client
# Not through a pipe: grep would end before all is written, and that would count as a failure.
logs=$(compose logs --no-log-prefix client)
grep -Eq 'digits version 1 .*accuracy (8[5-9]|9[0-9])\.' <<<"$logs" ||
  fail 'the client printed no accuracy of 85 % or more'
[[ $(docker inspect -f '{{.State.Health.Status}}' "$COMPOSE_PROJECT_NAME-server-1") == healthy ]] ||
  fail 'the server is not healthy'

step 'the host reaches the server where Compose says'
address=$(compose port server 50051)
echo "$address"
[[ $address == 127.0.0.1:* ]] || fail "the server is open to other hosts: $address"
: <>"/dev/tcp/${address/://}" || fail "nothing listens on $address"

step 'the playground answers a drawing'
address=$(compose port playground 8080)
wait_for curl --silent --fail --output /dev/null "http://$address/"
answer=$(head -c 784 /dev/zero | curl --silent --fail --data-binary @- \
  "http://$address/api/predict?width=28&height=28")
grep -Eq '"model":"digits","version":1,"label":[0-9]' <<<"$answer" || fail "the playground said: $answer"
curl --silent --fail "http://$address/api/network?model=digits&version=1" | grep -q '"softmax"' ||
  fail 'the playground has no weights'

step 'the playground trains, and publishes what it learned'
training() {
  curl --silent --show-error --fail --data "${2-}" "http://$address/api/training/$1" >/dev/null
}
training_is() {
  grep -q "\"phase\": \"$1\"" <<<"$(curl --silent --no-buffer --max-time 2 "http://$address/api/training")"
}
training start '{"data":"drawn","recipe":"fast","layers":"16","learning-rate":"0.01","epochs":"1"}'
wait_for training_is finished
training publish
wait_for training_is published

step 'two models are served: the default one answers calls that name none'
published() { compose run --rm --no-deps client --target server:50051 --model playground --data drawn; }
wait_for published
answer=$(compose run --rm --no-deps client --target server:50051 --data auto)
grep -q '^digits version 1 ' <<<"$answer" || fail "the client said: $answer"

step 'another version, served without a restart'
compose run --rm trainer --recipe seed --epochs 3
compose run --rm client --target server:50051 --data auto --version 2 --output csv | wc -l

step 'three servers: calls go round all of them'
compose up --detach --wait --no-recreate --scale server=3 server
declare -A before
for number in 1 2 3; do
  before[$number]=$(received_bytes "$COMPOSE_PROJECT_NAME-server-$number")
done
compose run --rm --no-deps client --target server:50051 --data auto --version 1
for number in 1 2 3; do
  received=$(($(received_bytes "$COMPOSE_PROJECT_NAME-server-$number") - before[$number]))
  echo "server $number received $((received / 1000)) kB"
  ((received > 1000000)) || fail "server $number had no part in it"
done

step 'three servers under load, to one of which something happens'
under_load "$COMPOSE_PROJECT_NAME-server-1" stop_and_start
under_load "$COMPOSE_PROJECT_NAME-server-2" docker restart
under_load "$COMPOSE_PROJECT_NAME-server-3" kill_its_program
under_load "$COMPOSE_PROJECT_NAME-server-1" kill_and_start

step 'down: the servers end at once and well'
compose stop --timeout 10 server
for number in 1 2 3; do
  code=$(docker inspect -f '{{.State.ExitCode}}' "$COMPOSE_PROJECT_NAME-server-$number")
  [[ $code == 0 ]] || fail "server $number ended with $code"
done
echo 'containers: all checks passed'
