"""curl, as SGLang's guides write it: the native route in all its shapes, tokens, and what an operator asks."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from typing import Any

from cases import arguments, check, run_all, version

TEXT = "The capital of France is"
SHORT = {"temperature": 0, "max_new_tokens": 8}


class Guide:
    def __init__(self, url: str, model: str) -> None:
        self.url, self.model = url, model

    def curl(self, path: str, body: Any = None, *more: str) -> tuple[int, str]:
        """Status and body."""
        command = ["curl", "-sS", "--max-time", "100", "-w", "\n%{http_code}", *more, self.url + path]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        text, _, status = said.rpartition("\n")
        return int(status), text

    def generate(self, expected: int = 200, **body: Any) -> Any:
        status, text = self.curl("/generate", body)
        check(status == expected, f"status {expected}, got {status}: {text[:200]}")
        return json.loads(text)

    # -- /generate

    def text(self) -> None:
        found = self.generate(text=TEXT, sampling_params=SHORT)
        check("Paris" in found["text"] and len(found["output_ids"]) == 8, f"eight tokens about Paris, got {found}")
        known = {"id", "prompt_tokens", "completion_tokens", "cached_tokens", "finish_reason", "weight_version"}
        check(known <= set(found["meta_info"]), f"{sorted(known)} in meta_info")
        check(found["meta_info"]["finish_reason"] == {"type": "length", "length": 8}, "a finish by length")

    def put(self) -> None:
        status, _ = self.curl("/generate", {"text": TEXT, "sampling_params": SHORT}, "-X", "PUT")
        check(status == 200, f"an answer to PUT, got {status}")

    def input_ids(self) -> None:
        ids = json.loads(self.curl("/tokenize", {"prompt": TEXT})[1])["tokens"]
        by_ids, by_text = (
            self.generate(**prompt, sampling_params=SHORT)["output_ids"]
            for prompt in ({"input_ids": ids}, {"text": TEXT})
        )
        check(by_ids == by_text, "ids to mean the text")

    def batch(self) -> None:
        params = [SHORT, {**SHORT, "max_new_tokens": 2}]
        found = self.generate(text=[TEXT, "Red, green,"], sampling_params=params, rid=["conf-a", "conf-b"])
        check([each["meta_info"]["id"] for each in found] == ["conf-a", "conf-b"], "each with its own id")
        check([len(each["output_ids"]) for each in found] == [8, 2], "each with its own parameters")

    def batch_of_one(self) -> None:
        check(isinstance(self.generate(text=[TEXT], sampling_params=SHORT), list), "a list for a list")

    def several_answers(self) -> None:
        found = self.generate(text=TEXT, sampling_params={**SHORT, "n": 3, "temperature": 0.9})
        check(len(found) == 3, f"three answers, got {len(found)}")

    def stream(self) -> None:
        _, said = self.curl("/generate", {"text": TEXT, "sampling_params": SHORT, "stream": True}, "-N")
        events = [line.removeprefix("data: ") for line in said.split("\n\n") if line]
        check(events[-1] == "[DONE]", "[DONE] at the end")
        texts = [json.loads(event)["text"] for event in events[:-1]]
        check(all(after.startswith(before) for before, after in itertools.pairwise(texts)), "text so far")

    def stream_batch(self) -> None:
        body = {"text": [TEXT, "Red, green,"], "sampling_params": SHORT, "stream": True}
        events = [line.removeprefix("data: ") for line in self.curl("/generate", body, "-N")[1].split("\n\n") if line]
        check({json.loads(event)["index"] for event in events[:-1]} == {0, 1}, "events of both, numbered")

    def logprobs(self) -> None:
        more = {"return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": 2, "return_text_in_logprobs": True}
        meta = self.generate(text=TEXT, sampling_params=SHORT, token_ids_logprob=[1, 2], **more)["meta_info"]
        check(meta["input_token_logprobs"][0][0] is None, "nothing known of the first token")
        check(len(meta["input_token_logprobs"]) == meta["prompt_tokens"], "one for each token of the prompt")
        check(len(meta["output_token_logprobs"]) == 8, "one for each token of the output")
        check([len(each) for each in meta["output_top_logprobs"]] == [2] * 8, "two likeliest at each")
        check(meta["output_token_ids_logprobs"][0][0][1] == 1, "the asked-for ids")
        check(isinstance(meta["output_token_logprobs"][0][2], str), "texts of tokens")

    def logprobs_of_a_batch(self) -> None:
        shape = {"return_logprob": [True, False], "logprob_start_len": [0, -1], "top_logprobs_num": [1, 0]}
        found = self.generate(text=[TEXT, TEXT], sampling_params=SHORT, **shape)
        has = ["output_token_logprobs" in each["meta_info"] for each in found]
        check(has == [True, False], f"log probabilities of the first only, got {has}")

    def cached_tokens(self) -> None:
        long = "A story about a fox, told slowly and with many words, so that there is something to keep. " * 4
        ask = {"text": long, "sampling_params": SHORT, "cache_salt": "conformance"}
        self.generate(**ask)
        check(self.generate(**ask)["meta_info"]["cached_tokens"] > 50, "a cached prefix")
        other = {**ask, "cache_salt": "conformance, another"}
        check(self.generate(**other)["meta_info"]["cached_tokens"] == 0, "no prefix of another salt")
        check(self.generate(**ask, extra_key="x")["meta_info"]["cached_tokens"] == 0, "no prefix of another key")

    def stop(self) -> None:
        found = self.generate(text=TEXT, sampling_params={**SHORT, "max_new_tokens": 32, "stop": ["Paris"]})
        check("Paris" not in found["text"], "the stop string cut")
        check(found["meta_info"]["finish_reason"] == {"type": "stop", "matched": "Paris"}, "and named")

    def constrained(self) -> None:
        found = self.generate(text="The year: ", sampling_params={**SHORT, "regex": "(19|20)[0-9]{2}"})
        check(found["text"].isdigit() and len(found["text"]) == 4, f"four digits, got {found['text']!r}")

    def extras(self) -> None:
        """Fields that steer nothing in the answer are taken."""
        more = {"priority": 1, "routing_key": "k", "log_metrics": False, "no_logs": True, "custom_labels": {"a": "b"}}
        self.generate(text=TEXT, sampling_params=SHORT, **more)

    def refused(self) -> None:
        for field, value in {"image_data": "x", "input_embeds": [[0.1]], "lora_path": "x", "session_id": "x"}.items():
            said = self.generate(400, text=TEXT, **{field: value})
            check(field in json.dumps(said), f"{field} named in the error, got {said}")
        said = self.generate(400, text=TEXT, sampling_params={"temperature": -1})
        check("temperature" in json.dumps(said), f"temperature named in the error, got {said}")
        self.generate(400, text=TEXT, input_ids=[1])

    # -- tokens, and the server

    def tokens(self) -> None:
        ids = json.loads(self.curl("/tokenize", {"prompt": TEXT, "add_special_tokens": False})[1])["tokens"]
        check(json.loads(self.curl("/detokenize", {"tokens": ids})[1])["text"] == TEXT, "there and back")

    def encode(self) -> None:
        found = json.loads(self.curl("/encode", {"text": "a cat"})[1])
        check(len(found["embedding"]) > 10, "a vector")

    def information(self) -> None:
        for path in ("/health", "/health_generate", "/get_model_info", "/get_server_info", "/v1/models", "/metrics"):
            status, text = self.curl(path)
            check(status == 200, f"200 from {path}, got {status}: {text[:100]}")

    def flush_cache(self) -> None:
        status, text = self.curl("/flush_cache", None, "-X", "POST")
        check(status == 200, f"an empty cache, got {status}: {text}")

    def abort_request(self) -> None:
        status, _ = self.curl("/abort_request", {"rid": "nobody has this"})
        check(status == 200, f"200 for an id that nobody has, got {status}")

    def not_json(self) -> None:
        status, _ = self.curl("/generate", None, "-d", "{")
        check(status == 400, f"400 for half a body, got {status}")

    def wrong_method(self) -> None:
        status, _ = self.curl("/v1/chat/completions")
        check(status == 405, f"405 for GET, got {status}")


def main() -> None:
    args = arguments()
    version(subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout.split()[1])
    guide = Guide(args.url, args.model)
    names = [name for name in vars(Guide) if not name.startswith("_") and name not in ("curl", "generate")]
    cases: dict[str, Callable[[], object]] = {name: getattr(guide, name) for name in names}
    run_all(cases)


if __name__ == "__main__":
    main()
