"""An object's health by our Argo CD scripts."""

from pathlib import Path
from typing import Any

from lupa.lua51 import LuaRuntime, lua_type

ARGOCD = Path(__file__).parents[3] / "helm/argocd"
SCRIPTS = ARGOCD / "finetune.dev"


def health(kind: str, obj: dict[str, Any]) -> tuple[str, str]:
    """Status and message, computed as Argo CD does: the script sees the object as the global `obj`."""
    lua = LuaRuntime(unpack_returned_tuples=True)
    lua.execute("getmetatable('').__index = nil")
    for library in ("io", "os", "package", "debug", "string"):  # not available to scripts in Argo CD
        lua.globals()[library] = None
    lua.globals().obj = lua.table_from(obj, recursive=True)
    answer = lua.execute((SCRIPTS / kind / "health.lua").read_text())
    assert lua_type(answer) == "table"
    return answer["status"], answer["message"]
