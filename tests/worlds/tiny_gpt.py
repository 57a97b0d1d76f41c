"""A tiny GPT-2 of random weights, saved as transformers saves it."""

import torch

CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build(folder, *, chat=False, positions=512):
    """Save a GPT-2 of two layers whose tokens are letters; gives the folder."""
    from tokenizers import Tokenizer
    from tokenizers.decoders import ByteLevel as Decoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    letters = sorted(ByteLevel.alphabet())
    inner = Tokenizer(BPE({c: i for i, c in enumerate([*letters, "<end>"])}, merges=[]))
    inner.pre_tokenizer, inner.decoder = ByteLevel(add_prefix_space=False), Decoder()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")
    if chat:
        tokenizer.chat_template = CHAT
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(letters) + 1,
                n_positions=positions,
                n_embd=16,
                n_layer=2,
                n_head=2,
                bos_token_id=256,
                eos_token_id=256,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
