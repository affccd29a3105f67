"""Many clients at once, through the commands as users run them."""

from __future__ import annotations

import selectors
import socket

from tests.integration.commands import WAIT, CommandTestCase, Running


class BurstTests(CommandTestCase):
    """``twistd mutauth`` behind ``mutauth connect --listen``: for the service, all clients are of
    one address.
    """

    timeout = 180

    def setUp(self) -> None:
        super().setUp()
        self.install()

    @staticmethod
    def ask(port: int, count: int) -> list[bytes]:
        """Answers of an echo to so many clients that come at once, each after it has ended what it
        says.
        """
        waiting = selectors.DefaultSelector()
        answers = [b""] * count
        for number in range(count):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            waiting.register(client, selectors.EVENT_WRITE, number)
        left = count
        while left and (ready := waiting.select(WAIT)):
            for key, _ in ready:
                client = key.fileobj  # type: ignore[assignment]
                if key.events == selectors.EVENT_WRITE:
                    client.send(b"%d" % key.data)
                    client.shutdown(socket.SHUT_WR)
                    waiting.modify(client, selectors.EVENT_READ, key.data)
                elif data := client.recv(100):
                    answers[key.data] += data
                else:
                    waiting.unregister(client)
                    client.close()
                    left -= 1
        return answers

    def bursts(self, running: Running) -> None:
        """Three times in a row, what is asked is answered."""
        running.read_on()
        for _ in range(3):
            self.assertEqual(self.ask(running.port, 200), [b"%d" % number for number in range(200)])

    def test_by_name(self) -> None:
        """200 clients at once, three times in a row, are all served."""
        name = (
            f"{self.service_class}/{self.host}/CN={self.service_class},CN=srv1,"
            f"CN=Computers,{self.lab.base_dn}"
        )
        with self.service() as service:
            service.read_on()
            address = f"tcp\\:{self.lab.address_of(self.host)}\\:{service.port}"
            with self.forwarder(f"mutauth:{address}:spn={name}") as forwarder:
                self.bursts(forwarder)

    def test_through_the_directory(self) -> None:
        """So they are where the forwarder has to find the service first."""
        with self.service() as service:
            service.read_on()
            with self.forwarder(self.endpoint) as forwarder:
                self.bursts(forwarder)
