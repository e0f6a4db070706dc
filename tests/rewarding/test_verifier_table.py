"""The table in docs/rewards.md is what the cases give now; a verifier that changes its mind shows here."""

from bench import verifier_table

CASES = verifier_table.read_cases()


def test_the_doc_has_what_the_script_writes():
    assert len({(c["gold"], c["response"]) for c in CASES}) == len(CASES)
    verdicts = verifier_table.graded(CASES)
    text = verifier_table.DOC.read_text(encoding="utf-8")
    written = text.partition(verifier_table.BEGIN)[2].partition(verifier_table.END)[0]
    assert written == verifier_table.table(CASES, verdicts)
    right, wrong = (
        [v for c, v in zip(CASES, verdicts, strict=True) if c["expected"] is side] for side in (True, False)
    )
    assert len(right) > 500 and right.count(True) >= 0.99 * len(right)
    assert len(wrong) > 500 and wrong.count(False) == len(wrong)
    assert f"| {len(CASES)} |" in text.partition(verifier_table.OTHERS_BEGIN)[2].partition(verifier_table.OTHERS_END)[0]
