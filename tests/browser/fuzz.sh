#!/usr/bin/env bash
# Fuzzes the console's API with schemathesis, which generates requests from the OpenAPI document, as
# an operator and as a tenant administrator. No response may be a server error, or one that the
# document doesn't describe.
#
#   fuzz.sh PROGRAM SCHEMATHESIS    with VOICE_OTP_AMQP_URL and VOICE_OTP_DATABASE_URL set
set -euo pipefail

program=$1 schemathesis=$2
work=$(mktemp -d)
demo=''
leave() {
    [ -z "$demo" ] || kill -TERM "$demo" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap leave EXIT

"$program" demo >"$work/demo.log" 2>&1 &
demo=$!
origin=''
for _ in $(seq 100); do
    origin=$(sed -n 's|^Console: \(http://[^ ]*\) .*|\1|p' "$work/demo.log" | head -1)
    [ -z "$origin" ] || break
    kill -0 "$demo" || { cat "$work/demo.log"; exit 1; }
    sleep 0.2
done
[ -n "$origin" ] || { cat "$work/demo.log"; exit 1; }

for who in "--role operator" "--role tenant-admin --tenant demo-acme"; do
    # shellcheck disable=SC2086 # it is several words
    token=$("$program" token create $who --name fuzz --expires 1h)
    # Event streams never end, so they are excluded.
    checks=not_a_server_error,status_code_conformance,content_type_conformance
    checks+=,response_schema_conformance
    (cd "$work" && "$schemathesis" run "$origin/api/v1/openapi.json" \
        -H "Authorization: Bearer $token" --exclude-path-regex 'events$' --request-timeout 20 \
        --max-examples "${VOICE_OTP_FUZZ_EXAMPLES:-30}" --continue-on-failure --checks "$checks" \
        >"$work/report" 2>&1) || { cat "$work/report"; exit 1; }
    sed -n '/generated/p' "$work/report"
done
