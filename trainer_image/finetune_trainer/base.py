"""`finetune-trainer base`: links an adapter's base model to a fixed path, for a server that does not look it up.

Runs before vLLM starts, so that problems with the adapter or its base get a readable error.
"""

import argparse
import os

from finetune_api.exit_codes import ExitCode
from finetune_trainer.attempt import outcome
from finetune_trainer.errors import TrainerError
from finetune_trainer.models.base_place import stay_offline
from finetune_trainer.serving.artifact import open_artifact


def main(args: argparse.Namespace) -> int:
    """Find or download the base, and create the link, replacing one of an earlier try."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if not args.allow_hub:
        stay_offline()
    try:
        found = open_artifact(args.model, args.model_cache, allow_hub=args.allow_hub)
    except TrainerError as error:
        return outcome.complain(error)
    args.link.unlink(missing_ok=True)
    args.link.symlink_to(found.base.absolute(), target_is_directory=True)
    return ExitCode.OK
