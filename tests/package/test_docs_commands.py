"""The documents name what is there; the check that says so (pre-commit runs it too) finds what is not."""

import pytest

from tests.docs_commands import documents, problems


@pytest.mark.parametrize("document", documents(), ids=lambda d: d.name)
def test_documents_name_what_is_there(document):
    assert problems(document) == []


@pytest.mark.parametrize(
    "said, wrong",
    [
        ("`trainer.stepz=3`", "there is no key trainer.stepz"),
        ("`algorithm/kl=k9`", "algorithm/kl has no choice k9"),
        ("`make nothing`", "make has no target nothing"),
        ("`python tools/golden.py fill IN OUT --colum x`", "golden has no option --colum"),
        ("```\ntorchrun --nproc-per-node 2 \\\n    tools/trian.py\n```", "there is no command trian"),
        ("```bash\ngcpo-train algorithm=gcqo\n```", "algorithm has no choice gcqo"),
        ("```sh\npython -m gcpo_mcore.commands.train data.eval.hard.pth=x\n```", "there is no key data.eval.hard.pth"),
    ],
)
def test_what_is_not_there_is_named(tmp_path, said, wrong):
    document = tmp_path / "page.md"
    document.write_text(f"Text with `W = A + B` and `trainer.steps=3`.\n\n{said}\n")
    (found,) = problems(document)
    assert found.endswith(f": {wrong}")
