"""Counters: what they are called, and that their labels are few."""

from functools import partial

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from fjmcp_broker.config import MetricsConfig
from fjmcp_broker.metrics import Metrics
from fjmcp_broker.observing.instruments import Instruments, LoopDelay
from fjmcp_broker.observing.parts import CountedChild, CountedDatabase
from fjmcp_broker.observing.requests import RequestCounter
from fjmcp_broker.sessions.processes.ending import ChildEnd, EndReason
from fjmcp_broker.store import sessions
from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.upstream.documents import FetchOutcome
from tests.unit.store import rows
from tests.unit.store.memory import (
    NOW,
    InlineReactor,
    InlineThreadPool,
    memory_database,
)


def samples(metrics: Metrics) -> dict[str, float]:
    """Every sample by its name and labels, as Prometheus would read it."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = (
                sample.value
            )
    return found


class FakeRequest:
    """An answered request."""

    def __init__(
        self,
        path: str,
        method: str = "GET",
        code: int = 200,
        location: str | None = None,
        rpc_method: str | None = None,
        has_failed: bool | None = None,
    ) -> None:
        self.path = path.encode("utf-8", "surrogatepass")
        self.method = method.encode("utf-8", "surrogatepass")
        self.code = code
        self.rpc_method = rpc_method
        self.has_failed = has_failed
        self.responseHeaders = Headers({"Location": [location]} if location else {})


class RequestTests(SynchronousTestCase):
    """Requests of the site."""

    def setUp(self) -> None:
        """Nothing counted."""
        self.metrics = Metrics("1.2", "abc")
        self.count = RequestCounter(self.metrics)

    def seen(self, *requests: FakeRequest) -> dict[str, float]:
        """What is counted after some requests."""
        for request in requests:
            self.count(request, 0.2)  # type: ignore[arg-type]
        return samples(self.metrics)

    def test_requests(self) -> None:
        """By endpoint, method and status, with their time."""
        found = self.seen(
            FakeRequest("/oauth/token", "POST"),
            FakeRequest("/oauth/token", "POST", 400),
            FakeRequest("/oauth/token", "POST", 400),
        )
        name = "fjmcp_http_requests_total{endpoint=/oauth/token,method=POST,status="
        self.assertEqual((found[f"{name}200}}"], found[f"{name}400}}"]), (1, 2))
        name = "fjmcp_http_request_duration_seconds"
        self.assertEqual(found[f"{name}_count{{endpoint=/oauth/token}}"], 3)
        self.assertEqual(found[f"{name}_bucket{{endpoint=/oauth/token,le=0.1}}"], 0)
        self.assertEqual(found[f"{name}_bucket{{endpoint=/oauth/token,le=0.25}}"], 3)

    def test_mcp(self) -> None:
        """By method of the message; streams have no duration."""
        found = self.seen(
            FakeRequest("/mcp", "POST", rpc_method="tools/call"),
            FakeRequest("/mcp", "POST", rpc_method="tools/call", has_failed=True),
            FakeRequest("/mcp", "POST", 202, rpc_method="notifications/x"),
            FakeRequest("/mcp", "POST", 400),
            FakeRequest("/mcp", "GET"),
        )
        name = "fjmcp_mcp_requests_total{method="
        self.assertEqual(found[f"{name}tools/call,outcome=result,status=200}}"], 1)
        self.assertEqual(found[f"{name}tools/call,outcome=error,status=200}}"], 1)
        self.assertEqual(found[f"{name}other,outcome=accepted,status=202}}"], 1)
        self.assertEqual(found[f"{name}other,outcome=error,status=400}}"], 1)
        name = "fjmcp_http_request_duration_seconds_count{endpoint=/mcp}"
        self.assertEqual(found[name], 4)

    def test_bodies_that_are_too_long(self) -> None:
        """Count as a limit that was hit, at the MCP endpoint alone."""
        found = self.seen(
            FakeRequest("/mcp", "POST", 413), FakeRequest("/oauth/token", "POST", 413)
        )
        name = "fjmcp_limits_hit_total{limit=server.max_request_bytes}"
        self.assertEqual(found[name], 1)

    def test_sign_ins(self) -> None:
        """By what the client is told; codes and states stay out."""
        back = "https://client.example/back?"
        found = self.seen(
            FakeRequest("/oauth/callback", code=303, location=f"{back}code=c&iss=i"),
            FakeRequest("/oauth/callback", code=303, location=f"{back}code=c&iss=i"),
            FakeRequest(
                "/oauth/callback", code=303, location=f"{back}error=server_error&iss=i"
            ),
            FakeRequest(
                "/oauth/callback",
                code=303,
                location="https://git.example/?state=s3cret",
            ),
            FakeRequest("/oauth/callback", code=400),
            FakeRequest(
                "/oauth/consent", code=303, location=f"{back}error=access_denied"
            ),
            FakeRequest("/oauth/callback", code=303, location=f"{back}error=s3cret"),
        )
        outcomes = {
            name.removeprefix("fjmcp_sign_ins_total{outcome=")[:-1]: value
            for name, value in found.items()
            if name.startswith("fjmcp_sign_ins_total")
        }
        self.assertEqual(
            outcomes, {"success": 2, "server_error": 1, "page": 1, "access_denied": 1}
        )
        self.assertNotIn("s3cret", self.metrics.render().decode())

    @given(
        st.lists(
            st.builds(
                FakeRequest,
                st.text() | st.sampled_from(["/mcp", "/oauth/callback"]),
                st.text(),
                st.sampled_from([200, 303, 404]),
                st.none() | st.text("abc?=&code:/", min_size=1),
                st.none() | st.text(),
            ),
            max_size=20,
        )
    )
    def test_labels_are_few(self, requests: list[FakeRequest]) -> None:
        """Whatever clients send, it makes no series of its own."""
        self.metrics = Metrics()
        self.count = RequestCounter(self.metrics)
        for name in self.seen(*requests):
            for label in ("endpoint", "method"):
                if f"{label}=" in name:
                    value = name.partition(f"{label}=")[2].partition(",")[0]
                    known = ("/mcp", "/oauth/callback", "other", "/")
                    self.assertIn(value.rstrip("}"), (*known, "GET", "POST"), name)


class PartsTests(SynchronousTestCase):
    """What is put in the place of parts of the daemon."""

    def setUp(self) -> None:
        """A clock."""
        self.clock = Clock()
        self.metrics = Metrics()

    def test_children(self) -> None:
        """Started, running, ended and why; the owner hears everything."""
        heard: list[object] = []

        class Owner:
            def child_line(self, line: bytes) -> None:
                heard.append(line)

            def child_ended(self, end: ChildEnd) -> None:
                heard.append(end)

        instruments = Instruments(self.clock, MetricsConfig())
        child, _other = instruments.child(Owner()), instruments.child(Owner())
        self.assertIsInstance(child, CountedChild)
        self.assertEqual(samples(instruments.metrics)["fjmcp_children"], 2)
        child.child_line(b"x")
        end = ChildEnd(EndReason.EXITED, 1, None, "")
        child.child_ended(end)
        self.assertEqual(heard, [b"x", end])
        found = samples(instruments.metrics)
        self.assertEqual(found["fjmcp_children"], 1)
        self.assertEqual(found["fjmcp_child_spawns_total"], 2)
        self.assertEqual(found["fjmcp_child_exits_total{reason=child_exited}"], 1)

    def test_store(self) -> None:
        """Writes and reads by outcome."""
        database = CountedDatabase(
            ":memory:",
            reactor=InlineReactor(),  # type: ignore[arg-type]
            threads=InlineThreadPool,  # type: ignore[arg-type]
        )
        database.metrics, database.seconds = self.metrics, self.clock.seconds
        write = Deferred.fromCoroutine(database.write(lambda connection: 1))
        self.failureResultOf(write, StoreUnavailable)
        self.successResultOf(Deferred.fromCoroutine(database.open()))
        self.addCleanup(
            lambda: self.successResultOf(Deferred.fromCoroutine(database.close()))
        )
        for work in (database.write(lambda c: 1), database.read(lambda c: 2)):
            self.successResultOf(Deferred.fromCoroutine(work))
        failing = Deferred.fromCoroutine(database.read(lambda c: c.execute("x")))
        self.failureResultOf(failing)
        found = samples(self.metrics)
        name = "fjmcp_store_transactions_total{kind="
        for labels in ("write,outcome=ok", "write,outcome=unavailable"):
            self.assertEqual(found[f"{name}{labels}}}"], 1)
        for labels in ("read,outcome=ok", "read,outcome=failed"):
            self.assertEqual(found[f"{name}{labels}}}"], 1)

    def test_loop_delay(self) -> None:
        """How late, not how long."""
        delay = LoopDelay(self.clock, self.metrics)
        for pause in (0, 1, 1.3, 1, 3):
            self.clock.advance(pause)
            self.successResultOf(Deferred.fromCoroutine(delay.measure()))
        found = samples(self.metrics)
        name = "fjmcp_event_loop_delay_seconds"
        self.assertEqual(found[f"{name}_count"], 4)
        self.assertEqual(found[f"{name}_bucket{{le=0.001}}"], 2)
        self.assertEqual(found[f"{name}_bucket{{le=0.5}}"], 3)
        self.assertAlmostEqual(found[f"{name}_sum"], 2.3)

    def test_expected(self) -> None:
        """What has not happened yet is shown at nought; it has a rate then."""
        found = samples(Instruments(self.clock, MetricsConfig()).metrics)
        for name in (
            "fjmcp_rate_limited_total{limit=register}",
            "fjmcp_rate_limited_total{limit=initialize}",
            "fjmcp_child_spawns_total",
            "fjmcp_child_exits_total{reason=child_exited}",
            "fjmcp_child_reaps_total{reason=idle}",
            "fjmcp_child_rotations_total{outcome=failed}",
            "fjmcp_limits_hit_total{limit=sessions.max}",
            "fjmcp_document_requests_total{outcome=unusable}",
            "fjmcp_session_transitions_total{event=rotate}",
            "fjmcp_upstream_requests_total{call=refresh,outcome=ok}",
            "fjmcp_sign_ins_total{outcome=success}",
            "fjmcp_store_transactions_total{kind=write,outcome=unavailable}",
        ):
            self.assertEqual(found[name], 0, name)

    def test_no_series_that_nobody_reads(self) -> None:
        """Prometheus 2 and Grafana make nothing of when a counter was made."""
        metrics = Instruments(self.clock, MetricsConfig()).metrics
        self.assertNotIn(b"_created", metrics.render())

    def test_states(self) -> None:
        """Every state has its sample, also at nought."""
        self.metrics.watch_each(
            "fjmcp_things",
            "Things.",
            ("kind", "state"),
            lambda: {("x", "a"): 2, ("y", "b"): 0},
        )
        self.metrics.watch_each(
            "fjmcp_lost", "Lost.", (), lambda: {(): 3}, only_grow=True
        )
        self.metrics.watch("fjmcp_number", "A number.", lambda: 7)
        found = samples(self.metrics)
        self.assertEqual(found["fjmcp_things{kind=x,state=a}"], 2)
        self.assertEqual(found["fjmcp_things{kind=y,state=b}"], 0)
        self.assertEqual(found["fjmcp_lost_total"], 3)
        self.assertEqual(found["fjmcp_number"], 7)
        self.assertIn(b"# TYPE fjmcp_lost_total counter", self.metrics.render())

    def test_documents(self) -> None:
        """By outcome, with their time where somebody was asked."""
        instruments = Instruments(self.clock, MetricsConfig())
        for outcome in (FetchOutcome.OK, FetchOutcome.OK, FetchOutcome.LIMITED):
            over = instruments.document_asked()
            self.clock.advance(0.3)
            over(outcome)
        found = samples(instruments.metrics)
        name = "fjmcp_document_request"
        self.assertEqual(found[f"{name}s_total{{outcome=ok}}"], 2)
        self.assertEqual(found[f"{name}s_total{{outcome=limited}}"], 1)
        seconds = f"{name}_duration_seconds"
        self.assertAlmostEqual(found[f"{seconds}_sum{{outcome=ok}}"], 0.6)
        self.assertEqual(found[f"{seconds}_count{{outcome=limited}}"], 0)

    def test_bodies_without_room(self) -> None:
        """Once for each, whenever that is noticed."""
        instruments = Instruments(self.clock, MetricsConfig())
        bodies = instruments.memory(64 * 1024 * 1024)
        self.assertTrue(bodies.fits("alice", 1000))
        self.assertFalse(bodies.fits("alice", 100 * 1024 * 1024))
        self.assertTrue(bodies.take("alice", 10, 10))
        self.assertFalse(bodies.take("alice", 100 * 1024 * 1024, 10))
        found = samples(instruments.metrics)
        name = "fjmcp_limits_hit_total{limit=server.max_body_memory_bytes}"
        self.assertEqual(found[name], 2)
        self.assertEqual(bodies.held_bytes, 10)

    def test_dormant_sessions_beyond_the_limit(self) -> None:
        """As many as were closed for it."""
        database = memory_database(self)
        instruments = Instruments(self.clock, MetricsConfig())
        ledger = instruments.rows(database, Sealer([b"k" * 32]))
        self.successResultOf(Deferred.fromCoroutine(database.write(rows.insert_grant)))
        for number in range(5):
            row = rows.session(f"session {number}")
            write = database.write(partial(sessions.insert, session=row))
            self.successResultOf(Deferred.fromCoroutine(write))
        for keep in (3, 3):
            closing = ledger.close_surplus(rows.GRANT_ID, keep, (), NOW)
            self.successResultOf(Deferred.fromCoroutine(closing))
        found = samples(instruments.metrics)
        name = "fjmcp_limits_hit_total{limit=sessions.max_dormant_per_grant}"
        self.assertEqual(found[name], 2)
