"""The figures in the documents are those of the results beside them."""

import pytest

from bench import results_readme


@pytest.mark.parametrize("path", results_readme.DOCUMENTS, ids=lambda path: path.name)
def test_documents_have_the_figures_of_the_results(path):
    text = path.read_text()
    assert len(results_readme.FIGURE.findall(text)) >= 5
    assert results_readme.filled(text) == text
    assert text.count("<!---->") == len(results_readme.FIGURE.findall(text))  # every end has a beginning


def test_figures_are_those_of_the_reports():
    """The report of gcpo_vs_dapo_vs_grpo says: gcpo 0.938 ± 0.034, to supervised +0.031 [-0.002, +0.065]."""
    assert results_readme.figure("cell", "gcpo_vs_dapo_vs_grpo", "hard", "gcpo") == "0.94 ± 0.03"
    change = results_readme.figure("change", "gcpo_vs_dapo_vs_grpo", "hard", "gcpo", "supervised")
    effect = results_readme.figure("effect", "gcpo_vs_dapo_vs_grpo", "hard", "variant", "gcpo", "supervised")
    assert change == effect == "+0.03 (-0.00 to +0.06)"
    assert results_readme.figure("cell", "gcpo_vs_dapo_vs_grpo", "golden_injected", "gcpo") == "210 ± 55"
