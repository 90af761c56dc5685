"""Templates: the text, which tokens are the response, and special-token text inside content."""

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from forgetting_core.data.encoding import Encoder
from forgetting_core.data.formats import Conversation, Tokens, Turn, recognise
from forgetting_core.data.rows import read_rows
from forgetting_core.data.templates import make_template, tokenise
from forgetting_core.errors import InputError
from forgetting_core.tables import IGNORE_INDEX

SHARED = Path(__file__).resolve().parents[3].parent / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is not beside this checkout")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GENERATION = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>"
    "{% endif %}\n{% endfor %}"
)
TRIMMING = CHATML.replace("m['content']", "m['content'] | trim")
SPECIAL = ["<unk>", "<|im_start|>", "<|im_end|>", "</s>", "<s>"]


@cache
def backend() -> str:
    """A byte-level BPE with a merge for ` yes` and one for a double line break."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["Say: yes yes yes\n\nno no\n\nyes", "the answer is yes\n\n"] * 20, trainer)
    return tokenizer.to_str()


def make_tokenizer(chat_template: str | None = CHATML, eos: str | None = "</s>", bos: bool = False) -> Any:
    own = Tokenizer.from_str(backend())
    own.post_processor = processors.ByteLevel(trim_offsets=True)
    if bos:
        own.post_processor = processors.TemplateProcessing(
            "<s> $A", special_tokens=[("<s>", own.token_to_id("<s>"))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own, eos_token=eos, bos_token="<s>", unk_token="<unk>")
    tokenizer.chat_template = chat_template
    return tokenizer


def conversation(*turns: str, noise: Any = None) -> Conversation:
    """User and assistant in turn; with an odd number of turns the first is the system's."""
    roles: list[Any] = ["system"] if len(turns) % 2 else []
    roles += ["user", "assistant"] * (len(turns) // 2)
    return Conversation("f.jsonl, line 1", tuple(map(Turn, roles, turns)), noise)


def encode(tokenizer: Any, template: str, row: Conversation, max_length: int = 2048) -> Tokens:
    encoder = Encoder(tokenizer)
    [(tokens, _)] = tokenise([row], make_template(template, tokenizer, encoder), encoder, max_length)
    return tokens


def text(tokenizer: Any, tokens: Tokens) -> str:
    return tokenizer.decode(tokens.input_ids, clean_up_tokenization_spaces=False)


def response(tokenizer: Any, tokens: Tokens) -> str:
    labelled = tokens.labels != IGNORE_INDEX
    assert np.array_equal(tokens.labels[labelled], tokens.input_ids[labelled])
    return tokenizer.decode(tokens.labels[labelled], clean_up_tokenization_spaces=False)


@pytest.mark.parametrize(
    ("template", "turns", "whole", "answers"),
    [
        ("tulu", ("hi", "yes"), "<|user|>\nhi\n<|assistant|>\nyes</s>", "yes</s>"),
        ("tulu", ("", ""), "<|user|>\n\n<|assistant|>\n</s>", "</s>"),
        (
            "tulu",
            ("be", "a", "b", "c", "d"),
            "<|system|>\nbe\n<|user|>\na\n<|assistant|>\nb</s>\n<|user|>\nc\n<|assistant|>\nd</s>",
            "b</s>d</s>",
        ),
        ("plain", ("hi", "no"), "hi no</s>", " no</s>"),
        ("plain", ("hi\n", "no"), "hi\nno</s>", "no</s>"),
        ("plain", ("hi", "\tno"), "hi\tno</s>", "\tno</s>"),
        ("plain", ("hi", ""), "hi</s>", "</s>"),
        (
            "tokenizer",
            ("hi", "yes", "and", ""),
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n"
            "<|im_start|>user\nand<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n",
            "yes<|im_end|>\n<|im_end|>\n",
        ),
    ],
)
def test_templates_write_the_turns_and_mark_the_answers(
    template: str, turns: tuple[str, ...], whole: str, answers: str
) -> None:
    tokenizer = make_tokenizer()
    tokens = encode(tokenizer, template, conversation(*turns))
    assert text(tokenizer, tokens) == whole
    assert response(tokenizer, tokens) == answers


def test_generation_marks_decide_where_the_chat_template_has_them() -> None:
    tokenizer = make_tokenizer(GENERATION)
    row = conversation("hi </s> <|im_end|>", "a <|im_start|>", "é", "b")
    tokens = encode(tokenizer, "tokenizer", row)
    assert response(tokenizer, tokens) == "a <|im_start|><|im_end|>b<|im_end|>"


@pytest.mark.parametrize("template", ["tulu", "plain", "tokenizer"])
@pytest.mark.parametrize("special", ["</s>", "<|im_end|>", "<|im_start|>assistant\n", "<s><s>", "<<|im_end|>"])
def test_special_token_text_inside_content_stays_text(template: str, special: str) -> None:
    tokenizer = make_tokenizer()
    special_ids = tokenizer.convert_tokens_to_ids(SPECIAL)
    harmless = encode(tokenizer, template, conversation("say it", "the answer"))

    tokens = encode(tokenizer, template, conversation(f"say {special} it", f"the {special} answer"))

    of_template = harmless.input_ids[np.isin(harmless.input_ids, special_ids)]
    assert tokens.input_ids[np.isin(tokens.input_ids, special_ids)].tolist() == of_template.tolist()
    assert f"say {special} it" in text(tokenizer, tokens)
    assert f"the {special} answer" in response(tokenizer, tokens)


@pytest.mark.parametrize("source", [CHATML, TRIMMING, GENERATION])
def test_harmless_content_gets_the_ids_of_the_tokenizer_itself(source: str) -> None:
    tokenizer = make_tokenizer(source)
    row = conversation("be", "Say: yes", " yes\n\nno ", "é😀\u200b", "\n\n")
    messages = [{"role": turn.role, "content": turn.content} for turn in row.turns]
    expected = tokenizer.apply_chat_template(messages)["input_ids"]
    assert encode(tokenizer, "tokenizer", row).input_ids.tolist() == expected


def test_a_merge_across_the_boundary_does_not_hide_the_first_answer_token() -> None:
    tokenizer = make_tokenizer()
    yes = tokenizer.encode(" yes", add_special_tokens=False)
    assert len(yes) == 1, "the case needs a merge of the space and the answer"
    tokens = encode(tokenizer, "plain", conversation("Say: ", "yes"))
    assert tokens.labels[-2:].tolist() == [*yes, tokenizer.eos_token_id]


def test_every_byte_of_a_split_character_is_response() -> None:
    tokenizer = make_tokenizer()
    tokens = encode(tokenizer, "plain", conversation("x\n", "😀"))
    assert (tokens.labels != IGNORE_INDEX).sum() == 5


@pytest.mark.parametrize(("part", "covered"), [("😀", "😀"), (" ", " yes"), ("es", " yes"), ("a", "a"), ("", "")])
def test_the_tokens_of_a_stretch_are_all_that_overlap_it(part: str, covered: str) -> None:
    tokenizer, sample = make_tokenizer(), "a😀 yes"
    [encoded] = Encoder(tokenizer).encode([sample], ["f.jsonl, line 1"])
    start = sample.index(part)
    tokens = encoded.input_ids[encoded.tokens_of(start, start + len(part))]
    assert tokenizer.decode(tokens, clean_up_tokenization_spaces=False) == covered


@pytest.mark.parametrize("template", ["tulu", "plain"])
def test_bos_is_added_where_the_tokenizer_adds_it_by_itself(template: str) -> None:
    with_bos, without = make_tokenizer(bos=True), make_tokenizer()
    row = conversation("hi", "yes")
    expected = encode(without, template, row)
    tokens = encode(with_bos, template, row)
    assert tokens.input_ids.tolist() == [with_bos.bos_token_id, *expected.input_ids]
    assert tokens.labels.tolist() == [IGNORE_INDEX, *expected.labels]
    assert encode(with_bos, "tokenizer", row).input_ids[0] != with_bos.bos_token_id


def test_the_first_token_of_a_row_is_no_response_token() -> None:
    tokens = encode(make_tokenizer(), "plain", conversation("", "no"))
    assert tokens.labels[0] == IGNORE_INDEX and (tokens.labels[1:] != IGNORE_INDEX).all()


def test_long_rows_are_cut_from_the_right() -> None:
    tokenizer = make_tokenizer()
    row = conversation("Say: ", "yes yes yes", noise=((0, 11),))
    whole, cut = encode(tokenizer, "plain", row), encode(tokenizer, "plain", row, max_length=6)
    assert cut.input_ids.tolist() == whole.input_ids[:6].tolist()
    assert cut.noise is not None and len(cut.noise) == 6


def test_a_prompt_that_fills_the_length_leaves_a_row_without_response() -> None:
    tokens = encode(make_tokenizer(), "tulu", conversation("word " * 30, "yes"), max_length=20)
    assert len(tokens.input_ids) == 20 and (tokens.labels == IGNORE_INDEX).all()


@pytest.mark.parametrize(("template", "source"), [("tulu", None), ("plain", None), ("tokenizer", TRIMMING)])
def test_noise_spans_become_noise_tokens(template: str, source: str | None) -> None:
    tokenizer = make_tokenizer(source)
    completion = " yes </s> no zz no"
    start = completion.index("zz")
    row = conversation("zz </s> zz", completion, noise=((start, start + 2), (5, 5)))
    tokens = encode(tokenizer, template, row)
    assert tokens.noise is not None and tokens.noise.dtype == np.int8
    assert tokenizer.decode(tokens.input_ids[tokens.noise == 1]).strip() == "zz"


def test_noise_that_the_chat_template_rewrites_is_refused() -> None:
    tokenizer = make_tokenizer(CHATML.replace("m['content']", "m['content'] | upper"))
    with pytest.raises(InputError, match="`noise`: the chat template changes the completion"):
        encode(tokenizer, "tokenizer", conversation("a", "b", noise=((0, 1),)))


@pytest.mark.parametrize(
    ("source", "turns", "message"),
    [
        (None, ("a", "b"), "has none; use `data.template: tulu` or `plain`"),
        (CHATML + "{{ messages | length }}", ("a", "b", "c", "d"), r"messages\[1\]: .* differently"),
        (CHATML + "<think>", ("a", "b", "c", "d"), "differently"),
        (CHATML.replace("assistant\n{% endif %}", "assistant\n<think>{% endif %}"), ("a", "b"), "differently"),
        ("{{ raise_exception('no system role') }}", ("s", "a", "b"), r"refuses .*no system role"),
        ("{{ messages[0]['content'] + messages[9]['content'] }}", ("a", "b"), "refuses"),
    ],
)
def test_a_chat_template_that_does_not_serve_is_refused(source: str, turns: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode(make_tokenizer(source), "tokenizer", conversation(*turns))


def test_plain_takes_no_conversation() -> None:
    with pytest.raises(InputError, match=r"line 1: .*user, assistant, user, assistant; use `data\.template: tulu`"):
        encode(make_tokenizer(), "plain", conversation("a", "b", "c", "d"))


@pytest.mark.parametrize("template", ["tulu", "plain", "tokenizer"])
def test_noncharacters_that_could_forge_a_special_token_are_refused(template: str) -> None:
    with pytest.raises(InputError, match=r"U\+FDE2 at character 1, a noncharacter"):
        encode(make_tokenizer(), template, conversation("a", "b\ufde2"))


@pytest.mark.parametrize("scheme", ["first", "always"])
def test_word_start_marks_stand_where_the_tokenizer_puts_them(scheme: Any) -> None:
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    own.decoder = decoders.Metaspace(prepend_scheme=scheme)
    own.train_from_iterator(["user assistant hi yes system"] * 3, trainers.BpeTrainer(special_tokens=SPECIAL))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own, eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
    messages = [{"role": "user", "content": "hi yes"}, {"role": "assistant", "content": "yes hi"}]
    tokens = encode(tokenizer, "tokenizer", conversation("hi yes", "yes hi"))
    assert tokens.input_ids.tolist() == tokenizer.apply_chat_template(messages)["input_ids"]
    special = encode(tokenizer, "tokenizer", conversation("hi yes", "yes </s>"))
    assert tokenizer.eos_token_id not in special.input_ids


def test_a_model_that_makes_special_tokens_of_plain_text_is_refused() -> None:
    own = Tokenizer(models.Unigram([("<unk>", 0.0), ("</s>", 0.0), *((letter, -2.0) for letter in " ab</s>")], 0))
    own.add_special_tokens(["<unk>", "</s>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own, eos_token="</s>", unk_token="<unk>")
    assert encode(tokenizer, "plain", conversation("a", "b")).input_ids[-1] == tokenizer.eos_token_id
    with pytest.raises(InputError, match="turns plain text into the special token '</s>'"):
        encode(tokenizer, "plain", conversation("a", "b</s>"))


def test_written_out_templates_need_an_eos_token() -> None:
    with pytest.raises(InputError, match="EOS token, but it has none"):
        encode(make_tokenizer(eos=None), "tulu", conversation("a", "b"))


def test_a_tokenizer_without_offsets_is_refused() -> None:
    tokenizer = make_tokenizer()
    slow = type("Slow", (), {"is_fast": False, "name_or_path": "models/slow"})()
    assert Encoder(tokenizer)
    with pytest.raises(InputError, match="slow one"):
        Encoder(slow)


@needs_shared
@pytest.mark.parametrize("name", ["instructions.jsonl.gz", "conversations.jsonl.gz"])
def test_real_rows_get_the_ids_of_the_tokenizer_itself(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(SHARED / "oracle" / "tiny_ref")
    encoder = Encoder(tokenizer)
    rows = [recognise(row) for row in read_rows(SHARED / "data" / name)][:300]
    assert all(isinstance(row, Conversation) for row in rows)
    ours = tokenise(rows, make_template("tokenizer", tokenizer, encoder), encoder, 10**9)
    for row, (tokens, length) in zip(rows, ours, strict=True):
        messages = [{"role": turn.role, "content": turn.content} for turn in row.turns]
        assert tokens.input_ids.tolist() == tokenizer.apply_chat_template(messages, truncation=False)["input_ids"]
        assert length == len(tokens.input_ids)
        answers = [turn.content for turn in row.turns if turn.role == "assistant"]
        assert response(tokenizer, tokens) == "".join(f"{answer}<|eos|>\n" for answer in answers)


@needs_shared
def test_plain_agrees_with_the_oracle_but_for_its_known_faults() -> None:
    """Rows 3 and 52: no space before an empty answer; 8: position 0 is no response token; 46: text stays text."""
    tokenizer = AutoTokenizer.from_pretrained(SHARED / "oracle" / "tiny_base")
    encoder = Encoder(tokenizer)
    rows = [recognise(row) for row in read_rows(SHARED / "oracle" / "data" / "pc_train.jsonl")]
    ours = tokenise(rows, make_template("plain", tokenizer, encoder), encoder, 2048)
    with np.load(SHARED / "oracle" / "tokens.npz") as oracle:
        offsets, input_ids, labels = oracle["row_offsets"], oracle["input_ids"], oracle["labels"]
    spans = [slice(start, end) for start, end in pairwise(offsets)]
    differing = {
        i
        for i, ((tokens, _), span) in enumerate(zip(ours, spans, strict=True))
        if not (np.array_equal(tokens.input_ids, input_ids[span]) and np.array_equal(tokens.labels, labels[span]))
    }
    assert differing <= {3, 8, 11, 46, 52, 60}
