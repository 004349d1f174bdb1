"""
The attempts of late, in memory: a ring with a quota for each network, so that whoever
floods it pushes out nobody's but his own.
"""

from base64 import b32encode
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from .attempts import OK, Attempt, Sighting, Step, StepName

MAXIMUM_ATTEMPTS: Final = 1000
#: Hosted clients come from few networks, and so does everybody behind a proxy that
#: does not say whom it serves.
MAXIMUM_OF_A_NETWORK: Final = 250

OF_A_NETWORK: Final = "network"
OF_ALL: Final = "all"
"""The two bounds, as they are counted."""

#: Attempts are about people and end with their use: the operator asks soon or never.
KEPT_SECONDS: Final = 30 * 24 * 3600

MAXIMUM_NETWORKS_SEEN: Final = 500
MAXIMUM_SEEN: Final = 20
MAXIMUM_CONCERNED: Final = 50
"""So many attempts are looked at for each such request."""

RELATED_SECONDS: Final = 600
"""So long before an attempt began, a request may have belonged to it."""

MAXIMUM_KEYS: Final = 20
"""Of one attempt: each click on the consent page makes another one."""

_TRACE_ID_BYTES: Final = 5


class Changes(msgspec.Struct, frozen=True):
    """
    What the store does not know yet.

    @ivar saved: attempts that are new or have changed.
    @ivar removed: ids of those that are not kept any more.
    """

    saved: tuple[Attempt, ...]
    removed: tuple[str, ...]

    def __bool__(self) -> bool:
        """
        @return: whether there is anything.
        """
        return bool(self.saved or self.removed)


