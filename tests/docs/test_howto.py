"""The code of the how-to pages runs, page by page, and they name files that are there."""

import re

import pytest
from markdown_blocks import DOCS, blocks, run

PAGES = sorted((DOCS / "howto").glob("*.md"))
RUNNABLE = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        run(block, page, names)


GALLERY = DOCS / "_generated" / "gallery"
FIGURE = re.compile(r"images/sphx_glr_(plot_\w+)_\d{3}\.png$")


def source(target):
    """What must be there for a link to lead somewhere: pages that the build makes have scripts."""
    if not target.is_relative_to(GALLERY):
        return target
    made = target.relative_to(GALLERY).as_posix()
    made = FIGURE.sub(r"\1.rst", made)
    if made.endswith("index.rst"):
        return DOCS / "gallery" / made.replace("index.rst", "GALLERY_HEADER.rst")
    return (DOCS / "gallery" / made).with_suffix(".py")


def test_links_between_pages_lead_somewhere():
    broken = []
    for page in DOCS.rglob("*.md"):
        if "_build" in page.parts or "_generated" in page.parts:
            continue
        for link in re.findall(
            r"\]\(([^)#:]+\.(?:md|py|rst|png))(?:#[^)]*)?\)", page.read_text("utf-8")
        ):
            if not source((page.parent / link).resolve()).is_file():
                broken.append(f"{page.relative_to(DOCS)} -> {link}")
    assert broken == []


def test_the_adapter_reads_a_checkpoint_of_the_published_form(tmp_path, monkeypatch):
    """A dict with ``state_dict``, keys with ``module.``, as the published file has them."""
    import torch

    from conceptlab import SplitModel
    from conceptlab.models.load import load_model

    path = DOCS / "howto" / "resnet20_cifar.py"
    names = {"__name__": "adapter"}
    exec(compile(path.read_text("utf-8"), str(path), "exec"), names)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trained = names["ResNet20"]()
        images = torch.rand(3, 3, 32, 32)
    state = {f"module.{key}": value for key, value in trained.state_dict().items()}
    torch.save({"state_dict": state, "best_prec1": 91.7}, tmp_path / "resnet20.th")
    monkeypatch.setenv("CONCEPTLAB_RESNET20", str(tmp_path / "resnet20.th"))

    loaded = load_model(f"{path}:build")
    assert sum(p.numel() for p in loaded.model.parameters()) == 269_722  # 0.27 M, table 6
    split = SplitModel(loaded.model, loaded.layer, preprocess=loaded.preprocess)
    assert split.check(images) == 0.0
    assert (split.layout, split.grid, split.n_channels) == ("nchw", (8, 8), 64)
    expected = trained.eval()(loaded.preprocess(images))
    assert torch.equal(split.f(images), expected)


def test_the_adapter_says_which_variable_is_missing(monkeypatch):
    from conceptlab.errors import CheckpointError
    from conceptlab.models.load import load_model

    monkeypatch.delenv("CONCEPTLAB_RESNET20", raising=False)
    with pytest.raises(CheckpointError, match="CONCEPTLAB_RESNET20"):
        load_model(f"{DOCS / 'howto' / 'resnet20_cifar.py'}:build")
