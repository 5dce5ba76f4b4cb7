"""Pruning deletes what lies inside the root, and nothing else."""

import argparse

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_trainer import prune


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    for name in ("old/model", "new/model"):
        (root / name).mkdir(parents=True)
        (root / name / "weights").write_text("x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("x")
    return root


def run(root, *folders):
    return prune.main(argparse.Namespace(folders=list(folders), root=root, endpoint=None))


def test_folders_inside_the_root_are_deleted_and_again_is_fine(root, capsys):
    assert run(root, root / "old") == ExitCode.OK
    assert [path.name for path in root.iterdir()] == ["new"]
    assert run(root, root / "old") == ExitCode.OK
    assert capsys.readouterr().err.splitlines() == [f"{root / 'old'} was deleted", f"{root / 'old'} was not there"]


@pytest.mark.parametrize("name", ["../outside", ".", "..", "old/..", "../root", "/etc", "old/../../outside"])
def test_what_is_not_inside_the_root_is_refused_and_nothing_is_deleted(root, name, capsys):
    assert run(root, root / "new", root / name) == ExitCode.SPEC_INVALID
    assert "is not inside" in capsys.readouterr().err
    assert (root / "new" / "model" / "weights").exists()
    assert (root.parent / "outside" / "kept").exists()


def test_a_link_is_deleted_and_what_it_leads_to_stays(root):
    (root / "link").symlink_to(root.parent / "outside")
    assert run(root, root / "link") == ExitCode.OK
    assert not (root / "link").is_symlink()
    assert (root.parent / "outside" / "kept").exists()


def test_a_path_through_a_link_out_of_the_root_is_refused(root):
    (root / "link").symlink_to(root.parent)
    assert run(root, root / "link" / "outside") == ExitCode.SPEC_INVALID
    assert (root.parent / "outside" / "kept").exists()


def test_a_root_that_is_a_link_is_what_it_leads_to(root):
    other = root.parent / "other"
    other.symlink_to(root)
    assert run(other, root / "old") == ExitCode.OK
    assert not (root / "old").exists()
