#!/usr/bin/env bash
# Calls a Chorale server with grpcurl, which learns the protocol from the server itself.
#
#     chorale up &
#     services/client/examples/grpcurl/classify.sh song.mp3 [HOST:PORT]
#
# A bearer token is taken from the environment variable CHORALE_TOKEN. For a server with TLS, say `-cacert ca.crt` in place of
# `-plaintext`. The exit code is that of the first call that fails.
set -euo pipefail

file=${1:?expected an audio file: classify.sh FILE [HOST:PORT]}
server=${2:-127.0.0.1:50051}
call=(grpcurl -plaintext -max-time 60)
[ -z "${CHORALE_TOKEN:-}" ] || call+=(-H "authorization: Bearer $CHORALE_TOKEN")

echo "== what it offers"
"${call[@]}" "$server" list chorale.v1.ClassifierService

echo "== whether it serves"
"${call[@]}" -d '{"service": "chorale.v1.ClassifierService"}' "$server" grpc.health.v1.Health/Check

echo "== the model and the limits of a call"
"${call[@]}" "$server" chorale.v1.ClassifierService/GetModel

# JSON carries bytes as base64. A file is too long for a command line: the request comes from standard input.
base64_of() { base64 < "$1" | tr -d '\n'; }

echo "== a small file in one message"
printf '{"options": {"topK": 3}, "audio": "%s"}' "$(base64_of "$file")" |
    "${call[@]}" -d @ "$server" chorale.v1.ClassifierService/Classify

# A stream takes one JSON object a message: the options, then audio, in as many pieces as one likes. A verdict that is in the
# cache comes without votes.
echo "== the same as a stream, with every chunk's vote"
{
    echo '{"options": {"events": ["EVENT_KIND_CHUNK_VOTE"], "topK": 3, "bypassCache": true}}'
    printf '{"audio": "%s"}' "$(base64_of "$file")"
} | "${call[@]}" -d @ "$server" chorale.v1.ClassifierService/ClassifyStream
