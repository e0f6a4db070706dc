"""The table in docs/rewards.md is what the cases give now; a verifier that changes its mind shows here."""

from bench import verifier_table


def test_the_doc_has_what_the_script_writes():
    cases = verifier_table.read_cases()
    assert len(cases) >= 200 and {c["expected"] for c in cases} == {True, False}
    assert len({(c["gold"], c["response"]) for c in cases}) == len(cases)
    text = verifier_table.DOC.read_text(encoding="utf-8")
    written = text.partition(verifier_table.BEGIN)[2].partition(verifier_table.END)[0]
    assert written == verifier_table.table(cases, verifier_table.graded(cases))
