"""Find what a tokenizer's chat template puts around a prompt, without trusting the template.

A template is a program in Jinja that comes with a model. transformers runs it in a sandbox, which keeps it from files
and code, but not from looping for ever or filling the memory. So it is rendered once, around a mark, in a process of
its own, for which the system limits time and memory. Afterwards prompts are put in the place of the mark.
"""

import multiprocessing
import os
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from pipeline.core.errors import UserError
from pipeline.lm.faults import first_line

if TYPE_CHECKING:  # importing transformers takes seconds that readers of activations need not spend
    from transformers import PreTrainedTokenizerBase

_MARK = "[the prompt stands here]"
_REMEDY = "set extract.prompt_format to raw"
_SECONDS = 10.0
_MEMORY = 1024**3  # bytes beyond what this process has
_LONGEST = 1_000_000  # characters around a prompt
_frames: dict[tuple[str, str, bool], tuple[str, str]] = {}


def chat_frame(tokenizer: "PreTrainedTokenizerBase", *, thinking: bool) -> tuple[str, str]:
    """Return what the chat template puts before and after a prompt that is the user's only turn.

    Raises: UserError when the template fails, takes too much time or memory, or does not contain the prompt exactly
    once.
    """
    key = (repr(tokenizer.chat_template), repr(tokenizer.special_tokens_map), thinking)
    if key not in _frames:
        text = _rendered(tokenizer, thinking)
        if text.count(_MARK) != 1:
            raise UserError(f"the tokenizer's chat template does not hold the prompt once: {_REMEDY}")
        before, after = text.split(_MARK)
        _frames[key] = before, after
    return _frames[key]


def _rendered(tokenizer: "PreTrainedTokenizerBase", thinking: bool) -> str:
    # a fork has the tokenizer already; without forks (Windows) the child imports the libraries first
    context: Any = multiprocessing.get_context("fork" if hasattr(os, "fork") else None)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_render, args=(sender, tokenizer, thinking), daemon=True)
    child.start()
    sender.close()
    try:
        if not receiver.poll(_SECONDS):
            raise UserError(f"the tokenizer's chat template is not done after {_SECONDS:.0f} seconds: {_REMEDY}")
        text, problem = receiver.recv()
    except EOFError:  # it died: a template can also exhaust the stack
        text, problem = None, "the process that rendered it was killed"
    finally:
        child.kill()
        child.join()
        receiver.close()
    if problem:
        raise UserError(f"the tokenizer's chat template fails ({problem}): {_REMEDY}")
    return text


def _render(sender: Connection, tokenizer: "PreTrainedTokenizerBase", thinking: bool) -> None:
    """Render in a process of its own: send the text, or what is wrong."""
    _limit_memory_and_time()
    try:
        text: Any = tokenizer.apply_chat_template(
            [{"role": "user", "content": _MARK}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=thinking,
        )
        outcome = (str(text), None) if len(text) <= _LONGEST else (None, f"it makes {len(text)} characters")
    except MemoryError:
        outcome = (None, "out of memory")
    except BaseException as error:
        outcome = (None, first_line(error))
    sender.send(outcome)


def _limit_memory_and_time() -> None:
    with suppress(ImportError, OSError, ValueError):  # where the system has no such limit, time alone is one
        import resource

        # the parent ends this process, unless it is killed itself meanwhile
        resource.setrlimit(resource.RLIMIT_CPU, (int(_SECONDS) + 2, int(_SECONDS) + 2))
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        wanted = used + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (wanted if most < 0 else min(wanted, most), most))
