"""
The stand-in's sign-in, authorize and consent pages, as Forgejo answers them.
"""

from tests.unit.demo.browser import CHALLENGE, REDIRECT_URI, StandInTestCase, form_of


class SignInTests(StandInTestCase):
    def test_page_shows_users_and_passwords(self) -> None:
        """The demo's users read their passwords on the sign-in page."""
        page = self.get("/user/login")
        self.assertEqual(page.status, 200)
        for login in ("alice", "bob"):
            self.assertIn(self.controls.user(login).password, page.text)

    def test_wrong_password_stays_signed_out(self) -> None:
        """A wrong password shows the form again."""
        page = self.post("/user/login", {"user_name": "alice", "password": "no"})
        self.assertIn("incorrect", page.text)
        self.assertEqual(self.get("/").location, "http://forgejo.test/user/login")

    def test_authorize_without_session_comes_back(self) -> None:
        """Who is not signed in is sent to the form, and then back."""
        first = self.authorize()
        self.assertEqual(
            (first.status, first.location), (303, "http://forgejo.test/user/login")
        )
        back = self.sign_in()
        self.assertEqual(back.status, 303)
        self.assertTrue(
            back.location.startswith("http://forgejo.test/login/oauth/authorize?")
        )
        self.assertIn("Authorize", self.get(back.location).text)

    def test_return_cookie_to_elsewhere_is_ignored(self) -> None:
        """The sign-in page never sends a browser to another site."""
        for target in ("//evil.test/", "https%3A%2F%2Fevil.test", "%2F%2Fevil.test"):
            password = self.controls.user("alice").password
            answer = self.post(
                "/user/login",
                {"user_name": "alice", "password": password},
                Cookie=f"redirect_to={target}",
            )
            self.assertEqual(answer.location, "http://forgejo.test/")

    def test_prohibited_user_cannot_sign_in(self) -> None:
        """An account that may not sign in gets 403."""
        self.controls.disable_user("alice")
        self.assertEqual(self.sign_in().status, 403)

    def test_sign_out(self) -> None:
        """After signing out the next authorization asks for the password."""
        self.sign_in()
        self.assertIn("alice", self.get("/").text)
        self.get("/user/logout")
        self.assertEqual(self.authorize().status, 303)


