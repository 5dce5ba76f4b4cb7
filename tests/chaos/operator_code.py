"""The operator's code as syntax trees.

Built at collection, before plays start in their own thread: Python 3.11 cannot build ASTs in two threads at once ("AST
constructor recursion depth mismatch"), and the plays' S3 server builds some.
"""

import ast

from tests.chaos.operators import ROOT

TREES = tuple(
    ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "operator/finetune_operator").rglob("*.py"))
)
