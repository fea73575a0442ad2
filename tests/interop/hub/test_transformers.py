"""The library transformers, and safetensors: a tiny model's configuration, tokenizer and weights, pushed and loaded.

Without torch, whose wheels are larger than all the rest together: what transformers asks of a Hub is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.interop.hub.calls import paths_of, titles
from tests.interop.hub.conftest import unused
from tests.support.hub import HubClient

pytest.importorskip("transformers", reason="needs transformers: pip install --group readers")

Files = Callable[..., str]


@pytest.fixture(scope="module")
def pushed(ann: HubClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A private model of two layers."""

    def push(repo: str, folder: str) -> None:
        import numpy
        from safetensors.numpy import save_file
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import BertConfig, PreTrainedTokenizerFast

        words = {"[UNK]": 0, "[PAD]": 1, "hello": 2, "world": 3}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
        config.push_to_hub(repo, private=True)
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")
        fast.push_to_hub(repo)
        config.save_pretrained(folder)
        save_file({"weight": numpy.arange(100_000, dtype="float32")}, f"{folder}/model.safetensors")
        from huggingface_hub import HfApi

        HfApi().upload_folder(repo_id=repo, folder_path=folder, commit_message="weights")

    repo = unused("tiny")
    ann.call(push, repo, str(tmp_path_factory.mktemp("model")))
    return repo


def test_configuration_and_tokenizer_come_back(ann: HubClient, pushed: str) -> None:
    def load(repo: str) -> list[Any]:
        from transformers import AutoConfig, AutoTokenizer

        config = AutoConfig.from_pretrained(repo)
        tokenizer = AutoTokenizer.from_pretrained(repo)
        return [config.model_type, config.num_hidden_layers, tokenizer("hello big world")["input_ids"]]

    assert ann.call(load, pushed) == ["bert", 2, [2, 0, 3]]


def test_weights_come_back(ann: HubClient, pushed: str) -> None:
    def load(api: Any, repo: str) -> list[Any]:
        from safetensors.numpy import load_file

        weights = load_file(api.hf_hub_download(repo, "model.safetensors"))
        told = api.get_safetensors_metadata(repo)
        return [float(weights["weight"][-1]), told.parameter_count]

    assert ann.call(load, pushed) == [99_999.0, {"F32": 100_000}]


def test_what_is_absent_is_asked_for_and_not_missed(ann: HubClient, pushed: str) -> None:
    def load(repo: str) -> list[Any]:
        from transformers import GenerationConfig
        from transformers.utils import cached_file

        try:
            GenerationConfig.from_pretrained(repo)
        except OSError as error:
            absent = "generation_config.json" in str(error)
        return [absent, cached_file(repo, "absent.json", _raise_exceptions_for_missing_entries=False)]

    assert ann.call(load, pushed) == [True, None]


def test_a_revision_and_a_save_with_push(ann: HubClient, pushed: str, tmp_path: Any) -> None:
    def work(repo: str, folder: str) -> list[int]:
        from huggingface_hub import HfApi
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(repo)
        before = HfApi().model_info(repo).sha
        config.num_hidden_layers = 3
        config.save_pretrained(folder, push_to_hub=True, repo_id=repo, commit_message="three layers")
        found = [AutoConfig.from_pretrained(repo, revision=revision) for revision in (before, "main")]
        return [config.num_hidden_layers for config in found]

    assert ann.call(work, pushed, str(tmp_path / "saved")) == [2, 3]
    assert ann.call(titles, pushed)[0] == "three layers"
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= set(ann.call(paths_of, pushed))
