"""Puts the contract with the operator into the trainer's wheel; an editable install gets no copy of it."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ContractHook(BuildHookInterface[Any]):
    """Adds `finetune_api` from the operator's source root."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it builds; `version` is `standard` or `editable`."""
        if version == "standard":
            build_data["force_include"]["../operator/finetune_api"] = "finetune_api"
