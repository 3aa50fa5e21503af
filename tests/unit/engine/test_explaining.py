"""An explanation is work of its own: through the socket, and never in one batch with predictions."""

from __future__ import annotations

import time

from app.inference.results import ClassifyOptions, ExplainOptions, Explanation
from tests import fakes
from tests.fakes import RunningEngine


def test_an_explanation_comes_back_through_the_socket(running: RunningEngine) -> None:
    deadline = time.monotonic() + fakes.PATIENCE_SECONDS

    (answer,) = running.client.predict(running.model.manifest, [fakes.pixels(7)], [ExplainOptions("cone")], deadline)

    assert answer.answer == [Explanation("cone", 0.5, "cam", [[0.0, 1.0], [0.25, 0.5]])]


def test_predictions_and_explanations_share_no_batch(running: RunningEngine) -> None:
    deadline = time.monotonic() + fakes.PATIENCE_SECONDS
    params = [ClassifyOptions(), ExplainOptions("cone")] * 2

    running.client.predict(running.model.manifest, [fakes.pixels(n) for n in range(4)], params, deadline)

    assert all(len(kinds) == 1 for kinds in running.model.kinds)
    assert {kind for kinds in running.model.kinds for kind in kinds} == {ClassifyOptions, ExplainOptions}
