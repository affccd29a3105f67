"""A service's state with something of everything."""

from __future__ import annotations

from mutauth_twisted.findings import Command, Finding
from mutauth_twisted.status.history import Minute
from mutauth_twisted.status.metrics import METRICS
from mutauth_twisted.status.snapshot import Refusal, Session, Snapshot

GONE = Finding(
    "spn-missing",
    "SPN x/y",
    "it is gone",
    ("as an administrator, run ", Command("mutauth", "spn", "add", "it's", "x y"), ", then wait"),
)
FULL = Snapshot(
    "echoSvc",
    ("127.0.0.1:9000",),
    {
        "sessions": 2,
        "sessions_limit": 10,
        "handshakes_total": {"allowed": 3, "access-denied": 1},
        "handshake_duration_seconds": METRICS["handshake_duration_seconds"].empty(),
        "keytab_kvno": 4,
        "directory_check_timestamp_seconds": 1000.5,
        "published": 0,
    },
    (GONE,),
    (
        Finding(
            "keys-exposed", "keytab /k", "all can read it", ("run ", Command("chmod", "o=", "/k"))
        ),
    ),
    False,
    (("SCP", "CN=x"),),
    (Session("a-1", "alice@TEST", "192.0.2.1:1", 5.0, 1, 2, "seal"),),
    (Refusal("a-2", "", "192.0.2.2:1", 6.0, GONE),),
    (Minute(1, 2, 3, 4),),
)
