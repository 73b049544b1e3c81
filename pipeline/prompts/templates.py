"""Find templates: long frames of the same words around other payloads, such as a jailbreak that is asked anything."""

import numpy as np

LEAST_PROMPTS = 5  # that share the run of a template
FRAME = 1 / 3  # least share of the prompts with a template's run that also have another run of its frame


def template_of(words: list[np.ndarray], run: int) -> np.ndarray:
    """Return the template of each prompt, int64 (N), -1 for none.

    The run of words that most prompts share makes the first template. Its frame is every run that at least a third of
    these prompts have, and all prompts with any run of the frame belong to it: where a word of the frame was changed,
    runs before or after it are left. The next template is looked for among the prompts that remain, until no run is
    shared by LEAST_PROMPTS. So a prompt that combines two frames goes with the more frequent one, and templates do not
    chain.

    Args:
        words: see `number_words`. Numbers in alphabetical order make templates independent of the order of prompts.
        run: words in a row.
    """
    runs, prompts = _shared_runs(words, run)
    template = np.full(len(words), -1)
    number = 0
    while len(runs):
        shared_by = np.bincount(runs)
        commonest = shared_by.argmax()
        if shared_by[commonest] < LEAST_PROMPTS:
            break
        having = np.zeros(len(words), dtype=bool)
        having[prompts[runs == commonest]] = True
        frame = np.bincount(runs[having[prompts]], minlength=len(shared_by)) >= FRAME * shared_by[commonest]
        template[prompts[frame[runs]]] = number
        number += 1
        left = template[prompts] < 0
        runs, prompts = runs[left], prompts[left]
    return template


def _shared_runs(words: list[np.ndarray], run: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the runs that at least LEAST_PROMPTS share, by number, and the prompts that have them: each pair once.

    Runs grow word by word. Where the beginning of a run is rare, so is the run, and it is dropped.
    """
    text = np.concatenate(words).astype(np.int64)
    ends = np.cumsum([len(each) for each in words])
    prompt_at = np.repeat(np.arange(len(words)), [len(each) for each in words])
    vocabulary = int(text.max()) + 1
    start, number = np.arange(len(text)), text
    for length in range(1, run + 1):
        if length > 1:
            fits = start + length <= ends[prompt_at[start]]
            start, number = start[fits], number[fits]
            number = number * vocabulary + text[start + length - 1]
        number = np.unique(number, return_inverse=True)[1].ravel()
        pairs = np.unique(number * len(words) + prompt_at[start])
        common = np.bincount(pairs // len(words), minlength=1) >= LEAST_PROMPTS
        start, number = start[common[number]], number[common[number]]
    pairs = np.unique(number * len(words) + prompt_at[start])
    return np.unique(pairs // len(words), return_inverse=True)[1].ravel(), pairs % len(words)