class AuthorizeTests(StandInTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.sign_in()

    def test_unknown_client_is_a_page(self) -> None:
        """An unknown client_id gets 400 and HTML, never a redirect."""
        answer = self.authorize(client_id="nobody")
        self.assertEqual(answer.status, 400)
        self.assertIn("text/html", answer.headers["content-type"])
        self.assertNotIn("location", answer.headers)

    def test_bad_redirect_uri_is_a_page(self) -> None:
        """A missing or unregistered redirect URI gets 400 and HTML."""
        for uri in (None, "", "https://evil.test/", f"{REDIRECT_URI}/x"):
            answer = self.authorize(redirect_uri=uri)
            self.assertEqual(answer.status, 400)
            self.assertNotIn("location", answer.headers)

    def test_redirect_uri_ignores_case_and_slash(self) -> None:
        """Case and one trailing slash do not matter."""
        for uri in (REDIRECT_URI.upper(), f"{REDIRECT_URI}/"):
            self.assertEqual(self.authorize(redirect_uri=uri).status, 200)

    def test_other_response_type_redirects(self) -> None:
        """Only the code response type exists."""
        answer = self.authorize(response_type="token")
        self.assertEqual(answer.status, 303)
        self.assertEqual(answer.parameters["error"], "unsupported_response_type")
        self.assertEqual(answer.parameters["state"], "st")

    def test_unknown_challenge_method_redirects(self) -> None:
        """S256 and plain are known; the state comes back even when empty."""
        answer = self.authorize(code_challenge_method="S512", state=None)
        self.assertEqual(
            answer.parameters,
            {
                "error": "invalid_request",
                "error_description": "unsupported code challenge method",
                "state": "",
            },
        )

    def test_public_client_needs_challenge(self) -> None:
        """A public application must use PKCE."""
        public = self.forgejo.add_application(
            "http://127.0.0.1/cb", is_confidential=False
        )
        answer = self.authorize(
            client_id=public.client_id,
            redirect_uri="http://127.0.0.1:4711/cb",
            code_challenge=None,
            code_challenge_method=None,
        )
        self.assertEqual(
            answer.parameters["error_description"],
            "PKCE is required for public clients",
        )

    def test_loopback_port_only_for_public_clients(self) -> None:
        """Any port of a loopback address fits, for public applications only."""
        for public, status in ((True, 200), (False, 400)):
            application = self.forgejo.add_application(
                "http://127.0.0.1/cb", is_confidential=not public
            )
            answer = self.authorize(
                client_id=application.client_id, redirect_uri="http://127.0.0.1:9/cb"
            )
            self.assertEqual(answer.status, status)

    def test_page_shows_raw_scope_and_redirect_uri(self) -> None:
        """The consent page shows what is asked for, escaped."""
        page = self.authorize(scope="<b>read:user")
        self.assertIn("&lt;b&gt;read:user", page.text)
        self.assertIn(REDIRECT_URI, page.text)

    def test_consent_gives_code_and_state(self) -> None:
        """Consent is answered with 303, a code of 56 characters, and the state."""
        answer = self.press(self.authorize())
        self.assertEqual(answer.status, 303)
        self.assertTrue(answer.location.startswith(f"{REDIRECT_URI}?code=gta_"))
        self.assertEqual(set(answer.parameters), {"code", "state"})
        self.assertEqual(len(answer.parameters["code"]), 56)

    def test_empty_state_is_left_out(self) -> None:
        """On success an empty state does not come back."""
        answer = self.press(self.authorize(state=None))
        self.assertEqual(set(answer.parameters), {"code"})

    def test_parameters_join_a_query(self) -> None:
        """Parameters are merged into the redirect URI's own and sorted."""
        application = self.forgejo.add_application("https://broker.test/cb?x=1&a=2")
        page = self.authorize(
            client_id=application.client_id,
            redirect_uri="https://broker.test/cb?x=1&a=2",
        )
        self.assertEqual(list(self.press(page).parameters), ["a", "code", "state", "x"])

    def test_cancel_redirects(self) -> None:
        """Cancelling is access_denied."""
        answer = self.press(self.authorize(), "false")
        self.assertEqual(
            answer.parameters,
            {
                "error": "access_denied",
                "error_description": "the request is denied",
                "state": "st",
            },
        )

    def test_existing_grant_skips_consent(self) -> None:
        """A confidential application with a grant gets a code at once, and the
        grant keeps the scope of the first consent."""
        self.press(self.authorize())
        again = self.authorize(scope="all", nonce="n")
        self.assertEqual(again.status, 303)
        self.assertIn("code", again.parameters)
        self.assertEqual(self.controls.grant("alice").scope, "openid read:user")
        self.assertEqual(self.controls.grant("alice").nonce, "n")

    def test_public_client_is_asked_every_time(self) -> None:
        """A public application shows consent again; another scope is an error."""
        public = self.forgejo.add_application(REDIRECT_URI, is_confidential=False)
        client_id = public.client_id
        self.press(self.authorize(client_id=client_id))
        self.assertEqual(self.authorize(client_id=client_id).status, 200)
        answer = self.press(self.authorize(client_id=client_id, scope="all"))
        self.assertEqual(
            (answer.parameters["error"], answer.parameters["error_description"]),
            ("server_error", "a grant exists with different scope"),
        )

    def test_two_tabs_only_the_latest_works(self) -> None:
        """Consent to a request that is not the session's latest gets 400 text."""
        first = self.authorize(state="one")
        second = self.authorize(state="two")
        answer = self.press(first)
        self.assertEqual(answer.status, 400)
        self.assertIn("text/plain", answer.headers["content-type"])
        self.assertEqual(self.press(second).status, 303)

    def test_other_origin_is_refused(self) -> None:
        """The consent form is protected against other sites."""
        fields = form_of(self.authorize()) | {"granted": "true"}
        for headers in (
            {"Sec_Fetch_Site": "cross-site"},
            {"Origin": "https://evil.test"},
        ):
            answer = self.post("/login/oauth/grant", fields, **headers)
            self.assertEqual(answer.status, 403)
        self.assertEqual(self.post("/login/oauth/grant", fields).status, 303)

    def test_challenge_is_kept_in_the_session(self) -> None:
        """The code carries the challenge of the authorization request."""
        code = self.press(self.authorize()).parameters["code"]
        self.assert_refused(
            self.exchange(code, code_verifier="wrong"),
            "unauthorized_client",
            "failed PKCE code challenge",
        )
        self.assertEqual(self.exchange(code).status, 200)

    def test_plain_challenge(self) -> None:
        """A plain challenge is compared as it is."""
        page = self.authorize(code_challenge=CHALLENGE, code_challenge_method="plain")
        code = self.press(page).parameters["code"]
        self.assertEqual(self.exchange(code, code_verifier=CHALLENGE).status, 200)

    def test_application_deleted_meanwhile(self) -> None:
        """Consent for an application that is gone gets 400."""
        page = self.authorize()
        self.controls.delete_application()
        self.assertEqual(self.press(page).status, 400)

    def test_signed_out_meanwhile(self) -> None:
        """Without a session the form and the settings ask to sign in."""
        page = self.authorize()
        self.get("/user/logout")
        login = "http://forgejo.test/user/login"
        self.assertEqual(self.press(page).location, login)
        self.assertEqual(self.get("/user/settings/applications").location, login)

    def test_parameters_may_be_posted(self) -> None:
        """Authorize takes a form too."""
        fields = {
            "response_type": "code",
            "client_id": self.application.client_id,
            "redirect_uri": REDIRECT_URI,
        }
        self.assertEqual(self.post("/login/oauth/authorize", fields).status, 200)

    def test_user_revokes_in_settings(self) -> None:
        """Removing the application ends the grant; the next sign-in asks again."""
        self.press(self.authorize())
        page = self.get("/user/settings/applications")
        self.assertIn("fjmcp-broker", page.text)
        grant_id = self.controls.grant("alice").id
        path = f"/user/settings/applications/oauth2/{grant_id}/revoke"
        self.assertEqual(self.post(path, {}, Origin="https://evil.test").status, 403)
        self.assertEqual(self.post(path, {}).status, 303)
        self.assertEqual(self.authorize().status, 200)


class SubPathTests(StandInTestCase):
    base_url = "http://forgejo.test/git"

    def test_journey_below_a_path(self) -> None:
        """All of it works when Forgejo lives below a path."""
        first = self.authorize()
        self.assertEqual(first.location, "http://forgejo.test/git/user/login")
        page = self.get(self.sign_in().location)
        code = self.press(page).parameters["code"]
        token = self.exchange(code).json["access_token"]
        self.assertEqual(self.api("/user", token).json["login"], "alice")

    def test_outside_is_not_found(self) -> None:
        """Nothing of it is outside the path."""
        self.assertEqual(self.get("http://forgejo.test/user/login").status, 404)
