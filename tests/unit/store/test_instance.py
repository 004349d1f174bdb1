"""
Which Forgejo a store belongs to.
"""

from functools import partial

from fjmcp_broker.store import instance
from fjmcp_broker.store.errors import StoreRefused
from fjmcp_broker.store.instance import Instance

from .memory import NOW
from .rows import StoreTestCase

OURS = Instance("https://git.example/forgejo", "app")


class InstanceTests(StoreTestCase):
    def test_first_start_ties_the_store(self) -> None:
        """
        The same instance is accepted from then on, with or without trailing slash.
        """
        for at in (NOW, NOW + 9):
            self.write(partial(instance.claim, instance=OURS, now=at))
        self.read(
            lambda c: instance.check(c, Instance("https://git.example/forgejo/", "app"))
        )
        self.assertEqual(self.count("instance"), 1)

    def test_other_instance_is_refused(self) -> None:
        """
        User numbers of another Forgejo, or tokens of another application, would
        mean other people; the message names both.
        """
        self.write(lambda c: instance.claim(c, OURS, NOW))
        other = Instance("https://other.example", "app2")
        error = self.read(
            lambda c: self.assertRaises(StoreRefused, instance.check, c, other)
        )
        self.assertEqual(
            str(error),
            "it belongs to https://git.example/forgejo (application app), but the"
            " configuration names https://other.example (application app2); use another"
            " store",
        )
