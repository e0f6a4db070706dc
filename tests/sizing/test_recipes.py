"""docs/layouts.md has what doctor's estimate says today."""

from bench.layout_recipes import PAGE, RECIPES, filled


def test_the_page_has_the_estimates():
    text = PAGE.read_text()
    assert filled(text) == text, "python bench/layout_recipes.py writes it"


def test_every_size_and_number_of_gpus_has_a_line():
    sizes = {"qwen2.5-1.5b", "qwen2.5-7b", "qwen2.5-14b", "yi-1.5-34b"}
    assert {(one.model, one.gpus) for one in RECIPES} == {(size, gpus) for size in sizes for gpus in (1, 8, 64)}
