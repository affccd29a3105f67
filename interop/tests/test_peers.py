"""Every scenario with every variant of every peer, as client and as server."""

from __future__ import annotations

import socket

from interop import scenarios
from interop.peers import PEERS, Variant
from interop.stage import HOST, WAIT, StageTestCase, stage

#: The packages of ours that peers' servers have to take.
PACKAGES = ("kerberos", "negotiate")


def _classes() -> dict[str, type]:
    """A class of tests for each combination."""
    classes: dict[str, type] = {}
    for peer in PEERS:
        for variant in peer.clients:
            name = f"{peer.identifier}{variant.identifier}ClientTests"
            members = {"peer": peer, "variant": variant, "__module__": __name__}
            classes[name] = type(name, (scenarios.ClientScenarios,), members)
        for variant in peer.servers:
            members = {"peer": peer, "variant": variant, "__module__": __name__}
            for package in PACKAGES:
                name = f"{peer.identifier}{variant.identifier}ServerTests_{package}"
                classes[name] = type(
                    name, (scenarios.ServerScenarios,), {**members, "package": package}
                )
    return classes


globals().update(_classes())


class LimitTests(StageTestCase):
    """Limits of peers still stand: docs/interop.md says so."""

    def test_limits(self) -> None:
        """Each limit's own words are reported."""
        for peer in PEERS:
            for limit in peer.limits:
                names = stage().three_part if limit.three_part else stage().names(peer)
                variant = Variant(limit.name, limit.words)
                forwarder = stage().start_peer(
                    peer, "client", stage().service_relay.port, names.ours, variant
                )
                with socket.create_connection((HOST, forwarder.port), WAIT):
                    said = forwarder.program.wait_for("refused ")
                self.assertIn(limit.says, said, f"{peer.name}: {limit.sentence}: {said}")
                forwarder.program.stop()
