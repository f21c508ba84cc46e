"""What a run with served rollouts can set."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlparse

TRANSFERS = ("auto", "nccl", "directory")


@dataclass
class ServerSettings:
    """Servers, how weights reach them, and how long to wait for them.

    Attributes:
        urls: base URLs; the prompts of a batch are dealt out to them in equal parts.
        transfer: `directory`, or `nccl` (TRL's own client: CUDA, one URL), or `auto`: `nccl` where the policy is on
            CUDA and no `weight_dir` is given.
        weight_dir: where weights are written for the servers; default `OUTPUT_DIR/_served_weights`.
        timeout: seconds to wait for a server that does not answer, at the start or when it was lost.
        sync_timeout: seconds for one server to load new weights.
        generate_timeout: seconds for the completions of one batch.
    """

    urls: list[str] = field(default_factory=list)
    transfer: str = "auto"
    weight_dir: str | None = None
    timeout: float = 240.0
    sync_timeout: float = 300.0
    generate_timeout: float = 1200.0

    def __post_init__(self) -> None:
        if isinstance(self.urls, str):
            raise ValueError(f"server.urls is {self.urls!r}, but it must be a list of URLs, also of one.")
        if not self.urls:
            raise ValueError("server.urls is empty, but rollout: server needs the URL of at least one vLLM server.")
        for url in self.urls:
            parsed = urlparse(url) if isinstance(url, str) else None
            if parsed is None or parsed.scheme not in ("http", "https") or not parsed.netloc:
                raise ValueError(f"server.urls has {url!r}, but a URL must be like http://host:8000.")
        if len({url.rstrip("/") for url in self.urls}) < len(self.urls):
            raise ValueError(f"server.urls is {self.urls!r}, but no URL may come twice.")
        if self.transfer not in TRANSFERS:
            raise ValueError(f"server.transfer is {self.transfer!r}, but it must be one of {', '.join(TRANSFERS)}.")
        for name in ("timeout", "sync_timeout", "generate_timeout"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ValueError(f"server.{name} is {value!r}, but it must be a number of seconds greater than 0.")
        if self.transfer == "nccl" and len(self.urls) > 1:
            raise ValueError(f"server.transfer is 'nccl' with {len(self.urls)} URLs, but it serves one URL only.")
        if self.transfer == "nccl" and self.weight_dir is not None:
            raise ValueError("server.weight_dir is set, but server.transfer: nccl uses no directory.")

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "ServerSettings":
        """Settings from plain data.

        Raises:
            ValueError: an unknown key or a value out of its range.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise ValueError(f"server has the unknown key {name!r}; allowed here: {', '.join(known)}.")
        return cls(**values)

    def by_directory(self, on_cuda: bool) -> bool:
        """Whether weights go through the directory, for a policy that is or is not on CUDA.

        Raises:
            ValueError: NCCL without CUDA.
        """
        if self.transfer == "nccl" and not on_cuda:
            raise ValueError("server.transfer is 'nccl', but the policy is not on CUDA; use directory.")
        if self.transfer == "auto":
            return not on_cuda or self.weight_dir is not None or len(self.urls) > 1
        return self.transfer == "directory"
