"""The main job with the real commands, and every foreseeable mistake as one clear line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from mutauth_twisted.service.exitcode import CUT
from tests.integration.commands import CHECKOUT, INTERRUPTIBLE, CommandTestCase


class MainJobTests(CommandTestCase):
    """The administrator installs, the service serves, a user connects."""

    def test_the_whole_procedure(self) -> None:
        """install, serve, connect, stop and uninstall work one after the other, and say what they
        did.
        """
        installed = self.install()
        self.assertEqual(installed.code, 0, installed)
        for word in ("created SCP", "granted right to update", "added SPN", "cached GUID"):
            self.assertIn(word, installed.output)
        with self.service() as service:
            for word in ("found by its GUID", "svc-echo holds", "SCP updated"):
                self.assertIn(word, service.log)
            connected = self.mutauth("connect", "-v", self.endpoint, given="hello\n")
            self.assertEqual((connected.code, connected.output), (0, "hello\n"), connected)
            self.assertIn(f"authenticated as {self.service_class}/{self.host}/", connected.errors)
            self.assertEqual(service.stop(), 0)
        self.assertIn("alice@LAB.EXAMPLE", service.log)
        self.assertIn("SCP withdrawn", service.log)
        removed = self.mutauth("uninstall", *self.common, *self.directory, user="administrator")
        self.assertEqual(removed.code, 0, removed)
        self.assertIn("removed SPN", removed.output)
        self.assertIn("deleted SCP", removed.output)
        self.assertEqual(list(Path(self.state).iterdir()), [])
        again = self.mutauth("uninstall", *self.common, *self.directory, user="administrator")
        self.assertEqual(again.code, 0)
        self.assertIn("nothing", again.output)

    def test_many_bytes(self) -> None:
        """A stream of several megabytes comes back whole through standard input and output."""
        self.install()
        sent = "".join(f"{number:7}\n" for number in range(400_000))
        with self.service():
            connected = self.mutauth("connect", self.endpoint, given=sent)
        self.assertEqual(connected.code, 0, connected.errors)
        self.assertTrue(
            connected.output == sent, f"{len(connected.output)} of {len(sent)} characters"
        )

    def test_in_front_of_a_plain_service(self) -> None:
        """--forward passes an authenticated client's bytes to a plain service, and its answer back,
        half- close included.
        """
        self.install()

        def answer(connection: socket.socket) -> None:
            question = b""
            while piece := connection.recv(4096):
                question += piece
            connection.sendall(question.upper())

        with self.peer(answer) as port, self.service("--forward", f"tcp:127.0.0.1:{port}"):
            connected = self.mutauth("connect", self.endpoint, given="hello\n")
        self.assertEqual((connected.code, connected.output), (0, "HELLO\n"), connected)

    def test_local_port(self) -> None:
        """connect --listen leads local connections to the service, one after the other, and says
        why one fails.
        """
        self.install()
        with self.forwarder(self.endpoint) as local:
            with self.service():
                for word in (b"one", b"two"):
                    self.assertEqual(self.ask(local.port, word), word)
            self.assertEqual(self.ask(local.port, b"three"), b"")
            local.stop()
        self.assertIn("has published no port", local.log)
        self.assertNotIn("Traceback", local.log)

    def ask(self, port: int, question: bytes) -> bytes:
        """What a local port answers, up to the end of its stream; nothing when it is reset."""
        answer = b""
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(question)
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while piece := connection.recv(4096):
                    answer += piece
        return answer

    def test_status(self) -> None:
        """--status says over HTTP that all is right, and what an administrator broke as soon as
        that is noticed.
        """
        installed = self.install()
        status = ("--status", "tcp:0:interface=127.0.0.1", "--check-interval", "0.2")
        with self.service(*status) as service:
            line = next(line for line in service.lines if "status on" in line)
            url = f"http://127.0.0.1:{line.rsplit(':', 1)[1].strip()}"
            self.assertEqual(self.get(f"{url}/health")[0], 200)
            self.assertIn(
                f"serving on {self.lab.address_of(self.host)}:{service.port}",
                self.get(f"{url}/")[1],
            )
            spn = installed.output.partition("added SPN ")[2].partition(" to ")[0]
            words = ("spn", "delete", "svc-echo", spn, "--nameserver", self.lab.nameserver)
            self.assertEqual(self.mutauth(*words, user="administrator").code, 0)
            give_up_at = time.monotonic() + 20
            while (answer := self.get(f"{url}/health"))[0] == 200 and time.monotonic() < give_up_at:
                time.sleep(0.2)
            self.assertEqual(answer[0], 503)
            self.assertIn(spn, json.loads(answer[1])["wrong"][0]["subject"])

    def await_code(self, url: str, code: int) -> str:
        """Ask until the answer has this code; its body."""
        give_up_at = time.monotonic() + 20
        while (answer := self.get(url))[0] != code:
            self.assertLess(time.monotonic(), give_up_at, answer)
            time.sleep(0.1)
        return str(answer[1])

    def test_keytab_gone(self) -> None:
        """A service without its keytab says so as an error, once for all clients, and is unhealthy
        until it is back.
        """
        self.install()
        keytab = Path(self.state) / "service.keytab"
        content = self.lab.keytab("svc-echo").read_bytes()
        keytab.write_bytes(content)
        status = ("--status", "tcp:0:interface=127.0.0.1", "--keytab", str(keytab))
        with self.service(*status) as service:
            line = next(line for line in service.lines if "status on" in line)
            url = f"http://127.0.0.1:{line.rsplit(':', 1)[1].strip()}/health"
            self.assertEqual(self.mutauth("connect", self.endpoint, given="hello").output, "hello")
            keytab.unlink()
            body = self.await_code(url, 503)  # before any client has failed
            (wrong,) = json.loads(body)["wrong"]
            self.assertEqual(
                (wrong["code"], wrong["subject"]), ("keytab-unusable", f"keytab {keytab}")
            )
            for _ in range(2):
                self.refused(self.mutauth("connect", self.endpoint, given="hello"), 4)
            self.assertEqual(self.get(url)[0], 503)
            keytab.write_bytes(content)
            self.await_code(url, 200)
            self.assertEqual(self.mutauth("connect", self.endpoint, given="hello").output, "hello")
            service.stop()
        said = [line for line in service.lines if "handshake with " in line and str(keytab) in line]
        self.assertEqual(["#error" in line for line in said], [True, False], service.log)
        self.assertIn(f"no longer: [keytab-unusable] keytab {keytab}", service.log)

    def test_second_signal(self) -> None:
        """A second SIGTERM, while a client is still connected, is noted, and the stop goes on."""
        self.install()
        with self.service() as service:
            client = subprocess.Popen(
                [*self.program("mutauth"), "connect", self.endpoint],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self.environment("alice"),
            )
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write(b"hello\n")
            client.stdin.flush()
            self.assertEqual(client.stdout.readline(), b"hello\n")
            service.process.send_signal(signal.SIGTERM)
            assert service.process.stdout is not None
            for line in service.process.stdout:
                service.lines.append(line)
                if "SCP withdrawn" in line:  # from now on it waits for the client
                    service.process.send_signal(signal.SIGTERM)
                    break
            self.assertEqual(service.stop(), CUT)
        client.communicate()
        self.assertIn("SIGTERM again: stopping already", service.log)
        self.assertIn("1 had not ended within 5 s, and were cut", service.log)
        self.assertNotIn("ReactorNotRunning", service.log)

    def test_interrupted_imports(self) -> None:
        """Ctrl-C before everything is imported ends in the same line as later, and no traceback."""
        (Path(self.state) / "krb5.py").write_text(
            "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
        )
        process = subprocess.Popen(
            [*INTERRUPTIBLE, *self.program("mutauth"), "scp", "--help"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment("alice", PYTHONPATH=f"{self.state}:{CHECKOUT}"),
        )
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), "importing\n")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        self.assertEqual((process.returncode, errors), (130, "mutauth: interrupted\n"))

    def test_endpoints_are_checked_first(self) -> None:
        """What cannot be listened on is wrong usage before the directory is asked, which is not
        there here.
        """
        for option, text in (
            ("--status", "tcp:nothing"),
            ("--status", "tcp:70000"),
            ("--listen", "bogus:1"),
            ("--listen", "tcp:99999:interface=127.0.0.1"),
        ):
            ended = self.start_refused(option, text, "--nameserver", "127.0.0.253")
            self.refused(ended, 2, f"endpoint {text}", "server endpoint")

    def get(self, url: str) -> tuple[int, str]:
        """The code and the body of a page."""
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def test_selectors(self) -> None:
        """The SCP's DN and its GUID find the service as its keyword does, in both forms of the
        SPN.
        """
        lines = self.install().output
        guid = lines.partition("cached GUID ")[2].split()[0]
        dn = lines.partition("created SCP ")[2].partition(" (GUID")[0]
        with self.service():
            for selector in (dn, guid):
                for form in ("dn", "guid"):
                    endpoint = (
                        f"mutauth:scp={selector}:nameserver={self.lab.nameserver}:spn-form={form}"
                    )
                    connected = self.mutauth("connect", "-v", endpoint, given="hello\n")
                    self.assertEqual((connected.code, connected.output), (0, "hello\n"), connected)
                    self.assertIn(
                        dn if form == "dn" else guid,
                        connected.errors.partition("authenticated as")[2],
                    )

    def test_without_the_cached_guid(self) -> None:
        """A service whose cached GUID is lost finds its SCP by its DN, and says so."""
        self.install()
        for file in Path(self.state).iterdir():
            file.unlink()
        with self.service() as service:
            self.assertIn("by its DN", service.log)


class ServiceRefusalTests(CommandTestCase):
    """A service that may not start."""

    def refused_start(
        self, code: int, *words: str, options: tuple[str, ...] = (), **how: str
    ) -> None:
        ended = self.start_refused(*options, **how)
        self.assertEqual(ended.code, code, ended)
        self.assertNotIn("Traceback", ended.output + ended.errors)
        if ended.errors:
            self.refused(ended, code, *words)
            return
        line = next(line for line in ended.output.splitlines() if "does not start" in line)
        for word in words:
            self.assertIn(word, line)

    def test_not_installed(self) -> None:
        """Without an SCP it names the command that creates it."""
        self.refused_start(1, self.service_class, "run mutauth install --service-class")

    def test_spoilt_cache(self) -> None:
        """A cached GUID that is invalid ends the service at once, although the directory was not
        even asked.
        """
        self.install()
        (file,) = Path(self.state).iterdir()
        file.write_text("no GUID")
        self.refused_start(3, self.state, "remove the file")
        file.unlink()  # uninstall does not take it for one either

    def test_missing_spn(self) -> None:
        """Without an SPN it names the SPN, the account, and the command that fixes it."""
        self.install("--spn-form", "guid")
        self.refused_start(
            1, f"{self.service_class}/{self.host}/CN=", "svc-echo", "run mutauth install"
        )

    def test_host_without_a_computer(self) -> None:
        """A host that is in no domain is sent to what has to come first, and not to an installation
        that would say so.
        """
        words = (
            "host nowhere.lab.example: no computer object has this dNSHostName; join the host, or "
            "name the SCP's parent"
        )
        self.refused_start(1, words, options=("--host", "nowhere.lab.example"))

    def test_missing_spn_may_be_let_pass(self) -> None:
        """--spn-check warn starts and warns."""
        self.install("--spn-form", "guid")
        with self.service("--spn-check", "warn") as service:
            self.assertIn("is not on account svc-echo", service.log)

    def test_spn_on_another_account(self) -> None:
        """It does not run under an account that does not hold the SPNs, and names the one that
        does.
        """
        self.install()
        keytab = str(self.lab.keytab("svc-other"))
        self.refused_start(1, "svc-echo", "svc-other", options=("--keytab", keytab))

    def test_missing_keytab(self) -> None:
        """A keytab that is not there."""
        self.refused_start(
            4, "/nonexistent/keytab", "no such file", options=("--keytab", "/nonexistent/keytab")
        )

    def test_unreadable_keytab(self) -> None:
        """A keytab without the right to read it."""
        keytab = Path(self.state) / "keytab"
        keytab.write_bytes(self.lab.keytab("svc-echo").read_bytes())
        keytab.chmod(0)
        ended = self.command(
            "twistd",
            *self.service_words("--keytab", str(keytab)),
            # Root may read everything; root without these two capabilities may not.
            prefix=("setpriv", "--bounding-set=-dac_override,-dac_read_search"),
        )
        self.refused(ended, 4, str(keytab), "permission denied")

    def test_not_a_keytab(self) -> None:
        """A file that is not a keytab."""
        self.refused_start(4, "/etc/hostname", options=("--keytab", "/etc/hostname"))

    def test_wrong_account(self) -> None:
        """A keytab without a key of the account."""
        self.refused_start(4, "svc-other", "svc-echo", options=("--account", "svc-other"))

    def test_dns_down(self) -> None:
        """A DNS server that does not answer."""
        self.refused_start(
            3, "127.0.0.99", "does not answer", options=("--nameserver", "127.0.0.99")
        )

    def test_directory_down(self) -> None:
        """A domain controller that does not answer is named, with what was tried."""
        host = self.lab.host("srv2")  # it has an address, and no directory behind it
        self.refused_start(3, host, options=("--directory", f"ldap://{host}"))

    def test_kdc_down(self) -> None:
        """A KDC that does not answer."""
        conf = Path(self.state) / "krb5.conf"
        conf.write_text(
            self.lab.krb5_conf.read_text().replace(
                f"kdc = {self.lab.nameserver}", "kdc = 127.0.0.99"
            )
        )
        self.assertIn("127.0.0.99", conf.read_text())
        self.refused_start(3, "KDC", KRB5_CONFIG=str(conf))

    def test_usage(self) -> None:
        """Options that cannot be."""
        cases: dict[tuple[str, ...], tuple[str, ...]] = {
            ("--bogus",): ("--bogus",),
            ("--listen", "tcp:99999"): ("99999",),
            ("--listen", "nonsense:1"): ("nonsense",),
            ("--listen", "unix:socket"): ("unix:socket", "--publish none"),
            ("--priority", "70000"): ("priority",),
            ("--wire", "carrier-pigeon"): ("carrier-pigeon",),
            ("--allow", "alice"): ("alice@REALM",),
            ("--spn-form", "sideways"): ("sideways",),
            ("--factory", "no.such.thing"): ("no.such.thing",),
            ("--handshake-timeout", "never"): ("handshake-timeout",),
        }
        self.install()
        for options, words in cases.items():
            self.refused_start(2, *words, options=options)

    def test_port_taken(self) -> None:
        """A port that is taken; nothing is published."""
        self.install()
        with socket.create_server((self.lab.address_of(self.host), 0)) as taken:
            port = taken.getsockname()[1]
            listen = f"tcp:{port}:interface={self.lab.address_of(self.host)}"
            self.refused_start(3, str(port), "in use", options=("--listen", listen))
        ended = self.mutauth("connect", self.endpoint)
        self.refused(ended, 1, self.service_class, "published")


class ClientRefusalTests(CommandTestCase):
    """A connection that cannot be."""

    def refused_connection(self, endpoint: str, code: int, *words: str, **how: str) -> None:
        self.refused(self.mutauth("connect", endpoint, given="a secret", **how), code, *words)

    def installed_spn(self) -> str:
        """An SPN for which there is a ticket to be had, so that the handshake begins."""
        return self.install().output.partition("added SPN ")[2].partition(" to ")[0]

    def direct(self, port: int, spn: str) -> str:
        return f"mutauth:tcp\\:127.0.0.1\\:{port}:spn={spn}:timeout=5"

    def test_unknown_keyword(self) -> None:
        """A keyword that nobody published, however it is spelled."""
        self.refused_connection(self.endpoint, 1, self.service_class)
        hostile = self.endpoint.replace(self.service_class, "*)(objectClass=*")
        self.refused_connection(hostile, 2, "*)(objectClass=*", "valid service class")
        self.refused_connection(f"{hostile}:class=echoSvc", 1, "*)(objectClass=*")

    def test_no_binding_information(self) -> None:
        """An SCP whose service has not published its port."""
        self.install()
        self.refused_connection(self.endpoint, 1, self.service_class, "running")

    def test_wrong_spn(self) -> None:
        """An SPN that nobody registered."""
        with self.peer(lambda connection: connection.recv(1)) as port:
            self.refused_connection(
                self.direct(port, f"{self.service_class}/{self.host}"), 4, self.service_class
            )

    def test_no_ticket(self) -> None:
        """No ticket cache."""
        with self.peer(lambda connection: connection.recv(1)) as port:
            self.refused_connection(
                self.direct(port, "echoSvc/srv1"),
                4,
                "no Kerberos ticket",
                "kinit",
                KRB5CCNAME="FILE:/nonexistent/cc",
            )
        self.refused_connection(self.endpoint, 4, "ticket", KRB5CCNAME="FILE:/nonexistent/cc")

    def test_expired_ticket(self) -> None:
        """A ticket whose time is over."""
        cache = str(Path(self.state) / "ccache")
        keytab = str(self.lab.keytab("alice"))
        # krb5 takes lifetimes in whole seconds; the KDC's clock is ours.
        kinit = ["kinit", "-k", "-t", keytab, "-l", "1s", "-c", cache, self.lab.principal("alice")]
        subprocess.run(kinit, env=self.environment("alice"), check=True, timeout=10)
        time.sleep(2)
        with self.peer(lambda connection: connection.recv(1)) as port:
            self.refused_connection(
                self.direct(port, "echoSvc/srv1"), 4, "expired", "kinit", KRB5CCNAME=cache
            )

    def test_unreadable_configuration(self) -> None:
        """A krb5.conf that cannot be read, as after someone else's environment was taken over."""
        ended = self.command(
            "mutauth",
            "connect",
            self.endpoint,
            prefix=("setpriv", "--bounding-set=-dac_override,-dac_read_search"),
            KRB5_CONFIG=str(self.unreadable()),
        )
        self.refused(ended, 4, "krb5.conf", "KRB5_CONFIG")

    def unreadable(self) -> Path:
        path = Path(self.state) / "krb5.conf"
        path.touch()
        path.chmod(0)
        return path

    def test_interrupted(self) -> None:
        """Ctrl-C on an established connection is an interrupt, and no fault of the peer."""
        self.install()
        with self.service():
            process = subprocess.Popen(
                [*INTERRUPTIBLE, *self.program("mutauth"), "connect", "-v", self.endpoint],
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=self.environment("alice"),
                cwd=self.state,
            )
            assert process.stderr is not None
            while "authenticated as" not in process.stderr.readline():
                pass
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=10)
            self.assertEqual(
                (process.returncode, errors.split()), (130, ["mutauth:", "interrupted"])
            )

    def test_closed_port(self) -> None:
        """A port where nothing listens."""
        spn = self.installed_spn()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.refused_connection(self.direct(port, spn), 3, f"127.0.0.1:{port}", "refused")

    def test_unresolvable_host(self) -> None:
        """A host that does not resolve."""
        spn = self.installed_spn()
        self.refused_connection(
            f"mutauth:tcp\\:nowhere.invalid\\:1:spn={spn}", 3, "nowhere.invalid", "resolve"
        )

    def test_another_protocol(self) -> None:
        """A peer that speaks something else."""
        spn = self.installed_spn()
        with self.peer(
            lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n") or time.sleep(1)
        ) as port:
            self.refused_connection(
                self.direct(port, spn), 4, f"127.0.0.1:{port}", "another protocol"
            )

    def test_closed_midway(self) -> None:
        """A peer that takes the token and closes."""
        spn = self.installed_spn()
        with self.peer(lambda connection: connection.recv(65536)) as port:
            self.refused_connection(
                self.direct(port, spn), 3, f"127.0.0.1:{port}", "closed the connection"
            )

    def test_silence(self) -> None:
        """A peer that never answers."""
        spn = self.installed_spn()
        with self.peer(lambda connection: time.sleep(3)) as port:
            endpoint = self.direct(port, spn).replace("timeout=5", "timeout=1")
            self.refused_connection(endpoint, 3, f"127.0.0.1:{port}", "within 1 s")

    def test_denied(self) -> None:
        """An authenticated client whom the policy does not allow learns a code, and that it was
        refused.
        """
        self.install()
        with self.service("--allow", "bob@LAB.EXAMPLE") as service:
            self.refused_connection(self.endpoint, 4, "access policy")
            allowed = self.mutauth("connect", self.endpoint, given="hi\n", user="bob")
            self.assertEqual((allowed.code, allowed.output), (0, "hi\n"))
            service.stop()
        self.assertIn("alice@LAB.EXAMPLE", service.log)

    def test_told_once(self) -> None:
        """With -v what went wrong is the last step that is told, and is not told again."""
        self.install()
        with self.service("--allow", "bob@LAB.EXAMPLE"):
            told = self.mutauth("connect", "-v", self.endpoint)
        self.assertEqual((told.code, told.errors.count("access policy")), (4, 1), told)

    def test_session_over(self) -> None:
        """A session that the service ends, while there may be more to say, is said to have ended;
        the code is 0.
        """
        self.install()
        with self.service("--max-session", "1"):
            process = subprocess.Popen(
                [*self.program("mutauth"), "connect", self.endpoint],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=self.environment("alice"),
                cwd=self.state,
            )
            self.addCleanup(process.kill)
            process.wait(15)
            output, errors = process.communicate()
        self.assertEqual((process.returncode, output, len(errors.splitlines())), (0, "", 1), errors)
        self.assertIn("the service has ended the session", errors)

    def test_impostor(self) -> None:
        """A service with the key of another account cannot use the ticket."""
        self.install()
        with self.service():
            other = (
                "--keytab",
                str(self.lab.keytab("svc-other")),
                "--publish",
                "none",
                "--spn-check",
                "off",
            )
            with self.service(*other) as impostor, self.service() as genuine:
                spn = genuine.log.partition("svc-echo holds ")[2].partition(",")[0]
                endpoint = (
                    f"mutauth:tcp\\:{self.lab.address_of(self.host)}\\:{impostor.port}:spn={spn}"
                )
                self.refused_connection(endpoint, 4, "refused the ticket", "another key")
                impostor.stop()
            self.assertIn("another key", impostor.log)
            self.assertNotIn("authenticated as", impostor.log)

    def test_usage(self) -> None:
        """Endpoint strings that cannot be."""
        cases = {
            "tcp:127.0.0.1:1": "proves nothing",
            "mutauth:tcp": "spn",
            "mutauth:scp=x:bogus=1": "bogus",
            "mutauth:scp=x:wire=pigeon": "pigeon",
            "mutauth:scp=x:protection=none": "none",
            "mutauth:scp=x:timeout=-1": "timeout",
            "mutauth:scp=x:nameserver=dns.example": "dns.example",
            "mutauth:scp=x:directory=ldap\\://127.0.0.1": "127.0.0.1",
            "mutauth:scp=x:spn-form=sideways": "sideways",
            self.direct(99999, self.installed_spn()): "99999",
            "mutauth:tcp\\:127.0.0.1\\:1:spn=a": "SPN",
            "mutauth:nonsense\\:1:spn=a/b": "nonsense",
        }
        for endpoint, word in cases.items():
            self.refused_connection(endpoint, 2, word)
        for listen in ("tcp:99999", "nonsense:1"):
            self.refused(self.mutauth("connect", self.endpoint, "--listen", listen), 2, listen)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            self.refused(
                self.mutauth("connect", self.endpoint, "--listen", listen), 3, listen, "in use"
            )


