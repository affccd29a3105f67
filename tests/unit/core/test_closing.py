"""How a connection ends: what must hold of every row of the table, and which way the reasons go."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.core.closing import TABLE, Action, Closing, Input, State

#: States of a connection that is over for the application.
OVER = (State.LEAVING, State.ABORTED, State.LOST)


def rows() -> Iterator[tuple[State, Input, State, tuple[Action, ...]]]:
    """Every row: where, on what, where to, and what is done."""
    for state, row in TABLE.items():
        for what, (follows, *actions) in row.items():
            yield state, what, follows, tuple(actions)


class TableTests(SynchronousTestCase):
    """The whole table."""

    def test_complete(self) -> None:
        """Every state stands in it and is reached; every input and every action is used."""
        self.assertEqual(set(TABLE), set(State))
        self.assertEqual({follows for _, _, follows, _ in rows()} | {State.OPEN}, set(State))
        self.assertEqual({what for _, what, _, _ in rows()}, set(Input))
        self.assertEqual({action for *_, actions in rows() for action in actions}, set(Action))

    def test_the_end_is_sent_once(self) -> None:
        """Our end of stream is sent where writes were still sent, and none are after it."""
        for state, what, follows, actions in rows():
            if Action.SEND_END in actions:
                self.assertEqual((state.sends, follows.sends), (True, False), (state, what))
                self.assertIs(actions[0], Action.SEND_END, (state, what))

    def test_no_end_is_forgotten(self) -> None:
        """A connection that ends in good order never stops sending without our end of stream."""
        for state, what, follows, actions in rows():
            if state.sends and not follows.sends and follows not in OVER:
                self.assertIn(Action.SEND_END, actions, (state, what))

    def test_no_way_back(self) -> None:
        """What has stopped being sent or delivered stays so, and what is over stays over."""
        for state, what, follows, _ in rows():
            self.assertLessEqual(follows.sends, state.sends, (state, what))
            self.assertLessEqual(follows.delivers, state.delivers, (state, what))
            self.assertTrue(follows in OVER or state not in OVER, (state, what))

    def test_the_application_is_told_once(self) -> None:
        """It is told of the loss whenever the network's connection is gone, and then only."""
        for state, what, follows, actions in rows():
            lost = (Action.TELL_LOST,) if what is Input.GONE else ()
            self.assertEqual(follows is State.LOST, what is Input.GONE, (state, what))
            self.assertEqual(actions if lost else (), lost, (state, what))
        self.assertEqual({state for state in State if Input.GONE not in TABLE[state]}, {State.LOST})

    def test_what_is_dropped(self) -> None:
        """Every fault drops a connection that is not yet dropped, and so does the last linger."""
        for state in set(State) - {State.ABORTED, State.LOST}:
            self.assertEqual(TABLE[state][Input.FAULT], (State.ABORTED, Action.ABORT), state)
        self.assertEqual(TABLE[State.LEAVING][Input.LINGERED], (State.ABORTED, Action.ABORT))

    def test_who_waits_goes_on(self) -> None:
        """A linger that was started leads on from the state that it was started in."""
        for _, what, follows, actions in rows():
            if Action.START_LINGER in actions:
                self.assertIn(Input.LINGERED, TABLE[follows], (what, follows))


class ReasonTests(SynchronousTestCase):
    """What the application is told in the end."""

    def told(self, *inputs: tuple[Input, str | None]) -> str | None:
        """The reason after all these inputs, of which the last is GONE."""
        closing = Closing("done")
        for what, reason in inputs:
            self.assertIsNot(closing.state, State.LOST)
            closing.happened(what, reason)
        self.assertIs(closing.state, State.LOST)
        self.assertEqual(closing.happened(Input.GONE, "again"), ())
        return closing.reason

    def test_the_networks(self) -> None:
        """Of a connection that was neither left nor aborted, the network's."""
        close = ((Input.CLOSE, None), (Input.PRODUCED, None), (Input.PEER_ENDED, None))
        for length in range(len(close) + 1):
            self.assertEqual(self.told(*close[:length], (Input.GONE, "network")), "network")

    def test_done(self) -> None:
        """Of one that was left in good order, that it is done, whatever becomes of the rest."""
        left = ((Input.PEER_ENDED, None), (Input.END_WITH_PEER, None))
        self.assertEqual(self.told(*left, (Input.GONE, "network")), "done")
        self.assertEqual(self.told(*left, (Input.LINGERED, None), (Input.GONE, "network")), "done")

    def test_limit(self) -> None:
        """Of one that a limit ended, the limit, though it is dropped in the end."""
        self.assertEqual(
            self.told((Input.LIMIT, "limit"), (Input.LINGERED, None), (Input.GONE, "network")),
            "limit",
        )

    def test_fault(self) -> None:
        """Of one that was dropped, the fault, also where it was left before; but the first only."""
        self.assertEqual(
            self.told(
                (Input.LIMIT, "limit"),
                (Input.FAULT, "fault"),
                (Input.FAULT, "another"),
                (Input.GONE, "network"),
            ),
            "fault",
        )
