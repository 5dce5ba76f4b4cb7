"""Objects as written by released operators, for tests of upgrades.

    0.1.0/running.yaml   a namespace: the team's objects, and the operator's Jobs, Deployments and Services
    0.1.0/whole.yaml     one object of each kind with every field of its status set

`python -m tests.releases` writes the folder of the next release. Files of a published release are never rewritten: a
release that cannot handle them breaks its users.
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
