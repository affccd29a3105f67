"""Kerberos' and GSSAPI's numbers, against the headers of the library that is in use."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.kerberos.codes import KRB5, Krb5, Routine, Supplementary


def defined(header: str) -> dict[str, str]:
    """Constants that a header of libkrb5's defines, by name."""
    prefix = subprocess.run(
        ["krb5-config", "--prefix"], capture_output=True, text=True, check=True
    ).stdout.strip()
    text = (Path(prefix) / "include" / header).read_text("utf-8")
    return dict(re.findall(r"#\s*define\s+(\w+)\s+(.+)", text.replace("\\\n", " ")))


class HeaderTests(SynchronousTestCase):
    """Every name has the number that MIT gives it."""

    def test_krb5(self) -> None:
        """Numbers of the table krb5, whose first ones are those of RFC 4120."""
        header = defined("krb5/krb5.h")
        for code in Krb5:
            name = re.sub(r"^(KDC|KRB)_", r"KRB5\1_", code.name)
            self.assertEqual(header[name], f"({KRB5 + code}L)", name)

    def test_major(self) -> None:
        """Routine errors and supplementary bits of RFC 2744."""
        header = defined("gssapi/gssapi.h")
        for code in Routine:
            value = header[f"GSS_S_{code.name}"]
            self.assertIn(f"{code >> 16}ul", value, code.name)
            self.assertIn("GSS_C_ROUTINE_ERROR_OFFSET", value)
        for bit in Supplementary:
            value = header[f"GSS_S_{bit.name}"]
            self.assertIn(f"+ {bit.bit_length() - 1})", value, bit.name)
