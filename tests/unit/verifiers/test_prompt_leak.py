"""The prompt is never scored (paper.md section 3, defect R1), whatever the prompt satisfies or violates."""

import random

import generated
import pytest

from mgs_trl.verifiers import ifeval_verifier
from mgs_trl.verifiers.instructions import CONSTRAINTS

GOOGLE = sorted(name for name in CONSTRAINTS if ":" in name)


@pytest.mark.parametrize("name", GOOGLE)
def test_paper_r1_scores_do_not_depend_on_the_prompt(name):
    rng = random.Random(name)
    arguments = generated.arguments(name, rng)
    texts = [generated.response(rng) for _ in range(60)]
    rows = {"instruction_id_list": [[name]] * len(texts), "kwargs": [[arguments]] * len(texts)}
    alone = ifeval_verifier([""] * len(texts), texts, **rows)
    followed = [text for text, score in zip(texts, alone, strict=True) if score == 1.0]
    violated = [text for text, score in zip(texts, alone, strict=True) if score == 0.0 and text.strip()]
    assert violated
    for prompt in [*followed[:2], *violated[:2]]:
        conversation = [{"role": "system", "content": prompt}, {"role": "user", "content": prompt}]
        assert ifeval_verifier([prompt] * len(texts), texts, **rows) == alone
        answers = [[{"role": "assistant", "content": text}] for text in texts]
        assert ifeval_verifier([conversation] * len(texts), answers, **rows) == alone
