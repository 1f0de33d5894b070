"""The authorization server's part of benches/side-by-side: tokens, introspections, and requests with an access token, beside a
minimal server with Fastify and jose (benches/fastify). Both have the same signing key, and keep what they know in SQLite in
the same way. docs/performance.md says what the work is."""

import base64
import contextlib
import hashlib
import http.client
import json
import platform
import re
import secrets
import socket
import sqlite3
import urllib.parse

from measuring import (CONTENDER_CORE, HERE, LOG, ROUNDS, SECONDS, Failed, by_threads, counted, free_ports, latencies, load, median,
                       progress, quiet, table, wanted, wrk)

ALGORITHMS = ("RS256", "ES256")
CLIENTS = 16  # connections at a time, but for requests with an access token
CALLERS = (16, 64)
AUDIENCE = "bench"
REDIRECT = "http://127.0.0.1:9/"
DAY = 86_400


class Server:
    """An authorization server that runs, with a public client that has a refresh token for each connection, and a client with
    a secret, which asks about tokens; and with paths that want an access token."""

    def __init__(self, name, process, port, folder, public, confidential, verified):
        self.name, self.pids, self.port, self.verified = name, [process.pid], port, verified
        self.database, self.refresh_tokens = folder / "tollgate.db", folder / "refresh-tokens"
        self.public, (client_id, secret) = public, confidential
        self.basic = "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()
        self.exchanged = 0

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def ask(self, path, form=None, **headers):
        """Status, headers and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        body = form and urllib.parse.urlencode(form)
        kind = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
        connection.request("POST" if form else "GET", path, body, {**kind, **headers})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def refresh(self, token):
        form = {"grant_type": "refresh_token", "client_id": self.public, "refresh_token": token}
        return self.ask("/v1/oauth/token", form)

    def take_tokens(self):
        """What an exchange answers; the refresh token before it is of no use then."""
        *others, last = self.refresh_tokens.read_text().split()
        status, text = self.refresh(last)
        if status != 200:
            raise Failed(f"{self.name}: a refresh token is answered with {status} {text}")
        self.exchanged += 1
        tokens = json.loads(text)
        self.refresh_tokens.write_text("".join(f"{token}\n" for token in [*others, tokens["refresh_token"]]))
        again = self.refresh(last)
        if again[0] != 400 or json.loads(again[1])["error"] != "invalid_grant":
            raise Failed(f"{self.name}: a refresh token is good twice: {again}")
        return tokens

    def issue(self, seconds):
        form = f"--form=grant_type=refresh_token&client_id={self.public}"
        options = (form, f"--refresh={self.refresh_tokens}", f"--keys={self.url('/.well-known/jwks.json')}")
        figures = load(self.url("/v1/oauth/token"), CLIENTS, seconds, *options)
        self.exchanged += figures["requests"]
        return figures

    def introspection(self, token):
        return self.ask("/v1/oauth/introspect", {"token": token}, Authorization=self.basic)

    def introspect(self, token, seconds):
        options = (f"--header=Authorization: {self.basic}", f"--form=token={token}", '--expect="active":true')
        return load(self.url("/v1/oauth/introspect"), CLIENTS, seconds, *options)

    def check_books(self):
        """Every exchange must be in the database, and the event of each."""
        quiet(self.pids)
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as database:
            count = lambda query: database.execute(f"select count(*) from {query}").fetchone()[0]
            used = count("oauth_refresh_token where used_at is not null")
            events = count("oauth_event where kind = 'token_refresh' and outcome = 'success'")
        if not used == events == self.exchanged:
            raise Failed(f"{self.name}: {self.exchanged} exchanges, of which {used} are in the database, with {events} events")


# --- Ours ------------------------------------------------------------------------------------------------------------


def tollgate(stage, folder, algorithm):
    """The gateway, with a route that wants an access token, and one that wants nothing."""
    port, admin = free_ports(2)
    settings = folder / "tollgate.toml"
    settings.write_text(f"""
[server]
data_dir = "{folder}"
threads = 1

[admin]
address = "127.0.0.1:{admin}"

[[listener]]
name = "plain"
address = "127.0.0.1:{port}"

# Not a production, so that the demonstration signs in without a wallet.
[oauth]
public_url = "http://127.0.0.1:{port}"
audience = "{AUDIENCE}"
production = false
demo = true
signing_keys = "{folder}/keys"

[oauth.lifetimes]
access_token = "{DAY}s"

[oauth.limits]
requests = 1000000000
challenges = 1000000000

[egress]
allow = ["127.0.0.0/8"]

[[upstream]]
name = "service"
addresses = ["127.0.0.1:{stage.port['UPSTREAM']}"]

[[route]]
name = "open"
path = "/open"
upstream = "service"

