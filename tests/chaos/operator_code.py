"""The operator's code as syntax trees.

Made when tests are collected, before plays begin in a thread of their own: Python 3.11 cannot make trees in two threads
at once ("AST constructor recursion depth mismatch"), and what serves S3 to the plays makes some.
"""

import ast

from tests.chaos.operators import ROOT

TREES = tuple(
    ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "operator/finetune_operator").rglob("*.py"))
)
