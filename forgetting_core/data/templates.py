"""How a conversation becomes text, and which of its characters are the response.

The three templates of the recipe: `tulu` and `plain` are written out here, `tokenizer` is the tokenizer's own chat
template. Each gives one `Rendered`; `tokenise` turns it into ids and labels by character offsets.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt

from forgetting_core.data.encoding import EncodedText, Encoder
from forgetting_core.data.formats import Conversation, Tokens
from forgetting_core.errors import InputError, RowError, brief
from forgetting_core.tables import IGNORE_INDEX

Span = tuple[int, int]
_OF_A_TEMPLATE = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
"""What the expressions of a chat template raise beside Jinja's own errors: it is code of the model's author."""
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A sealed text (see `Encoder.seal`) and its response as character spans."""

    text: str
    responses: tuple[Span, ...]
    bos: bool
    """Whether what the tokenizer puts before a text by itself is put there; chat templates write their own."""


Template = Callable[[Conversation], Rendered]


def make_template(name: str, tokenizer: Any, encoder: Encoder) -> Template:
    """The template `name` of the recipe for `tokenizer` (of transformers).

    Raises `InputError` when the tokenizer lacks what it needs: an EOS token, or a chat template.
    """
    if name == "tokenizer":
        return ChatTemplate(tokenizer, encoder)
    eos = tokenizer.eos_token
    if eos is None or not encoder.is_special(eos):
        raise InputError(
            f"{tokenizer.name_or_path}: `data.template: {name}` ends an answer with the tokenizer's EOS token, "
            f"but it has {'none' if eos is None else f'{eos!r}, which is no special token'}; "
            "set `eos_token` in its tokenizer_config.json"
        )
    render = {"tulu": _tulu, "plain": _plain}[name]
    return lambda conversation: render(conversation, encoder, eos)


def tokenise(
    conversations: Sequence[Conversation], template: Template, encoder: Encoder, max_length: int
) -> Iterator[tuple[Tokens, int]]:
    """Tokens of each row, cut to `max_length` from the right, and its length before the cut.

    The tokenizer has run when this returns; the rest is done row by row as they are asked for.

    A token that overlaps a response span is a response token, also when it holds the prompt's last characters. The
    first token of a row is none: nothing predicts it.
    """
    rendered = [template(conversation) for conversation in conversations]
    encoded = encoder.encode([item.text for item in rendered], [item.place for item in conversations])
    return (
        _label(*row, encoder.leading_ids, max_length) for row in zip(conversations, rendered, encoded, strict=True)
    )


def _label(
    conversation: Conversation, rendered: Rendered, encoded: EncodedText, leading_ids: list[int], max_length: int
) -> tuple[Tokens, int]:
    leading = np.array(leading_ids if rendered.bos else [], dtype=np.int32)
    input_ids = np.concatenate([leading, encoded.input_ids])
    response = _mark(encoded, rendered.responses, len(leading))
    response[:1] = False
    labels = np.where(response, input_ids, np.int32(IGNORE_INDEX))
    noise = None
    if conversation.noise is not None:
        noisy = _mark(encoded, _noise_spans(conversation, rendered), len(leading)) & response
        noise = noisy[:max_length].astype(np.int8)
    return Tokens(input_ids[:max_length], labels[:max_length], noise), len(input_ids)