class Book:
    """
    Finds the attempt that a step belongs to, and keeps it.

    @ivar lost: how many had to go before their time, by the bound that was reached.
    """

    def __init__(
        self,
        random_bytes: Callable[[int], bytes],
        *,
        maximum: int = MAXIMUM_ATTEMPTS,
        maximum_of_a_network: int = MAXIMUM_OF_A_NETWORK,
    ) -> None:
        """
        @param random_bytes: for trace ids.
        @param maximum: attempts that are kept.
        @param maximum_of_a_network: that began in one network.
        """
        self._random_bytes = random_bytes
        self._maximum = maximum
        self._maximum_of_a_network = maximum_of_a_network
        self._attempts: OrderedDict[str, Attempt] = OrderedDict()
        self._networks: Counter[str] = Counter()
        self._by_key: dict[str, str] = {}
        # In the order in which they came.
        self._keys: dict[str, dict[str, None]] = {}
        self._waiting_grants: dict[str, str] = {}
        self._seen: OrderedDict[str, deque[Sighting]] = OrderedDict()
        self._changed: set[str] = set()
        self._removed: set[str] = set()
        self.lost = {OF_A_NETWORK: 0, OF_ALL: 0}

    def __len__(self) -> int:
        """
        @return: how many attempts there are.
        """
        return len(self._attempts)

    def get(self, trace_id: str) -> Attempt | None:
        """
        @param trace_id: of an attempt.
        @return: the attempt, if it is kept still.
        """
        return self._attempts.get(trace_id)

    def begin(self, network: str, now: int) -> str:
        """
        @param network: that the first step comes from.
        @param now: seconds since the epoch.
        @return: the id of a new attempt.
        """
        self._make_room(network)
        trace_id = b32encode(self._random_bytes(_TRACE_ID_BYTES)).decode().lower()
        attempt = Attempt(
            trace_id=trace_id, network=network, began_at=now, updated_at=now
        )
        before = [
            seen
            for seen in self._seen.get(network, ())
            if seen.at > now - RELATED_SECONDS
        ]
        self._put(attempt.with_related(before))
        return trace_id

    def find(self, key: str) -> str | None:
        """
        @param key: as given to L{tie}.
        @return: the id of the attempt that it leads to.
        """
        return self._by_key.get(key)

    def tie(self, trace_id: str, key: str) -> None:
        """
        @param trace_id: of an attempt; one that is not kept any more is passed over.
        @param key: by which the next step will ask for it.
        """
        if trace_id not in self._attempts:
            return
        self.untie(key)
        keys = self._keys[trace_id]
        if len(keys) >= MAXIMUM_KEYS:
            self.untie(next(iter(keys)))
        self._by_key[key] = trace_id
        keys[key] = None

    def untie(self, key: str) -> None:
        """
        @param key: leads nowhere any more.
        """
        trace_id = self._by_key.pop(key, None)
        if trace_id is not None:
            del self._keys[trace_id][key]

    def add(self, trace_id: str, step: Step, **facts: Any) -> None:
        """
        @param trace_id: of an attempt; one that is not kept any more is passed over.
        @param step: its newest.
        @param facts: attributes of the attempt that are known now.
        """
        attempt = self._attempts.get(trace_id)
        if attempt is None:
            return
        attempt = replace(attempt, **facts).with_step(step)
        self._attempts[trace_id] = attempt
        self._changed.add(trace_id)
        self._watch(attempt)

    def awaits(self, grant_id: str) -> str | None:
        """
        @param grant_id: of an authenticated request.
        @return: the id of the attempt whose first request it is, if it is one.
        """
        return self._waiting_grants.get(grant_id)

    def saw(self, network: str, what: str, now: int) -> None:
        """
        @param network: that a request without a valid token came from.
        @param what: it was, in our own words.
        @param now: seconds since the epoch.
        """
        seen = self._seen.get(network)
        if seen is None:
            seen = self._seen[network] = deque(maxlen=MAXIMUM_SEEN)
            if len(self._seen) > MAXIMUM_NETWORKS_SEEN:
                self._seen.popitem(last=False)
        self._seen.move_to_end(network)
        sighting = Sighting(now, what)
        seen.append(sighting)
        newest = islice(reversed(self._waiting_grants.values()), MAXIMUM_CONCERNED)
        for trace_id in list(newest):
            # Tokens were issued, and here somebody comes without.
            attempt = self._attempts[trace_id]
            if any(step.network == network for step in attempt.steps):
                self._attempts[trace_id] = attempt.with_related([sighting])
                self._changed.add(trace_id)

    def forget_before(self, before: int) -> None:
        """
        @param before: seconds since the epoch; attempts not touched since then go.
        """
        old = [a.trace_id for a in self._attempts.values() if a.updated_at <= before]
        for trace_id in old:
            self._drop(trace_id)

    # For the store

    def load(self, attempts: Iterable[Attempt]) -> None:
        """
        @param attempts: from the store, the oldest first.
        """
        for attempt in attempts:
            self._make_room(attempt.network)
            self._put(attempt)
            self._changed.discard(attempt.trace_id)

    def take_changes(self, most: int) -> Changes:
        """
        @param most: attempts at a time.
        @return: what the store does not know yet, to be written or put back.
        """
        saved = tuple(sorted(self._changed)[:most])
        removed = tuple(sorted(self._removed)[:most])
        self._changed.difference_update(saved)
        self._removed.difference_update(removed)
        return Changes(tuple(self._attempts[each] for each in saved), removed)

    def put_back(self, changes: Changes) -> None:
        """
        @param changes: could not be written.
        """
        saved = {attempt.trace_id for attempt in changes.saved}
        self._changed |= saved & self._attempts.keys()
        # One that went meanwhile is in these already.
        self._removed |= set(changes.removed)

    # Inside

    def _put(self, attempt: Attempt) -> None:
        trace_id = attempt.trace_id
        if trace_id in self._attempts:  # one in a million millions
            self._drop(trace_id)
        self._removed.discard(trace_id)
        self._attempts[trace_id] = attempt
        self._networks[attempt.network] += 1
        self._keys[trace_id] = {}
        self._changed.add(trace_id)
        if attempt.pending_id is not None:
            self.tie(trace_id, pending_key(attempt.pending_id))
        if attempt.grant_id is not None:
            self.tie(trace_id, grant_key(attempt.grant_id))
        steps = attempt.steps
        if attempt.client_id and steps and steps[-1].name is StepName.REGISTER:
            self.tie(trace_id, client_key(attempt.client_id))
        self._watch(attempt)

    def _watch(self, attempt: Attempt) -> None:
        grant_id, steps = attempt.grant_id, attempt.steps
        if grant_id is None or not steps:
            return
        if steps[-1].name is StepName.TOKEN and steps[-1].outcome == OK:
            self._waiting_grants[grant_id] = attempt.trace_id
        elif steps[-1].name is StepName.REQUEST:
            self._waiting_grants.pop(grant_id, None)

    def _make_room(self, network: str) -> None:
        if self._networks[network] >= self._maximum_of_a_network:
            self.lost[OF_A_NETWORK] += 1
            self._drop_oldest_of(network)
        elif len(self._attempts) >= self._maximum:
            self.lost[OF_ALL] += 1
            largest, _ = self._networks.most_common(1)[0]
            self._drop_oldest_of(largest)

    def _drop_oldest_of(self, network: str) -> None:
        self._drop(
            next(a.trace_id for a in self._attempts.values() if a.network == network)
        )

    def _drop(self, trace_id: str) -> None:
        attempt = self._attempts.pop(trace_id)
        self._networks[attempt.network] -= 1
        if not self._networks[attempt.network]:
            del self._networks[attempt.network]
        for key in self._keys.pop(trace_id):
            del self._by_key[key]
        if attempt.grant_id is not None:
            self._waiting_grants.pop(attempt.grant_id, None)
        self._changed.discard(trace_id)
        self._removed.add(trace_id)


def client_key(client_id: str) -> str:
    """
    @param client_id: of a client that has just registered.
    @return: its key.
    """
    return f"client {client_id}"


def pending_key(pending_id: str) -> str:
    """
    @param pending_id: of a pending authorization.
    @return: its key.
    """
    return f"pending {pending_id}"


def state_key(state_digest: bytes) -> str:
    """
    @param state_digest: SHA-256 of the state sent to Forgejo.
    @return: its key.
    """
    return f"state {state_digest.hex()}"


def grant_key(grant_id: str) -> str:
    """
    @param grant_id: of a grant.
    @return: its key.
    """
    return f"grant {grant_id}"