class InstallRefusalTests(CommandTestCase):
    """An installation that cannot be, and leaves nothing half done."""

    def test_without_the_rights(self) -> None:
        """A user who is not an administrator."""
        words = ("install", *self.common, "--account", "svc-echo", *self.directory)
        self.refused(self.mutauth(*words, user="alice"), 3, "CN=" + self.service_class)
        self.refused_later()

    def refused_later(self) -> None:
        """Nothing was left: the same name is unknown to clients and to uninstall."""
        removed = self.mutauth("uninstall", *self.common, *self.directory, user="administrator")
        self.assertIn("nothing", removed.output)

    def test_unknown_account(self) -> None:
        """An account that is not there."""
        words = ("install", *self.common, "--account", "nobody-here", *self.directory)
        self.refused(self.mutauth(*words, user="administrator"), 1, "nobody-here")
        self.refused_later()

    def test_unknown_host(self) -> None:
        """A host without a computer object."""
        words = (
            "install",
            "--service-class",
            "x",
            "--host",
            "nowhere.lab.example",
            "--account",
            "svc-echo",
        )
        self.refused(
            self.mutauth(*words, *self.directory, user="administrator"), 1, "nowhere.lab.example"
        )

    def test_interrupted(self) -> None:
        """Ctrl-C, SIGTERM and a closed terminal in the middle: what was begun is finished, and then
        said.
        """
        words = ("install", *self.common, "--account", "svc-echo", *self.directory)
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process = subprocess.Popen(
                [*self.program("mutauth"), *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=self.environment("administrator"),
                cwd=self.state,
            )
            assert process.stdout is not None
            self.assertIn("created SCP", process.stdout.readline())
            process.send_signal(signum)
            output, errors = process.communicate(timeout=30)
            self.assertEqual(process.returncode, 0, errors)
            self.assertIn("is ready to run as", output)
            with self.service():
                pass
            removed = self.mutauth("uninstall", *self.common, *self.directory, user="administrator")
            self.assertIn("deleted SCP", removed.output)

    def test_interrupted_twice(self) -> None:
        """A second signal, and a third, are noted in a line, and what was begun is finished all the
        same.
        """
        words = ("install", *self.common, "--account", "svc-echo", *self.directory)
        self.addCleanup(self._uninstall)
        process = subprocess.Popen(
            [*self.program("mutauth"), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment("administrator"),
            cwd=self.state,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        self.assertIn("created SCP", process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        said = []
        while not said or "finishing what was begun" not in said[-1]:
            said.append(process.stderr.readline())
            self.assertNotEqual(said[-1], "")
        for signum in (signal.SIGTERM, signal.SIGINT):
            process.send_signal(signum)
        output, errors = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 0, errors)
        self.assertIn("is ready to run as", output)
        said += errors.splitlines()
        self.assertEqual([line for line in said if not line.startswith("mutauth: ")], [])
        self.assertNotIn("reactor", "".join(said))

    def test_not_utf8(self) -> None:
        """Arguments of any command that are not UTF-8 are named in one line."""
        bad = os.fsdecode(b"x\xff")
        for words in (
            ("connect", f"mutauth:scp=x:base={bad}"),
            ("scp", "find", bad),
            ("spn", "query", bad),
            ("install", *self.common, "--account", bad),
            ("uninstall", *self.common, "--scp-name", bad),
        ):
            self.refused(self.mutauth(*words), 2, "argument '", "\\udcff': it is not UTF-8")
        for option in (
            "--scp-name",
            "--scp-parent",
            "--account",
            "--deny-group",
            "--factory",
            "--allow",
            "--keytab",
        ):
            ended = self.start_refused(option, bad)
            self.refused(ended, 2, "argument 'x\\udcff': it is not UTF-8")

    def test_guid_cannot_be_cached(self) -> None:
        """A state directory that cannot be written: everything is undone."""
        words = (
            "install",
            *self.common,
            "--account",
            "svc-echo",
            "--nameserver",
            self.lab.nameserver,
        )
        ended = self.mutauth(*words, "--state-dir", "/proc/mutauth", user="administrator")
        self.refused(ended, 3, "/proc/mutauth", "--state-dir")
        self.assertIn("undone", ended.output)
        self.refused_later()

    def test_usage(self) -> None:
        """Options that cannot be."""
        self.refused(self.mutauth("install"), 2, "--service-class")
        self.refused(self.mutauth("install", "--bogus"), 2, "--bogus")
        self.refused(self.mutauth("bogus"), 2, "bogus")
        words = ("install", *self.common, "--account", "svc-echo", "--spn-form", "sideways")
        self.refused(self.mutauth(*words), 2, "sideways")
