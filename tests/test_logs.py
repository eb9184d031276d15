"""What is logged: a flood does not become a flood of lines."""

from recorder.logs import EVERY_SECONDS, SeldomLog


def test_repeated_event_is_logged_seldom_and_counted() -> None:
    """An event is logged at once, then at most once an interval, with how many were kept back."""
    now = 0.0
    written: list[tuple[str, dict[str, object]]] = []
    say = SeldomLog(lambda event, **details: written.append((event, details)), lambda: now)
    for _ in range(100):
        say("refused", peer="a")
    say("opened", peer="b")
    now = EVERY_SECONDS
    say("refused", peer="c")
    assert written == [
        ("refused", {"peer": "a"}),
        ("opened", {"peer": "b"}),
        ("refused", {"peer": "c", "and_as_many_more": 99}),
    ]
