"""A language model of transformers as generator, with a tiny GPT-2 of random weights."""

import pytest
import torch
from tiny_gpt import build
from word_encoder import WordEncoder

from conceptlab.errors import CheckpointError, GeneratorError, InputError
from conceptlab.vocabulary import TransformersGenerator, load_generator, synthesize


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("gpt"))


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("chat"), chat=True)


def test_seeded_and_the_same_in_any_batch(folder, global_state_untouched):
    prompts = ["name a thing", "tell me of frogs, long and well", "x", "name a thing"]
    one = TransformersGenerator(str(folder), device="cpu", max_new_tokens=20, batch_size=1)
    many = TransformersGenerator(str(folder), device="cpu", max_new_tokens=20, batch_size=4)
    answers = many(prompts, seed=5)
    assert answers == many(prompts, seed=5) == one(prompts, seed=5)
    assert answers != many(prompts, seed=6)
    assert answers[0] != answers[3]  # the same question twice is two draws
    assert many([], seed=0) == []


def test_samples_follow_the_models_probabilities(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    generate = TransformersGenerator(
        str(folder), max_new_tokens=1, temperature=2.0, top_p=1.0, batch_size=256, device="cpu"
    )
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model.transformer.wte.weight.data *= 8  # far from uniform
    generate._model.transformer.wte.weight.data *= 8
    ids = tokenizer("q\n\n-", return_tensors="pt")["input_ids"]
    expected = (model(ids).logits[0, -1] / 2.0).softmax(-1)
    letters = [tokenizer.decode([i], skip_special_tokens=True) for i in range(len(expected))]
    counts = torch.zeros(len(expected))
    for answer in generate(["q"] * 2000, seed=0):
        counts[letters.index(answer[1:])] += 1
    # Total variation of 2000 draws from 257 outcomes; letters that print alike fall together.
    merged, found = {}, {}
    for text, p, c in zip(letters, expected.tolist(), (counts / 2000).tolist(), strict=True):
        merged[text], found[text] = merged.get(text, 0) + p, found.get(text, 0) + c
    distance = sum(abs(merged[k] - found[k]) for k in merged) / 2
    assert max(merged.values()) > 3 / 257
    assert distance < 0.2


def test_greedy_without_temperature_and_top_p(folder):
    greedy = TransformersGenerator(str(folder), temperature=0, max_new_tokens=8, device="cpu")
    assert greedy(["a b"], seed=1) == greedy(["a b"], seed=2)
    narrow = TransformersGenerator(
        str(folder), temperature=1, top_p=1e-6, max_new_tokens=8, device="cpu"
    )
    assert narrow(["a b"], seed=3) == greedy(["a b"])


def test_chat_template_is_used(chat_folder):
    plain = TransformersGenerator(str(chat_folder), device="cpu", max_new_tokens=4)
    assert plain._framed("hi") == "<|user|>hi\n<|assistant|>"
    wise = TransformersGenerator(
        str(chat_folder), device="cpu", max_new_tokens=4, system="be brief"
    )
    assert wise._framed("hi") == "<|system|>be brief\n<|user|>hi\n<|assistant|>"
    assert isinstance(wise(["hi"])[0], str)


def test_a_model_of_the_user_comes_back_as_it_was(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).train()
    model.transformer.h[0].eval()
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    generate = TransformersGenerator(
        (model, AutoTokenizer.from_pretrained(folder)), max_new_tokens=4
    )
    first = generate(["a"], seed=0)
    assert first == generate(["a"], seed=0)  # dropout is off while it runs
    assert modes == [m.training for m in model.modules()]
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())


@pytest.mark.filterwarnings("ignore::conceptlab.vocabulary.ShortfallWarning")
def test_synthesis_with_a_model_by_name(folder):
    # Random letters make few concepts; that it runs, is seeded and is bounded is the point.
    def run():
        try:
            return synthesize(
                ["newt", "frog"],
                f"transformers:{folder}",
                WordEncoder(),
                n_concepts=2,
                max_rounds=2,
                max_new_tokens=48,
                device="cpu",
                random_state=4,
            ).texts
        except GeneratorError as error:
            return str(error)

    assert run() == run()


def test_prompts_over_the_context(tmp_path):
    small = TransformersGenerator(str(build(tmp_path, positions=64)), device="cpu")
    assert len(small(["a" * 40])) == 1  # the answer is cut to the room that is left
    with pytest.raises(InputError, match=r"A prompt of 103 tokens leaves no room .* of 64 tokens"):
        small(["a" * 100])
    with pytest.raises(InputError, match="leaves no room"):  # not tried again, not wrapped
        synthesize(["newt"], small, WordEncoder(), retry_wait=60)


def test_what_cannot_be_loaded(tmp_path, folder):
    with pytest.raises(CheckpointError, match="There is no folder /no/such"):
        load_generator("transformers:/no/such")
    with pytest.raises(CheckpointError, match="Cannot load transformers:"):
        load_generator(f"transformers:{tmp_path}")
    with pytest.raises(InputError, match="Expected max_new_tokens >= 1"):
        load_generator(f"transformers:{folder}", top_p=0.0)
    with pytest.raises(InputError, match="Unknown generator 'transformers:'"):
        load_generator("transformers:")


def test_pickled_weights_are_refused(tmp_path, folder):
    import shutil

    shutil.copytree(folder, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(1)}, tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="safetensors"):
        load_generator(f"transformers:{tmp_path / 'm'}")
