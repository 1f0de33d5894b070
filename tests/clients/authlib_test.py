"""Authlib: its client, its check of ID tokens and metadata, and a resource server's check of access tokens (RFC 9068).

It is run by tests/all/oauth_libraries.rs. What Authlib does not do is not here: it looks at no `iss` in answers (RFC 9207).
"""

import base64
import json
import os
import subprocess
import time
import unittest
from pathlib import Path
from types import SimpleNamespace

from authlib.integrations.base_client import BaseApp, OAuth2Mixin, OAuthError, OpenIDMixin
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2 import ResourceProtector, rfc8414, rfc9207
from authlib.oauth2.rfc6749.errors import MismatchingStateException
from authlib.oauth2.rfc6750.errors import InsufficientScopeError, InvalidTokenError
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from authlib.oidc.discovery import OpenIDProviderMetadata
from joserfc.errors import BadSignatureError, InvalidClaimError, JoseError

WORLD = json.loads(os.environ["TOLLGATE_TEST_WORLD"])
ISSUER, ALGORITHM, REDIRECT = WORLD["issuer"], WORLD["algorithm"], WORLD["redirect_uri"]
CLIENTS, RESOURCES = WORLD["clients"], WORLD["resources"]
STANDARD = WORLD["compatibility"] == "standard"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


class App(OAuth2Mixin, OpenIDMixin, BaseApp):
    """Authlib's application for OpenID Connect, without a web framework around it."""

    client_cls = OAuth2Session


def app(client, method, **changed):
    registered = {**CLIENTS[client], **changed}
    return App(
        framework=SimpleNamespace(update_token=lambda *_, **__: None),
        client_id=registered["client_id"],
        client_secret=registered.get("client_secret"),
        server_metadata_url=f"{ISSUER}/.well-known/openid-configuration",
        client_kwargs={
            "scope": "openid",
            "code_challenge_method": "S256",
            "token_endpoint_auth_method": method,
            "revocation_endpoint_auth_method": method,
            "default_timeout": 30,
        },
    )


PUBLIC = app("public", "none")
CONFIDENTIAL = app("confidential", "client_secret_basic")
OTHER = app("other", "client_secret_post")
METADATA = PUBLIC.load_server_metadata()


def session(application):
    """The client underneath, for what applications have no word for."""
    return OAuth2Session(application.client_id, application.client_secret, **application.client_kwargs, **METADATA)


def user(act, link):
    """What the user does, and where that leads."""
    command = ["node", Path(__file__).with_name("user.mjs"), act, link]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60)
    return json.loads(done.stdout)


def begin(application, **parameters):
    """A request, its user's answer, and who that is."""
    request = application.create_authorization_url(REDIRECT, **parameters)
    answer = user("allow", request["url"])
    return request, answer["sent_to"], answer["account"]


def redeem(application, request, answer, **changed):
    parameters = {"state": request["state"], "code_verifier": request["code_verifier"], **changed}
    return application.fetch_access_token(REDIRECT, authorization_response=answer, **parameters)


def sign_in(application, **parameters):
    request, answer, account = begin(application, **parameters)
    token = redeem(application, request, answer)
    return token, application.parse_id_token(token, request["nonce"]), account


def refresh(application, token, **parameters):
    with session(application) as client:
        return client.refresh_token(METADATA["token_endpoint"], token, **parameters)


def introspect(application, token):
    with session(application) as client:
        return client.introspect_token(METADATA["introspection_endpoint"], token)


def revoke(application, token):
    with session(application) as client:
        return client.revoke_token(METADATA["revocation_endpoint"], token)


def said(token):
    """What a token says, unverified."""
    return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))


def altered(token, **changed):
    """The same token saying something else, under the old signature."""
    header, _, signature = token.split(".")
    payload = base64.urlsafe_b64encode(json.dumps({**said(token), **changed}).encode()).rstrip(b"=").decode()
    return f"{header}.{payload}.{signature}"


class ResourceServer(JWTBearerTokenValidator):
    """Knows the issuer's keys."""

    def get_jwks(self):
        return PUBLIC.fetch_jwk_set()


def protect(token, audience="bittensor-apps", issuer=ISSUER, scope="openid"):
    """A resource server's check."""
    protector = ResourceProtector()
    protector.register_token_validator(ResourceServer(issuer, audience))
    request = SimpleNamespace(headers={"Authorization": f"Bearer {token}"})
    return protector.validate_request([scope], request)


