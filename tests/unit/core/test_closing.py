"""Ends of a connection: what must hold of every row of the table, and which way the reasons go."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.core.closing import TABLE, Action, Closing, Input, State

#: States of a connection that is over for the application.
OVER = (State.LEAVING, State.ABORTED, State.LOST)
LINGERS = {Action.START_LINGER, Action.START_LAST_LINGER}
CLOSES = {Action.CLOSE, Action.CLOSE_OUTPUT}
#: States in which nothing has to linger, and what bounds them.
BOUNDED_ELSEWHERE = {
    State.OPEN: "the application, and the service's limits",
    State.HALF_CLOSING: "the application's producer, and the service's limits",
    State.CLOSING: "the application's producer, and the service's limits",
    State.WRITE_CLOSED: "the application, which still reads, and the service's limits",
    State.PEER_ENDED: "the application, which is half-closeable, and the service's limits",
    State.FINISHING: "the application's producer, and the service's limits",
    State.ABORTED: "the network, which drops the connection at once",
    State.LOST: "final",
}


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
                self.assertIs(Action.SEND_END in actions, what is not Input.CUT, (state, what))

    def test_a_cut_is_never_an_end(self) -> None:
        """A stream that was cut is not ended for the peer, wherever its end was still to be said;
        all that was written goes before.
        """
        for state in State:
            follows, *actions = TABLE[state].get(Input.CUT, (state,))
            self.assertFalse(follows.sends and state not in OVER, state)
            self.assertNotIn(Action.SEND_END, actions)
            self.assertNotIn(Action.ABORT, actions)

    def test_no_way_back(self) -> None:
        """A direction that has stopped stays so, and a connection that is over stays over."""
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
            if LINGERS & set(actions):
                self.assertIn(Input.LINGERED, TABLE[follows], (what, follows))

    def test_every_wait_is_bounded(self) -> None:
        """Every row into a state starts a linger there, or something else bounds the state."""
        for state, what, follows, actions in rows():
            if follows not in BOUNDED_ELSEWHERE:
                self.assertTrue(LINGERS & set(actions), (state, what))
        for state in set(State) - set(BOUNDED_ELSEWHERE):
            self.assertIn(Input.LINGERED, TABLE[state], state)

    def test_the_application_has_no_say_in_the_bound(self) -> None:
        """A linger is started before the application is asked for anything that can fail, and where
        nothing is sent or delivered any more only a drop waits for the network.
        """
        for state, what, _, actions in rows():
            if LINGERS & set(actions) and Action.STOP_PRODUCER in actions:
                started = min(actions.index(each) for each in LINGERS & set(actions))
                stopped = actions.index(Action.STOP_PRODUCER)
                closed = min(actions.index(each) for each in CLOSES & set(actions))
                self.assertLess(closed, stopped, (state, what))
                self.assertLess(started, stopped, (state, what))
        dead = {state for state in BOUNDED_ELSEWHERE if not (state.sends or state.delivers)}
        self.assertEqual(dead, {State.ABORTED, State.LOST})

    def test_the_last_linger_is_the_last(self) -> None:
        """A linger that ends a linger, or a limit, is not prolonged by the peer, and ends in a
        drop.
        """
        for state, what, follows, actions in rows():
            if what in (Input.LINGERED, Input.LIMIT) and follows is State.LEAVING:
                self.assertIn(Action.START_LAST_LINGER, actions, (state, what))


class ReasonTests(SynchronousTestCase):
    """Reasons that the application is told in the end."""

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
