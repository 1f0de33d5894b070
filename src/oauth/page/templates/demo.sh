#!/usr/bin/env bash
# A device without a browser signs in (RFC 8628): bash demo.sh [SERVER]
set -euo pipefail

server='SERVER'
server=${1:-$server}
client=CLIENT
json='Content-Type: application/json'

# field NAME: what it is in the JSON object on standard input. None of the texts here has a quotation mark in it.
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }

begun=$(curl -sS --fail-with-body "$server/v1/device/code" -H "$json" -d "{\"client_id\":\"$client\",\"scopes\":[\"openid\"]}")
echo "Open $(field verification_uri <<<"$begun")"
echo "and enter $(field user_code <<<"$begun")"

code=$(field device_code <<<"$begun")
pause=$(field interval <<<"$begun")
while sleep "$pause"; do
    answer=$(curl -sS "$server/v1/oauth/token" -d "client_id=$client" -d "device_code=$code" \
        -d grant_type=urn:ietf:params:oauth:grant-type:device_code)
    case $(field error <<<"$answer") in
    '') echo "$answer" && exit ;;
    authorization_pending) ;;
    slow_down) pause=$((pause + 5)) ;;
    *) echo "$answer" >&2 && exit 1 ;;
    esac
done