class Library(unittest.TestCase):
    def refused(self, error, act, *arguments, **parameters):
        """OAuth's error, which Authlib raises by its word."""
        with self.assertRaises(OAuthError) as raised:
            act(*arguments, **parameters)
        self.assertEqual(raised.exception.error, error)

    def test_metadata_are_valid(self):
        for path, kind in [
            ("openid-configuration", OpenIDProviderMetadata),
            ("oauth-authorization-server", rfc8414.AuthorizationServerMetadata),
        ]:
            with session(PUBLIC) as client:
                document = client.get(f"{ISSUER}/.well-known/{path}", withhold_token=True).json()
            if ALGORITHM != "RS256" and kind is OpenIDProviderMetadata:
                # OpenID Connect wants every server to have RS256; one without such a key must not say so.
                with self.assertRaisesRegex(ValueError, "RS256"):
                    kind(document).validate()
                document["id_token_signing_alg_values_supported"].append("RS256")
            kind(document).validate(metadata_classes=[rfc9207.AuthorizationServerMetadata])

    def test_code_user_info_refresh_and_revocation_by_every_method(self):
        for application in [PUBLIC, CONFIDENTIAL, app("confidential", "client_secret_post")]:
            with self.subTest(application.client_kwargs["token_endpoint_auth_method"]):
                token, claims, account = sign_in(application)
                self.assertEqual([claims["sub"], claims["aud"]], [account, application.client_id])
                self.assertEqual(application.userinfo(token=token).sub, account)
                following = refresh(application, token["refresh_token"])
                self.assertNotEqual(following["refresh_token"], token["refresh_token"])
                self.assertEqual(application.parse_id_token(following, None).sub, account)
                self.refused("invalid_grant", refresh, application, token["refresh_token"])
                self.assertIs(introspect(OTHER, following["access_token"]).json()["active"], True)
                self.assertEqual(revoke(application, following["refresh_token"]).status_code, 200)
                self.assertEqual(introspect(OTHER, following["access_token"]).json(), {"active": False})
                self.refused("invalid_grant", refresh, application, following["refresh_token"])

    def test_an_id_token_for_something_else_is_not_believed(self):
        token, claims, _ = sign_in(PUBLIC)
        another, *_ = sign_in(PUBLIC)
        with self.assertRaisesRegex(InvalidClaimError, "nonce"):
            PUBLIC.parse_id_token(token, "another")
        with self.assertRaisesRegex(InvalidClaimError, "at_hash"):
            PUBLIC.parse_id_token({**token, "access_token": another["access_token"]}, claims["nonce"])
        with self.assertRaisesRegex(InvalidClaimError, "iss"):
            options = {"iss": {"values": ["https://evil.example"]}}
            PUBLIC.parse_id_token(token, claims["nonce"], claims_options=options)
        with self.assertRaises(JoseError):
            CONFIDENTIAL.parse_id_token(token, claims["nonce"])
        with self.assertRaises(BadSignatureError):
            forged = altered(token["id_token"], sub="another")
            PUBLIC.parse_id_token({**token, "id_token": forged}, claims["nonce"])

    def test_what_is_wrong_with_a_request_for_tokens_is_told(self):
        request, answer, _ = begin(PUBLIC)
        with self.assertRaises(MismatchingStateException):
            redeem(PUBLIC, request, answer, state="another")
        self.refused("invalid_grant", redeem, PUBLIC, request, answer, code_verifier="x" * 43)
        self.refused("invalid_request", redeem, PUBLIC, request, answer, code_verifier=None)
        self.refused("invalid_grant" if STANDARD else "invalid_client", redeem, OTHER, request, answer)
        self.refused("invalid_grant", redeem, PUBLIC, request, answer.replace("code=tgc_", "code=tgc_x"))
        elsewhere = {"authorization_response": answer, "code_verifier": request["code_verifier"]}
        self.refused(
            "invalid_grant" if STANDARD else "invalid_request",
            PUBLIC.fetch_access_token,
            "https://app.example/other",
            **elsewhere,
        )
        token = redeem(PUBLIC, request, answer)
        self.refused("invalid_grant", redeem, PUBLIC, request, answer)
        self.refused("invalid_grant", refresh, PUBLIC, token["refresh_token"])
        self.refused("invalid_grant", refresh, PUBLIC, "tgr_invented")
        self.assertEqual(PUBLIC.get(METADATA["userinfo_endpoint"], token=token).status_code, 401)

    def test_a_client_that_is_not_recognised_is_told_so(self):
        token, *_ = sign_in(CONFIDENTIAL)
        for wrong in [
            app("confidential", "client_secret_basic", client_secret="wrong"),
            app("confidential", "client_secret_post", client_secret="wrong"),
            app("confidential", "none", client_secret=None),
            app("public", "none", client_id="nobody"),
        ]:
            self.refused("invalid_client", refresh, wrong, token["refresh_token"])
            for answer in [introspect(wrong, token["access_token"]), revoke(wrong, token["refresh_token"])]:
                self.assertEqual([answer.status_code, answer.json()["error"]], [401, "invalid_client"])
        self.assertEqual(introspect(PUBLIC, token["access_token"]).status_code, 401)
        anothers = "invalid_grant" if STANDARD else "invalid_client"
        self.refused(anothers, refresh, OTHER, token["refresh_token"])
        self.assertTrue(refresh(CONFIDENTIAL, token["refresh_token"])["access_token"])

    def test_the_application_is_told_that_the_user_said_no(self):
        request = PUBLIC.create_authorization_url(REDIRECT)
        answer = user("deny", request["url"])["sent_to"]
        self.assertIn("error=access_denied", answer)
        self.assertIn(f"state={request['state']}", answer)

    def test_a_device_polls_until_somebody_has_signed_or_said_no(self):
        endpoint = METADATA["device_authorization_endpoint"]
        for act in ["approve", "refuse"]:
            with session(CONFIDENTIAL) as client:
                auth = client.client_auth("client_secret_basic")
                device = client.request("POST", endpoint, withhold_token=True, auth=auth, data={"scope": "openid"}).json()

                def poll():
                    return client.fetch_token(grant_type=DEVICE_GRANT, device_code=device["device_code"])

                self.refused("authorization_pending", poll)
                self.refused("slow_down", poll)
                link = f"{device['verification_uri']}?user_code={device['user_code']}"
                self.assertEqual(device.get("verification_uri_complete"), link if STANDARD else None)
                account = user(act, link)["account"]
                if act == "refuse":
                    self.refused("access_denied", poll)
                    continue
                # The replaced server knew no `scope` here, and so there is no ID token.
                token = poll()
                self.assertEqual("id_token" in token, STANDARD)
                self.assertEqual(said(token["access_token"])["sub"], account)
                self.refused("invalid_grant" if STANDARD else "Not Found", poll)

    @unittest.skipUnless(ALGORITHM == "EdDSA", "only EdDSA is refused")
    def test_its_resource_servers_do_not_know_eddsa(self):
        token, *_ = sign_in(PUBLIC)
        self.assertRaises(InvalidTokenError, protect, token["access_token"])

    @unittest.skipIf(ALGORITHM == "EdDSA", "Authlib's resource servers do not know it")
    def test_an_access_token_is_a_jwt_for_its_audience_and_nothing_else_is_one(self):
        token, claims, account = sign_in(PUBLIC)
        access = token["access_token"]
        found = protect(access)
        self.assertEqual([found["sub"], found["client_id"]], [account, PUBLIC.client_id])
        for wrong in [
            lambda: protect(token["id_token"], audience=PUBLIC.client_id),
            lambda: protect(token["refresh_token"]),
            lambda: protect(access, audience=RESOURCES[0]),
            lambda: protect(access, issuer="https://evil.example"),
            lambda: protect(altered(access, scope="openid tao:holder")),
            lambda: protect(altered(access, exp=int(time.time()) + 10**6)),
        ]:
            self.assertRaises(InvalidTokenError, wrong)
        self.assertRaises(InsufficientScopeError, protect, access, scope="tao:holder")

    @unittest.skipIf(ALGORITHM == "EdDSA", "Authlib's resource servers do not know it")
    def test_an_access_token_is_for_the_resource_that_was_named(self):
        first, second = RESOURCES
        token, *_ = sign_in(PUBLIC, resource=first)
        self.assertEqual(protect(token["access_token"], audience=first)["aud"], first)
        self.assertRaises(InvalidTokenError, protect, token["access_token"], audience=second)
        self.refused("invalid_target", refresh, PUBLIC, token["refresh_token"], resource=second)
        following = refresh(PUBLIC, token["refresh_token"], resource=first)
        self.assertEqual(protect(following["access_token"], audience=first)["aud"], first)


if __name__ == "__main__":
    # joserfc warns of the name EdDSA, which RFC 9864 has deprecated for names that say which curve; Authlib warns of itself.
    unittest.main(warnings="ignore")
