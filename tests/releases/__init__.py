"""Objects as released operators have left them: what an upgrade finds.

    0.1.0/running.yaml   a world: the team's objects, and the operator's Jobs, Deployments and Services
    0.1.0/whole.yaml     one object of each kind with every field of its status set

`python -m tests.releases` writes the folder of the release that is next. What a published release has left is never
written again: a release that cannot live with it breaks its users.
"""

from pathlib import Path

import yaml

from finetune_api.manifest import Manifest

FOLDER = Path(__file__).parent
WORLDS = ("running", "retrying", "suspended", "failed", "served")
WHOLE = "whole"
RELEASES = tuple(sorted(path.parent.name for path in FOLDER.glob(f"*/{WHOLE}.yaml")))


def objects(release: str, name: str) -> list[Manifest]:
    """All objects of a world, or of `WHOLE`."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return list(yaml.load_all((FOLDER / release / f"{name}.yaml").read_text(), loader))
