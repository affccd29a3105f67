"""Two instances of a service that were given one service connection point."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from tests.integration.commands import WAIT, CommandTestCase


class InstanceTests(CommandTestCase):
    """Two processes with the same options, but for the ports they get."""

    def test_later_one(self) -> None:
        """The later one leaves clients to the first, says so, and follows it when it stops."""
        self.assertEqual(self.install().code, 0)
        often = ("--check-interval", "0.2")
        with self.service(*often) as first:
            with self.service(*often) as second:
                taken = f"it points to {self.host} {first.port}, where another instance runs"
                self.assertIn(taken, second.log)
                self.assertIn("--scp-name", second.log)
                time.sleep(1)  # several looks of both
                self.assertEqual(self.leads_to(), first.port)
                first.stop()
                give_up_at = time.monotonic() + WAIT
                while self.leads_to() != second.port and time.monotonic() < give_up_at:
                    time.sleep(0.2)
                self.assertEqual(self.leads_to(), second.port)
                second.stop()
            self.assertIn("SCP withdrawn", first.log)
            self.assertNotIn("another instance", first.log)
            self.assertIn("published again", second.log)
        self.assertIsNone(self.leads_to())

    def test_whom_the_policy_denies(self) -> None:
        """Nor does it matter that neither lets the service's own account in, which then opens no
        session either.
        """
        self.assertEqual(self.install("--spn-form", "guid,dn,host").code, 0)
        for options in ((), ("--wire", "winsock"), ("--protection", "tls")):
            only_alice = ("--allow", "alice@LAB.EXAMPLE", "--check-interval", "0.2", *options)
            with self.service(*only_alice) as first, self.service(*only_alice) as second:
                self.assertIn(
                    f"it points to {self.host} {first.port}, where another instance runs",
                    second.log,
                )
                address = self.lab.address_of(self.host)
                words = "".join(
                    f":{option[2:]}={value}"
                    for option, value in zip(options[::2], options[1::2], strict=True)
                )
                endpoint = (
                    f"mutauth:tcp\\:{address}\\:{first.port}:spn={self.service_class}/"
                    f"{self.host}{words}"
                )
                own = self.mutauth("connect", endpoint, given="hello\n", user="svc-echo")
                self.assertEqual((own.code == 0, own.output), (False, ""), own)
                self.assertEqual(
                    self.mutauth("connect", endpoint, given="hello\n").output, "hello\n"
                )
                second.stop()
                first.stop()
                self.assertNotIn("published again", first.log + second.log)
                self.assertIn("the access policy does not allow this principal", first.log)

    def test_squatter(self) -> None:
        """A program that listens on the port of an instance that was killed does not get its
        clients.
        """
        self.assertEqual(self.install().code, 0)
        with self.service() as killed:
            killed.process.kill()
            killed.process.wait(WAIT)
            with (
                socket.create_server((self.lab.address_of(self.host), killed.port)),
                self.service() as service,
            ):
                self.assertIn(f"no other instance runs at {self.host}:{killed.port}", service.log)
                self.assertEqual(self.leads_to(), service.port)

    def test_relay(self) -> None:
        """Nor does one that passes everything on to the instance that asks."""
        self.assertEqual(self.install().code, 0)
        address = self.lab.address_of(self.host)
        with socket.create_server((address, 0)) as free:
            port = free.getsockname()[1]

        def serve(listener: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client, socket.create_connection((address, port), WAIT) as service:
                        client.settimeout(WAIT)
                        service.sendall(client.recv(65536))
                        while data := service.recv(65536):
                            client.sendall(data)
                            service.shutdown(socket.SHUT_WR)

        with self.service() as killed:
            killed.process.kill()
            killed.process.wait(WAIT)
            with socket.create_server((address, killed.port)) as listener:
                threading.Thread(target=serve, args=(listener,), daemon=True).start()
                with self.service("--listen", f"tcp:{port}:interface={address}") as service:
                    self.assertIn(
                        f"no other instance runs at {self.host}:{killed.port}: it leads here",
                        service.log,
                    )
                    self.assertEqual(self.leads_to(), port)
                listener.shutdown(socket.SHUT_RDWR)

    def leads_to(self) -> int | None:
        """The port to which the SCP leads a client; None: it leads nowhere."""
        connected = self.mutauth("connect", "-v", self.endpoint, given="hello\n")
        if connected.output != "hello\n":
            return None
        self.assertEqual(connected.code, 0, connected)
        return next(port for port in self.ports(connected.errors))

    def ports(self, told: str) -> list[int]:
        """The ports of the host that ``-v`` names."""
        words = told.replace(",", " ").split()
        return [
            int(word.rpartition(":")[2])
            for word in words
            if word.startswith(f"{self.host}:") and word[-1].isdecimal()
        ]