[[route]]
name = "verified"
path = "/verified"
upstream = "service"
accepts = ["access-token"]

[[route]]
name = "authorization-server"
upstream = "authorization-server"
""")
    command = lambda *words: stage.tollgate(*words, settings=settings)
    command("key", "generate", "--algorithm", algorithm)
    client = lambda *words: re.findall(r"^client_\w+ +(\S+)$", command(
        "client", "create", "bench", "--redirect-uri", REDIRECT, "--wallet", "evm", "--scope", "openid", "--rate-limit", "0", *words), re.M)
    (public,), confidential = client("--public"), client("--confidential")
    with open(LOG, "ab") as log, open(folder / "log", "wb") as errors:
        process = stage.start([stage.program, "--config", settings, "serve"], CONTENDER_CORE, env={}, stdout=log, stderr=errors)
    server = Server("tollgate", process, port, folder, public, confidential, ["verified"])
    stage.wait_for(lambda: server.ask("/health"), "the authorization server")
    server.refresh_tokens.write_text("".join(f"{sign_in(server)}\n" for _ in range(CLIENTS + 1)))
    return server


def sign_in(server):
    """The code flow, as a browser goes through it with the demonstration's key (RFC 6749 section 4.1, RFC 7636). What it ends
    with: a refresh token."""
    verifier = secrets.token_urlsafe(32)
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    question = {"client_id": server.public, "redirect_uri": REDIRECT, "response_type": "code", "scope": "openid", "state": "x",
                "code_challenge": digest, "code_challenge_method": "S256"}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", f"/v1/oauth/authorize?{urllib.parse.urlencode(question)}")
    answer = connection.getresponse()
    page = answer.read().decode()
    found = [re.search(rf'data-{name}="([^"]+)"', page) for name in ("session", "throwaway")]
    if not all(found):
        raise Failed(f"the authorize page is not what it was: {answer.status} {page}")
    session, account = (each[1] for each in found)
    headers = {"Content-Type": "application/json", "Origin": server.url(""), "Cookie": answer.getheader("Set-Cookie").split(";")[0]}

    def ours(path, **document):
        connection.request("POST", path, json.dumps(document), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            raise Failed(f"{path}: {answer.status} {text}")
        return json.loads(text)

    nonce = ours("/v1/oauth/challenge", session_id=session, address=account)["nonce"]
    signature = ours("/v1/demo/sign", message=nonce)["signature"]
    code = ours("/v1/oauth/callback", session_id=session, nonce=nonce, address=account, signature=signature)["code"]
    connection.close()
    form = {"grant_type": "authorization_code", "client_id": server.public, "redirect_uri": REDIRECT, "code": code, "code_verifier": verifier}
    status, text = server.ask("/v1/oauth/token", form)
    if status != 200:
        raise Failed(f"the sign-in ends with {status} {text}")
    return json.loads(text)["refresh_token"]


# --- The other one -----------------------------------------------------------------------------------------------------


def fastify(stage, folder, algorithm, key):
    (port,) = free_ports(1)
    confidential = ("service", secrets.token_hex(32))
    settings = {
        "port": port, "algorithm": algorithm, "key": str(key), "issuer": f"http://127.0.0.1:{port}", "audience": AUDIENCE,
        "lifetime": DAY, "upstream": f"http://127.0.0.1:{stage.port['UPSTREAM']}", "database": str(folder / "tollgate.db"), "log": LOG,
        "publicClient": {"id": "app"}, "confidentialClient": dict(zip(("id", "secret"), confidential)),
        "account": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC", "grants": CLIENTS + 1, "refreshTokens": str(folder / "refresh-tokens"),
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    with open(stage.dir / "log", "ab") as errors:
        command = [node(), HERE / "fastify" / "server.mjs", folder / "settings.json"]
        process = stage.start(command, CONTENDER_CORE, env={"NODE_ENV": "production"}, stdout=errors, stderr=errors)
    stage.wait_for(lambda: socket.create_connection(("127.0.0.1", port), 1).close(), "Fastify")
    return Server("Fastify and jose", process, port, folder, "app", confidential, ["verified", "remembered"])


def node():
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine())
    program = HERE / "fastify" / "node_modules" / f"node-linux-{machine}" / "bin" / "node"
    if not program.exists():
        raise Failed(f"there is no {program}: scripts/npm-ci benches/fastify")
    return program


# --- Before anything is measured ---------------------------------------------------------------------------------------


def claims(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def check_alike(servers):
    """The servers must do the same: answers and tokens with the same members, and the same answers where there is nothing to be
    had. Each has an access token then."""
    said = []
    for server in servers:
        tokens = server.take_tokens()
        server.access_token = tokens["access_token"]
        status, text = server.introspection(server.access_token)
        of_access, of_id, introspected = claims(tokens["access_token"]), claims(tokens["id_token"]), json.loads(text)
        said.append((status, *(sorted(each) for each in (tokens, of_access, of_id, introspected))))
        forged = server.access_token[:-20] + secrets.token_urlsafe(15)
        answers = [server.introspection(forged), server.ask("/v1/oauth/introspect", {"token": server.access_token, "client_id": server.public})[0]]
        if answers != [(200, '{"active":false}'), 401]:
            raise Failed(f"{server.name}: introspection answers {answers}")
        for path in server.verified:
            bearers = [{"Authorization": f"Bearer {token}"} for token in (server.access_token, tokens["id_token"], forged)]
            given = [server.ask(f"/{path}/subject", **bearer, **{"X-Auth-Subject": "forged"}) for bearer in [*bearers, {}]]
            if given[0] != (200, of_access["sub"]) or [status for status, _ in given[1:]] != [401, 401, 401]:
                raise Failed(f"{server.name}: /{path} answers {given}")
    if said[0] != said[1]:
        raise Failed(f"the servers do not do the same: {said[0]} and {said[1]}")


# --- Tables --------------------------------------------------------------------------------------------------------------


def measure(stage):
    for algorithm in ALGORITHMS:
        kinds = [kind for kind in ("tokens", "introspection") if wanted(kind, algorithm)]
        callers = [clients for clients in CALLERS if wanted("verified", algorithm, clients)]
        if kinds or callers:
            folders = [stage.dir / f"{name}-{algorithm}" for name in ("tollgate", "fastify")]
            for folder in folders:
                folder.mkdir()
            ours = tollgate(stage, folders[0], algorithm)
            servers = [ours, fastify(stage, folders[1], algorithm, folders[0] / "keys" / "current.pem")]
            check_alike(servers)
            endpoints_table(algorithm, kinds, servers)
            requests_table(stage, algorithm, callers, servers)
            for server in servers:
                server.check_books()


def endpoints_table(algorithm, kinds, servers):
    ask = {"tokens": lambda server, seconds: server.issue(seconds),
           "introspection": lambda server, seconds: server.introspect(server.access_token, seconds)}
    figures = {}
    for round_ in range(ROUNDS):
        for kind in kinds:
            for server in servers:
                progress(round_, kind, algorithm)
                ask[kind](server, 1)
                run = counted(server.pids, lambda: quiet(server.pids), lambda: ask[kind](server, SECONDS))
                figures.setdefault((kind, server.name), []).append(run)
    rows = []
    for (kind, name), runs in figures.items():
        cpu, base = median(runs, "cpu"), median(figures[kind, servers[0].name], "cpu")
        rows.append([kind, algorithm, name, f"{median(runs, 'rate'):,.0f}", f"{cpu:.0f}", f"{cpu / base:.2f}", *latencies(runs), f"{median(runs, 'loading'):.1f}"])
    if rows:
        head = ["endpoint", "key", f"{CLIENTS} clients", "answers/s", "CPU µs/answer", "× tollgate", "p50 ms", "p99 ms", "load's µs"]
        table(head, rows)
        for kind in kinds:
            by_threads(f"tollgate, {kind}, {algorithm}", figures[kind, servers[0].name])
        print(flush=True)


def requests_table(stage, algorithm, callers, servers):
    ours, other = servers
    contenders = [
        ("nginx", [stage.proxy.pid], f"http://127.0.0.1:{stage.port['NGINX_HTTP']}/open/64", ours),
        ("tollgate, open route", ours.pids, ours.url("/open/64"), ours),
        ("tollgate, access token", ours.pids, ours.url("/verified/64"), ours),
        (other.name, other.pids, other.url("/verified/64"), other),
        (f"{other.name}, tokens remembered", other.pids, other.url("/remembered/64"), other),
    ]
    figures = {}
    for round_ in range(ROUNDS):
        for clients in callers:
            for name, pids, url, issuer in contenders:
                progress(round_, "verified", algorithm, clients)
                ask = lambda seconds: wrk(url, clients, seconds, [f"Authorization: Bearer {issuer.access_token}"])
                ask(1)
                run = counted(pids, lambda: quiet(pids), lambda: ask(SECONDS))
                figures.setdefault((clients, name), []).append(run)
    rows = []
    for (clients, name), runs in figures.items():
        cpu, base = median(runs, "cpu"), median(figures[clients, "tollgate, access token"], "cpu")
        rows.append([algorithm, clients, name, f"{median(runs, 'rate'):,.0f}", f"{cpu:.1f}", f"{cpu / base:.2f}", *latencies(runs)])
    if rows:
        table(["key", "clients", "64 B, plain, keep-alive", "req/s", "CPU µs/req", "× tollgate", "p50 ms", "p99 ms"], rows)
