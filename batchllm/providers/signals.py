"""The identifiers and texts that providers use, as data: which code means what, and which words mean it where there is no code.

The trap: a text may be quoted from the request, so texts are looked for in the provider's message only, and the dear verdicts (money, key) only at
statuses that carry them. Sources: protocols A.8, B.8, C.5, D.3, E, F and the gateways of the field notes.
"""

from __future__ import annotations

from batchllm.core.nouns import Kind

MONEY_CODES = (
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "insufficient_quota",
    "billing_not_active",
    "billing_hard_limit_reached",
    "enforced_spend_limit_reached",
    "contract_spend_limit_reached",
    "organization_on_hold",
    "budget_exceeded",
    "insufficient_balance",
)

CODES: dict[str, Kind] = {
    **dict.fromkeys(MONEY_CODES, Kind.MONEY),
    **dict.fromkeys(
        (
            "billing_error",
            "payment_required",
            "exceeded_budget",
        ),
        Kind.MONEY,
    ),
    **dict.fromkeys(
        (
            "invalid_api_key",
            "api_key_invalid",
            "no_db_connection",  # LiteLLM without a database: a wrong key, dressed as a 400
            "token_not_found_in_db",
            "expired_key",
            "account_deactivated",
            "failed_precondition",  # Gemini: region or billing
            "pup_limited_disabled",
        ),
        Kind.AUTH,
    ),
    **dict.fromkeys(
        (
            "model_not_found",
            "deploymentnotfound",
            "model_decommissioned",
            "model_not_active",
            "key_model_access_denied",
            "team_model_access_denied",
            "model_not_available",
        ),
        Kind.MODEL_GONE,
    ),
    **dict.fromkeys(
        ("context_length_exceeded", "exceed_context_size_error", "contextwindowexceedederror", "model_context_window_exceeded"), Kind.CONTEXT
    ),
    **dict.fromkeys(
        (
            "content_filter",
            "content_policy_violation",
            "contentpolicyviolationerror",
            "responsibleaipolicyviolation",
            "data_inspection_failed",
            "invalid_prompt",
            "bio_policy",
            "misalignment_policy_violation",
            "moderation_blocked",
        ),
        Kind.FILTER,
    ),
    **dict.fromkeys(("slow_down", "ramp_limit_exceeded"), Kind.RAMP),
    **dict.fromkeys(("rate_limit_exceeded", "openrouter_in_flight_budget", "all_deployments_in_cooldown"), Kind.RATE),
    "weight_exceeds_budget": Kind.OVERSIZE,
    # Groq's 400 for what its own model wrote: the next try may well be better.
    **dict.fromkeys(("tool_use_failed", "json_validate_failed", "output_parse_failed"), Kind.CUT),
    **dict.fromkeys(
        ("server_is_overloaded", "overloaded_error", "engine_overloaded", "engine_overloaded_error", "capacity_exceeded", "resource_unavailable"),
        Kind.OVERLOAD,
    ),
}
"""Codes that mean the same at every status. `slow_down` at 503 is the older name of an overload."""

STATUS_OF_WORD: dict[str, int] = {
    **dict.fromkeys(
        ("invalid_request_error", "invalid_argument", "badrequesterror", "bad_request", "unsupported_value", "unsupported_parameter"), 400
    ),
    **dict.fromkeys(("authentication_error", "unauthenticated", "auth_error"), 401),
    **dict.fromkeys(("permission_error", "permission_denied"), 403),
    **dict.fromkeys(("not_found_error", "not_found", "notfounderror"), 404),
    **dict.fromkeys(("rate_limit_error", "resource_exhausted", "ratelimiterror", "throttling_error", "too_many_requests"), 429),
    **dict.fromkeys(("service_unavailable_error", "serviceunavailableerror", "unavailable_error", "unavailable"), 503),
    **dict.fromkeys(("timeout_error", "deadline_exceeded"), 504),
    **dict.fromkeys(("server_error", "internal_error", "internal", "api_error", "internal_server_error", "internalservererror"), 500),
}
"""For an error inside a 200: the status that it would have had."""

CONTEXT_TEXTS = (
    "maximum context length is",
    "context_length_exceeded",
    "exceeds the maximum number of tokens allowed",
    "prompt is too long",
    "exceed context limit",
    "is longer than the model's context length",
    "exceeds the model's context length",
    "requested token count exceeds the model's maximum context length",
    "input tokens exceed the configured limit",
    "exceeds the available context size",
    "the input length exceeds the context length",
    "maximum input length is",
    "input too long:",
    "`inputs` tokens + `max_new_tokens` must be",
    "contextwindowexceedederror",
)
CONTEXT_PAIR = ("current length is", "while limit is")
NOT_CONTEXT = "string_above_max_length"
"""A check of one parameter's length that has nothing to do with the window."""

MONEY_TEXTS = (
    *MONEY_CODES,
    "specified api usage limits",  # Anthropic: your own spend limit, as a 400
    "workspace api usage limits",
    "credit balance is too low",
    "budget has been exceeded",
    "exceededbudget",
    "exceeded budget",
    "over budget",
    "insufficient balance",
    "insufficient credits",
    "key limit exceeded",
)
QUOTA_TEXT = "exceeded your current quota"
"""OpenAI's money text, when a gateway dropped the code. Gemini uses the same words for every rate limit, so OpenAI's site must be named too."""
QUOTA_SITE = "platform.openai.com"

DAY_TEXTS = ("per day", "per-day", "perday", "(rpd)", "(tpd)", "daily limit", "daily quota")
TOO_LARGE_TEXT = "request too large"

AUTH_TEXTS = ("no connected db", "api key not valid", "incorrect api key", "invalid api key", "authentication error,", "authenticationerror")
"""At 400 only; 401 and 403 need no words."""
MODEL_TEXTS = (
    "invalid model name passed in model=",
    "is not a valid model",
    "has been decommissioned",
    "model_not_found",
    "unknown model",
    "does not support chat",
    "no such model",
    "model does not exist",
    "not a chat model",
)
"""At 400 only."""
FILTER_TEXTS = (
    "content management policy",
    "content_policy_violation",
    "contentpolicyviolation",
    "content filter",
    "flagged as potentially violating",
    "safety system",
    "safety policy",
    "responsible ai",
)
MODERATION_TEXTS = ("moderation", "flagged")
"""At 403 (OpenRouter)."""
ROW_THINGS = ("no such file", "file object", "image", "previous response", "previous_response", "tool_call", "item with id")
"""At 404: what is missing is something that the row names, not the model."""
OVERLOAD_TEXTS = ("overloaded", "server busy", "currently busy", "at capacity", "queue is full", "loading model")
"""At 500; 503 and 529 need no words."""
DEAD_UPSTREAM_TEXTS = ("connection error.", "cannot connect to host")
"""LiteLLM's 500 for an upstream that doesn't answer."""
