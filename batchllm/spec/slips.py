"""Slips of the pen among request parameters: `max_token` would go out, change nothing, and cost a night.

Providers have parameters of their own, and new ones every month, so an unknown name is no mistake by itself: only one that nobody has and that is a letter away
from one that somebody has. Names of: OpenAI's four endpoints, Anthropic, Gemini, Ollama, vLLM, SGLang, llama.cpp, OpenRouter, LiteLLM, Mistral,
Groq, DeepSeek, Together, xAI and Azure (protocols A to E). A provider's own parameter that is refused here by mistake goes under a model's `body`.
"""

from __future__ import annotations

from functools import lru_cache

_NAMES = """
audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens metadata modalities n parallel_tool_calls prediction
presence_penalty prompt_cache_key prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier stop store stream stream_options
temperature tool_choice tools top_logprobs top_p user verbosity web_search_options model messages
background conversation include input instructions max_output_tokens max_tool_calls previous_response_id prompt reasoning text truncation context_management
best_of echo suffix dimensions encoding_format truncate
cache_control container inference_geo mcp_servers output_config speed stop_sequences thinking top_k betas system
cachedContent generationConfig labels safetySettings systemInstruction toolConfig serviceTier
format keep_alive options raw shift template think num_ctx num_predict num_keep num_gpu num_thread num_batch repeat_penalty repeat_last_n
mirostat mirostat_tau mirostat_eta min_p typical_p tfs_z main_gpu use_mmap use_mlock numa low_vram
add_generation_prompt add_special_tokens allowed_token_ids bad_words chat_template chat_template_kwargs continue_final_message documents early_stopping
guided_json guided_regex guided_choice guided_grammar guided_decoding_backend ignore_eos include_stop_str_in_output length_penalty logits_processors
min_tokens mm_processor_kwargs priority prompt_logprobs repetition_penalty request_id return_token_ids return_tokens_as_token_ids
skip_special_tokens spaces_between_special_tokens stop_token_ids structured_outputs truncate_prompt_tokens use_beam_search vllm_xargs kv_transfer_params
ebnf regex json_schema no_stop_trim lora_path separate_reasoning stream_reasoning custom_logit_processor return_hidden_states custom_params
cache_prompt dry_multiplier dry_base dry_allowed_length dry_penalty_last_n dry_sequence_breakers dynatemp_range dynatemp_exponent grammar grammar_lazy id_slot
lora min_keep n_discard n_keep n_predict n_probs post_sampling_probs reasoning_format reasoning_budget samplers t_max_predict_ms timings_per_token
top_a top_n_sigma xtc_probability xtc_threshold penalty_last_n enable_thinking thinking_budget
include_reasoning models plugins preset provider route transforms usage debug image_config session_id trace
api_base caching fallbacks guardrails mock_response num_retries tags timeout drop_params
citation_options compound_custom disable_tool_validation exclude_domains include_domains search_settings
prompt_mode random_seed safe_prompt context_length_exceeded_behavior safety_model deferred search_parameters data_sources user_security_context
extra_body extra_headers
"""
KNOWN = frozenset(_NAMES.split())
_INSTEAD = {"max_output_tokens": "max_tokens", "n_predict": "max_tokens", "num_predict": "max_tokens"}
"""What to say instead of a provider's own word."""
_LONG, _LONGER = 6, 12
"""Letters from which one letter, and two, may be wrong: short names are too near to each other."""


@lru_cache(maxsize=1024)
def slip(name: str) -> str | None:
    """What is wrong with a parameter's name, and the mend; None when nothing seems to be."""
    if name in KNOWN:
        return None
    bare = _bare(name)
    near = [(distance, known) for known in KNOWN if (distance := _distance(bare, _bare(known), _most(bare))) is not None]
    if not near:
        return None
    meant = min(near)[1]
    return f"no provider has a parameter {name!r}; did you mean `{_INSTEAD.get(meant, meant)}`? (One that is meant goes under a model's `body`.)"


def _bare(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _most(bare: str) -> int:
    return 0 if len(bare) < _LONG else 1 if len(bare) < _LONGER else 2


def _distance(one: str, other: str, most: int) -> int | None:
    """Letters that are missing, too many, wrong, or swapped with their neighbour; None above `most`. A final `s` too many or too few is a slip at any length."""
    if one == other:
        return 0
    if len(one) > 3 and one in {f"{other}s", other.removesuffix("s")}:
        return 1
    if not most or abs(len(one) - len(other)) > most:
        return None
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, another in enumerate(other, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != another))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == another:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1] if last[-1] <= most else None
