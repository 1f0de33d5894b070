#!/usr/bin/env python3
"""Sign in from a terminal with a wallet that is elsewhere (RFC 8628), and print an access token.

    python3 login.py [ISSUER]

What is for people goes to standard error, the token alone to standard output:

    curl -H "Authorization: Bearer $(python3 login.py)" http://localhost:8407/

The first time the user signs in a browser. From then on a refresh token is exchanged, until it is taken back or too old.
"""

import json
import os
import pathlib
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

ISSUER = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8402"
CLIENT_ID = "example-cli"
SCOPE = "openid"
# Where the token will be used (RFC 8707): it is of no use to anybody else who gets to see it.
RESOURCE = "http://localhost:8407/"

STATE = pathlib.Path(os.environ.get("XDG_STATE_HOME") or pathlib.Path.home() / ".local/state")
REFRESH_TOKEN = STATE / "tollgate-example" / "refresh-token"


class Refused(Exception):
    """The server said no; `error` is the word for programs (RFC 6749 section 5.2)."""

    def __init__(self, document):
        self.error = document.get("error")
        super().__init__(document.get("error_description") or self.error)


def ask(url, **form):
    """A GET, or a POST of a form."""
    data = urllib.parse.urlencode(form).encode() if form else None
    try:
        with urllib.request.urlopen(url, data, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as answer:
        # The word decides, not the status: servers differ in that. What is no JSON is a failure of something between.
        if not answer.headers.get("Content-Type", "").startswith("application/json"):
            raise
        raise Refused(json.load(answer)) from None


def discover():
    """Where the endpoints are (RFC 8414)."""
    metadata = ask(f"{ISSUER}/.well-known/oauth-authorization-server")
    if metadata["issuer"] != ISSUER:
        sys.exit(f"{ISSUER} calls itself {metadata['issuer']}")
    return metadata


def say(text):
    print(text, file=sys.stderr, flush=True)


def sign_in(metadata):
    """Shows a code, and asks until somebody has signed for it."""
    device = ask(metadata["device_authorization_endpoint"], client_id=CLIENT_ID, scope=SCOPE, resource=RESOURCE)
    say(f"Open {device['verification_uri']} and enter {device['user_code']},")
    if "verification_uri_complete" in device:
        say(f"or open {device['verification_uri_complete']}")
    interval = device.get("interval", 5)
    ends = time.monotonic() + device["expires_in"]
    while time.monotonic() < ends:
        time.sleep(interval)
        try:
            return ask(
                metadata["token_endpoint"],
                grant_type="urn:ietf:params:oauth:grant-type:device_code",
                device_code=device["device_code"],
                client_id=CLIENT_ID,
            )
        except Refused as refused:
            if refused.error == "slow_down":
                interval += 5
            elif refused.error != "authorization_pending":
                raise
        except OSError:
            # The network is away: ask less often (RFC 8628 section 3.5).
            interval *= 2
    sys.exit("Not signed in: the code has expired")


def refresh(metadata):
    """New tokens for the refresh token of last time, or None if there is none or it is of no use any more."""
    try:
        token = REFRESH_TOKEN.read_text()
        return ask(metadata["token_endpoint"], grant_type="refresh_token", refresh_token=token, client_id=CLIENT_ID)
    except FileNotFoundError:
        return None
    except Refused as refused:
        if refused.error != "invalid_grant":
            raise
        return None


def keep(token):
    """Each refresh token is good for one use, so the new one takes the old one's place, whole, for its owner alone."""
    REFRESH_TOKEN.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = REFRESH_TOKEN.with_suffix(".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(token)
    new.replace(REFRESH_TOKEN)


def main():
    metadata = discover()
    tokens = refresh(metadata) or sign_in(metadata)
    keep(tokens["refresh_token"])
    print(tokens["access_token"])


if __name__ == "__main__":
    try:
        main()
    except (Refused, OSError) as problem:
        sys.exit(f"Not signed in: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)
