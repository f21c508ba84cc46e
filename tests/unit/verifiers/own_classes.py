"""Classes that recipes name, verifiers and others. Imported by tests and by worker processes."""

from mgs_trl.verifiers import IsolatedVerifier, Verifier


class Brevity(Verifier):
    label = "brevity"

    def __init__(self, domain=None, *, words, **options):
        if words < 1:
            raise ValueError(f"words must be at least 1, got {words!r}")
        super().__init__(domain, **options)
        self.words = words

    def _score(self, batch):
        return [self.words / len(batch.text(index).split()) for index in batch.indices]


class Shouting(IsolatedVerifier):
    label = "shouting"
    target = "own_classes:shouts"

    def _arguments(self, batch, index):
        return {"text": batch.text(index)}


def shouts(text):
    return float(text.isupper())


class OnlyADomain(Verifier):
    def __init__(self, domain):
        super().__init__(domain)


class NoVerifier:
    def __call__(self, completions, **columns):
        return [1.0] * len(completions)


callable_object = NoVerifier()
