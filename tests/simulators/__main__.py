"""Runs one simulator as a process: `python -m tests.simulators openai --port 8080`."""

import argparse
import asyncio
import json
from contextlib import suppress
from pathlib import Path

from tests.simulators import certificates
from tests.simulators.azure import AzureSimulator
from tests.simulators.bedrock import BedrockSimulator
from tests.simulators.clock import START, Clock
from tests.simulators.openai import OpenAISimulator
from tests.simulators.sagemaker import SageMakerSimulator
from tests.simulators.server import run_for_ever

SIMULATORS = {
    "azure": AzureSimulator,
    "bedrock": BedrockSimulator,
    "openai": OpenAISimulator,
    "sagemaker": SageMakerSimulator,
}


def main() -> None:
    """Start the simulator that the command line names and print its address."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulators", description=__doc__)
    parser.add_argument("simulator", choices=sorted(SIMULATORS))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="simulated seconds per real second; 0: time stands still"
    )
    parser.add_argument("--start", type=float, default=START, help="seconds since 1970 at which simulated time starts")
    parser.add_argument("--tls", type=Path, metavar="FOLDER", help="speak TLS; the authority to trust is FOLDER/ca.pem")
    parser.add_argument("--name", action="append", default=[], help="with TLS: another name or address of this server")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help="change a setting")
    wanted = parser.parse_args()
    tls = certificates.make(wanted.tls, ("localhost", "127.0.0.1", wanted.host, *wanted.name)) if wanted.tls else None
    simulator = SIMULATORS[wanted.simulator](clock=Clock(wanted.start, wanted.rate))
    simulator.set(**{name: json.loads(value) for name, _, value in (change.partition("=") for change in wanted.set)})
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(run_for_ever(simulator, wanted.host, wanted.port, tls))
    finally:
        simulator.close()


if __name__ == "__main__":
    main()
