"""A scenario as cask 1.0 takes it."""


def setup(ask):
    return {"status": ask({"path": "/keepsake"}).status}


def request(turn):
    turn.expect = turn.chance.choice([200])
    return {"path": "/keepsake", "headers": {"X-Turn": f"{turn.number} {turn.id}"}}


def check(answer):
    assert answer.status == answer.turn.expect
    assert "keepkeep" in answer.text
    answer.metric("bytes", len(answer.body))
