"""Answers that outlive their process: whole lines only, and only for the same question to the same one."""

import json

from finetune_trainer.evaluation.kept import Answer, KeptAnswers

SAID = [Answer(0, "red"), Answer(1, 'two\nlines "quoted" \u2028', 7), Answer(2, "half a pair: \ud83e")]


def test_what_was_kept_is_there_for_the_next_process(tmp_path):
    kept = KeptAnswers(tmp_path, "tuned", "key")
    kept.add(SAID[:1])
    kept.add(SAID[1:])
    again = KeptAnswers(tmp_path, "tuned", "key")
    assert (list(again.texts(3)), again.prompt_tokens) == ([one.text for one in SAID], 7)


def test_half_a_line_is_forgotten_and_what_comes_next_is_whole(tmp_path):
    KeptAnswers(tmp_path, "tuned").add(SAID)
    (path,) = (tmp_path / "evaluation").iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    again = KeptAnswers(tmp_path, "tuned")
    assert [row in again for row in range(3)] == [True, True, False]
    again.add([Answer(2, "blue")])
    assert [json.loads(line)["row"] for line in path.read_text().split("\n")[:-1]] == [0, 1, 2]


def test_answers_to_other_questions_do_not_count(tmp_path):
    KeptAnswers(tmp_path, "tuned", "data", 8).add(SAID)
    for who, *depends_on in (("tuned", "data", 9), ("tuned", "other", 8), ("zeroShot", "data", 8)):
        assert len(KeptAnswers(tmp_path, who, *depends_on)) == 0


def test_a_pod_that_is_being_replaced_may_write_beside_its_successor(tmp_path):
    old, new = (KeptAnswers(tmp_path, "tuned", "key") for _ in range(2))
    for row in range(3):
        old.add([Answer(row, f"old {row}")])
        new.add([Answer(row, f"{row}: new")])
    assert list(new.texts(3)) == [f"{row}: new" for row in range(3)]
    assert len(KeptAnswers(tmp_path, "tuned", "key")) == 3