def _mark(encoded: EncodedText, spans: Sequence[Span], shift: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(shift + len(encoded.input_ids), dtype=bool)
    for start, end in spans:
        mask[shift:][encoded.tokens_of(start, end)] = True
    return mask


def _noise_spans(conversation: Conversation, rendered: Rendered) -> list[Span]:
    """Noise spans of the completion as spans of the rendered text; templates may trim white space around it."""
    assert conversation.noise is not None
    completion = conversation.turns[-1].content
    start, end = rendered.responses[-1] if rendered.responses else (0, 0)
    at = rendered.text.find(completion, start, end)
    if at < 0:
        at = rendered.text.find(completion.strip(), start, end)
        if at < 0:
            raise RowError(
                conversation.place,
                "field `noise`: the chat template changes the completion, so its spans cannot be placed; "
                "use `data.template: tulu` or `plain`",
            )
        at -= len(completion) - len(completion.lstrip())
    return [(max(at + first, start), min(at + last, end)) for first, last in conversation.noise]


def _tulu(conversation: Conversation, encoder: Encoder, eos: str) -> Rendered:
    text, end = "", encoder.seal(eos)
    responses = []
    for turn in conversation.turns:
        text += encoder.seal(f"<|{turn.role}|>\n")
        content = encoder.checked(turn.content, conversation.place)
        if turn.role == "assistant":
            responses.append((len(text), len(text) + len(content) + len(end)))
            content += end
        text += content + "\n"
    if conversation.turns[-1].role == "assistant":
        text = text.removesuffix("\n")
    return Rendered(text, tuple(responses), bos=True)


def _plain(conversation: Conversation, encoder: Encoder, eos: str) -> Rendered:
    if [turn.role for turn in conversation.turns] != ["user", "assistant"]:
        raise RowError(
            conversation.place,
            "`data.template: plain` takes one prompt and one completion, found the roles "
            f"{', '.join(turn.role for turn in conversation.turns)}; use `data.template: tulu` for conversations",
        )
    prompt, completion = (encoder.checked(turn.content, conversation.place) for turn in conversation.turns)
    joined = not prompt or not completion or prompt[-1].isspace() or completion[0].isspace()
    text = prompt + ("" if joined else " ") + completion + encoder.seal(eos)
    # the space is the model's to produce: a prompt in use does not end with it
    return Rendered(text, ((len(prompt), len(text)),), bos=True)


class ChatTemplate:
    """The tokenizer's own chat template.

    Response spans are what the template marks with `{% generation %}`; in a template without that, an assistant
    turn is what it adds to the conversation before it as rendered with the generation prompt. So the end marker is
    part of the response, and so is a line break that the template writes behind it, as in TRL.
    """

    def __init__(self, tokenizer: Any, encoder: Encoder) -> None:
        """Raises `InputError` when `tokenizer` has no chat template."""
        if not tokenizer.chat_template:
            raise InputError(
                f"{tokenizer.name_or_path}: `data.template: tokenizer` needs a chat template and the tokenizer has "
                "none; use `data.template: tulu` or `plain`"
            )
        from transformers.utils.chat_template_utils import render_jinja_template

        self._render_template = render_jinja_template
        self._source = tokenizer.get_chat_template()
        self._variables = tokenizer.special_tokens_map
        self._encoder = encoder
        self._marks_generation = _GENERATION.search(self._source) is not None

    def __call__(self, conversation: Conversation) -> Rendered:
        """Render `conversation`. Raises `RowError` when the template refuses it or its prefixes do not match."""
        messages = [
            {"role": turn.role, "content": self._encoder.protect(turn.content, conversation.place)}
            for turn in conversation.turns
        ]
        text, marked = self._render(messages, conversation.place)
        sealed = self._encoder.seal(text)
        if self._marks_generation:
            responses = [
                (self._sealed_length(text[:start]), self._sealed_length(text[:end])) for start, end in marked
            ]
        else:
            responses = self._by_prefixes(messages, sealed, conversation.place)
        return Rendered(sealed, tuple(responses), bos=False)

    def _by_prefixes(self, messages: list[dict[str, str]], sealed: str, place: str) -> list[Span]:
        spans = []
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._encoder.seal(self._render(messages[:i], place, add_generation_prompt=True)[0])
            last = i + 1 == len(messages)
            after = sealed if last else self._encoder.seal(self._render(messages[: i + 1], place)[0])
            if not (after.startswith(before) and sealed.startswith(after)):
                raise RowError(
                    place,
                    f"messages[{i}]: the tokenizer's chat template renders the conversation up to here "
                    "differently from the same part of the whole, so the response cannot be told from the prompt; "
                    "mark it in the template with {% generation %}, or use `data.template: tulu`",
                )
            spans.append((len(before), len(after)))
        return spans

    def _render(
        self, messages: list[dict[str, str]], place: str, add_generation_prompt: bool = False
    ) -> tuple[str, list[Span]]:
        """What `apply_chat_template` renders, and the character spans inside `{% generation %}`."""
        try:
            texts, spans = self._render_template(
                conversations=[messages],
                chat_template=self._source,
                return_assistant_tokens_mask=self._marks_generation,
                add_generation_prompt=add_generation_prompt,
                **self._variables,
            )
        except (jinja2.TemplateError, *_OF_A_TEMPLATE) as error:
            raise RowError(
                place,
                "the tokenizer's chat template refuses the conversation "
                f"({', '.join(message['role'] for message in messages) or 'no message before the answer'}): "
                f"{brief(error)}",
            ) from error
        return texts[0], list(spans[0]) if spans else []

    def _sealed_length(self, text: str) -> int:
        return len(self._encoder.seal(text))
