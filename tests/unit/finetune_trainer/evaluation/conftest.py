"""Services of the evaluation tests, which are stopped after each."""

import pytest

from tests.unit.finetune_trainer.evaluation.services import Service


@pytest.fixture
def serve():
    running = []

    def start(answer):
        running.append(Service(answer))
        return running[-1]

    yield start
    for service in running:
        service.server.shutdown()
        service.server.server_close()
